#include "session.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

namespace revnet {

size_t MemoryReport::total() const { return std::accumulate(categories.begin(), categories.end(), workspace); }

struct Session::Program {
  std::vector<BufferSpec> table;  // the session's buffers when it was added, then its own
  size_t firstLocal = 0;
  std::vector<Op> ops;
  Plan plan;
  Memory memory;
  std::unique_ptr<Replay> replay;  // null until bound to the current arena and workspace
};

Session::Session(std::unique_ptr<Backend> backend, bool poison) : backend_(std::move(backend)), poison_(poison) {}

Session::~Session() {
  programs_.clear();
  for (void* memory : owned_) backend_->release(memory);
  if (arena_.memory) backend_->release(arena_.memory);
  if (workspace_.memory) backend_->release(workspace_.memory);
}

size_t Session::addBuffer(const BufferSpec& spec) {
  buffers_.push_back(spec);
  const size_t id = buffers_.size() - 1;
  try {
    checkBuffer(buffers_, id);
    if (spec.parent >= 0) {
      const Root root = rootOf(buffers_, id);
      addresses_.push_back(addresses_[root.id] + static_cast<size_t>(root.offset) * backend_->elementBytes(spec.type));
      return id;
    }
    const size_t bytes = alignUp(static_cast<size_t>(spec.elements) * backend_->elementBytes(spec.type));
    owned_.reserve(owned_.size() + 1);
    addresses_.reserve(addresses_.size() + 1);
    void* memory = backend_->allocate(bytes);
    try {
      backend_->fill(memory, std::byte{0}, bytes);
    } catch (...) {
      backend_->release(memory);
      throw;
    }
    owned_.push_back(memory);
    addresses_.push_back(static_cast<std::byte*>(memory));
    allocated_.categories[static_cast<size_t>(spec.category)] += bytes;
    return id;
  } catch (...) {
    buffers_.pop_back();
    throw;
  }
}

size_t Session::addProgram(const std::vector<BufferSpec>& locals, std::vector<Op> ops) {
  auto program = std::make_unique<Program>();
  program->table = buffers_;
  program->firstLocal = buffers_.size();
  program->table.insert(program->table.end(), locals.begin(), locals.end());
  program->ops = std::move(ops);
  program->plan = planProgram(program->table, program->firstLocal, program->ops, *backend_);
  programs_.push_back(std::move(program));
  return programs_.size() - 1;
}

MemoryReport Session::planned(size_t program) const {
  const Plan& plan = programs_.at(program)->plan;
  MemoryReport report = allocated_;
  report.categories[static_cast<size_t>(Category::Activations)] =
      allocated_.categories[static_cast<size_t>(Category::Activations)] - arena_.bytes + std::max(arena_.bytes, plan.arenaBytes);
  report.workspace = std::max(workspace_.bytes, plan.workspaceBytes);
  return report;
}

// Grows by replacing: nothing in the arena or the workspace outlives a run.
void Session::grow(Allocation& allocation, size_t bytes, size_t& counted) {
  if (bytes <= allocation.bytes) return;
  for (auto& program : programs_) program->replay.reset();
  if (allocation.memory) backend_->release(allocation.memory);
  counted -= allocation.bytes;
  allocation = {};
  allocation.memory = backend_->allocate(bytes);
  allocation.bytes = bytes;
  counted += bytes;
}

void Session::reserve(const Program& program) {
  grow(arena_, program.plan.arenaBytes, allocated_.categories[static_cast<size_t>(Category::Activations)]);
  grow(workspace_, program.plan.workspaceBytes, allocated_.workspace);
}

void Session::bind(Program& program) {
  if (program.replay) return;
  Memory& memory = program.memory;
  memory.addresses.assign(program.table.size(), nullptr);
  memory.types.resize(program.table.size());
  memory.workspace = static_cast<std::byte*>(workspace_.memory);
  for (size_t id = 0; id < program.table.size(); ++id) {
    const BufferSpec& spec = program.table[id];
    memory.types[id] = spec.type;
    if (id < program.firstLocal) {
      memory.addresses[id] = addresses_[id];
      continue;
    }
    const Root root = rootOf(program.table, id);
    if (root.id < program.firstLocal) {
      memory.addresses[id] = addresses_[root.id] + static_cast<size_t>(root.offset) * backend_->elementBytes(spec.type);
    } else if (program.plan.offsets[root.id] != Plan::kNotPlanned) {
      memory.addresses[id] = static_cast<std::byte*>(arena_.memory) + program.plan.offsets[root.id] +
                             static_cast<size_t>(root.offset) * backend_->elementBytes(spec.type);
    }
  }
  program.replay = backend_->record(program.ops, memory);
}

std::vector<HostArray> Session::run(size_t index, const std::vector<Input>& inputs, const std::vector<size_t>& outputs,
                                    const std::atomic<bool>& cancelled) {
  if (index >= programs_.size()) throw invalid("there is no program " + std::to_string(index));
  Program& program = *programs_[index];
  // Unknown buffers are refused before anything is changed.
  const auto check = [&](size_t id, const char* what) {
    if (id >= program.table.size()) throw invalid(std::string(what) + ": there is no buffer " + std::to_string(id));
    if (id >= program.firstLocal && !program.table[id].pinned)
      throw invalid(std::string(what) + ": buffer '" + program.table[id].name + "' is not pinned");
    if (id >= program.firstLocal && program.plan.offsets[rootOf(program.table, id).id] == Plan::kNotPlanned)
      throw invalid(std::string(what) + ": buffer '" + program.table[id].name + "' is not used by the program");
  };
  for (const Input& input : inputs) check(input.id, "input");
  for (const size_t id : outputs) check(id, "output");

  reserve(program);
  bind(program);
  if (poison_)
    for (const Allocation& each : {arena_, workspace_})
      if (each.bytes > 0) backend_->fill(each.memory, std::byte{0xFF}, each.bytes);
  for (const Input& input : inputs) upload(program.table[input.id], program.memory.addresses[input.id], input.values);
  program.replay->run(cancelled);
  if (outputs.empty()) backend_->finish();
  std::vector<HostArray> results;
  for (const size_t id : outputs) results.push_back(download(program.table[id], program.memory.addresses[id]));
  return results;
}

HostArray Session::read(size_t id) const {
  if (id >= buffers_.size()) throw invalid("there is no buffer " + std::to_string(id));
  return download(buffers_[id], addresses_[id]);
}

void Session::write(size_t id, const HostArray& values) {
  if (id >= buffers_.size()) throw invalid("there is no buffer " + std::to_string(id));
  upload(buffers_[id], addresses_[id], values);
}

namespace {

template <class To, class From>
std::vector<To> convert(const std::vector<From>& values) {
  return std::vector<To>(values.begin(), values.end());
}

template <class T>
std::vector<T> toFixed(const std::vector<double>& values, int fractionBits, const std::string& name) {
  std::vector<T> fixed(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    // The range is [-512, 512) whatever the step: 2^9.
    const double steps = std::nearbyint(std::ldexp(values[i], fractionBits)), bound = std::ldexp(512.0, fractionBits);
    if (!(steps >= -bound && steps < bound))
      throw invalid("buffer '" + name + "': a fixed-point stream takes values from -512 up to, not including, 512");
    fixed[i] = static_cast<T>(steps);
  }
  return fixed;
}

template <class T>
std::vector<double> fromFixed(const std::vector<T>& fixed, int fractionBits) {
  std::vector<double> values(fixed.size());
  for (size_t i = 0; i < fixed.size(); ++i) values[i] = std::ldexp(static_cast<double>(fixed[i]), -fractionBits);
  return values;
}

}  // namespace

void Session::upload(const BufferSpec& spec, std::byte* to, const HostArray& values) {
  const size_t count = std::visit([](const auto& v) { return v.size(); }, values);
  if (count != static_cast<size_t>(spec.elements))
    throw invalid("buffer '" + spec.name + "': expected " + std::to_string(spec.elements) + " values, got " +
                  std::to_string(count));
  const size_t elementBytes = backend_->elementBytes(spec.type);
  const auto send = [&](const auto& data) { backend_->upload(to, data.data(), data.size() * sizeof(data[0])); };
  const auto refuse = [&](const char* expected) { return invalid("buffer '" + spec.name + "': expected " + expected); };

  switch (spec.type) {
    case ElementType::Real:
      if (const auto* f = std::get_if<std::vector<float>>(&values)) return elementBytes == 4 ? send(*f) : send(convert<double>(*f));
      if (const auto* d = std::get_if<std::vector<double>>(&values)) return elementBytes == 8 ? send(*d) : send(convert<float>(*d));
      throw refuse("a Float32Array or Float64Array");
    case ElementType::Fixed:
      if (const auto* d = std::get_if<std::vector<double>>(&values)) {
        if (elementBytes == 4) return send(toFixed<int32_t>(*d, backend_->fractionBits(), spec.name));
        return send(toFixed<int64_t>(*d, backend_->fractionBits(), spec.name));
      }
      throw refuse("a Float64Array");
    case ElementType::Index:
      if (const auto* i = std::get_if<std::vector<int32_t>>(&values)) return send(*i);
      throw refuse("an Int32Array");
    case ElementType::Byte:
      if (const auto* b = std::get_if<std::vector<uint8_t>>(&values)) return send(*b);
      throw refuse("a Uint8Array");
  }
}

HostArray Session::download(const BufferSpec& spec, const std::byte* from) const {
  const auto count = static_cast<size_t>(spec.elements);
  const auto fetch = [&](auto values) {
    backend_->download(values.data(), from, count * sizeof(values[0]));
    return values;
  };
  const size_t elementBytes = backend_->elementBytes(spec.type);
  switch (spec.type) {
    case ElementType::Real:
      if (elementBytes == 4) return fetch(std::vector<float>(count));
      return fetch(std::vector<double>(count));
    case ElementType::Fixed:
      if (elementBytes == 4) return fromFixed(fetch(std::vector<int32_t>(count)), backend_->fractionBits());
      return fromFixed(fetch(std::vector<int64_t>(count)), backend_->fractionBits());
    case ElementType::Index: return fetch(std::vector<int32_t>(count));
    case ElementType::Byte: break;
  }
  return fetch(std::vector<uint8_t>(count));
}

}  // namespace revnet

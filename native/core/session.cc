#include "session.h"

#include <algorithm>
#include <cstring>
#include <functional>
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
  for (const Allocation& each : {arena_, workspace_, prepared_})
    if (each.memory) backend_->release(each.memory);
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
    void* memory = backend_->allocateZeros(bytes);
    owned_.push_back(memory);
    addresses_.push_back(static_cast<std::byte*>(memory));
    allocated_.categories[static_cast<size_t>(spec.category)] += bytes;
    return id;
  } catch (...) {
    buffers_.pop_back();
    throw;
  }
}

void Session::settle() noexcept {
  for (; settled_ < owned_.size(); ++settled_) backend_->settle(owned_[settled_]);
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
  const auto grows = [](const Allocation& allocation, size_t bytes) {
    return std::max(allocation.bytes, bytes) - allocation.bytes;
  };
  report.categories[static_cast<size_t>(Category::Activations)] += grows(arena_, plan.arenaBytes);
  report.categories[static_cast<size_t>(Category::Parameters)] += grows(prepared_, plan.preparedBytes);
  report.workspace = std::max(workspace_.bytes, plan.workspaceBytes);
  return report;
}

// Grows by replacing: nothing in them outlives a run.
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
  grow(prepared_, program.plan.preparedBytes, allocated_.categories[static_cast<size_t>(Category::Parameters)]);
}

void Session::bind(Program& program) {
  if (program.replay) return;
  Memory& memory = program.memory;
  memory.addresses.assign(program.table.size(), nullptr);
  memory.types.resize(program.table.size());
  for (size_t type = 0; type < memory.elementBytes.size(); ++type)
    memory.elementBytes[type] = backend_->elementBytes(static_cast<ElementType>(type));
  memory.workspace = static_cast<std::byte*>(workspace_.memory);
  memory.prepared = static_cast<std::byte*>(prepared_.memory);
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

namespace {

class ReadyResults final : public PendingResults {
 public:
  explicit ReadyResults(std::vector<HostArray> results) : results_(std::move(results)) {}
  bool ready() override { return true; }
  std::vector<HostArray> take() override { return std::move(results_); }

 private:
  std::vector<HostArray> results_;
};

// Numbers of the items in the order of their addresses.
template <class AddressOf>
std::vector<size_t> byAddress(size_t count, const AddressOf& addressOf) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return std::less<>()(addressOf(a), addressOf(b)); });
  return order;
}

}  // namespace

std::unique_ptr<PendingResults> readyResults(std::vector<HostArray> results) {
  return std::make_unique<ReadyResults>(std::move(results));
}

// A copy of [start, start + bytes), which moves the buffers `from` to `to` - 1 of a list.
struct Session::Span {
  std::byte* start;
  size_t bytes, from, to;
};

// The fewest copies that move `count` buffers in the order of their addresses, idOf(0) and so on: neighbours that nothing but
// alignment parts go together. Only whole buffers of the arena, since beside a view, or a buffer of the session, lies what belongs
// to others; and only small ones, since others are worth a copy of their own.
template <class IdOf>
std::vector<Session::Span> Session::spans(const Program& program, const IdOf& idOf, size_t count) const {
  constexpr size_t kSmall = 64 << 10;
  const auto bytesOf = [&](size_t id) {
    return static_cast<size_t>(program.table[id].elements) * backend_->elementBytes(program.table[id].type);
  };
  const auto joins = [&](size_t id) { return id >= program.firstLocal && program.table[id].parent < 0 && bytesOf(id) <= kSmall; };
  std::vector<Span> spans;
  for (size_t i = 0; i < count; ++i) {
    std::byte* const at = program.memory.addresses[idOf(i)];
    const bool next = i > 0 && joins(idOf(i - 1)) && joins(idOf(i)) && spans.back().start + alignUp(spans.back().bytes) == at;
    if (!next) spans.push_back({at, 0, i, i});
    Span& span = spans.back();
    span.bytes = static_cast<size_t>(at - span.start) + bytesOf(idOf(i));
    span.to = i + 1;
  }
  return spans;
}

// A run that was started, and the copies of its outputs.
class Session::Run final : public PendingResults {
 public:
  Run(const Session& session, const Program& program, const std::vector<size_t>& outputs)
      : session_(session), places_(outputs.size()) {
    for (const size_t id : outputs) specs_.push_back(program.table[id]);
    const auto addressOf = [&](size_t output) { return program.memory.addresses[outputs[output]]; };
    const std::vector<size_t> order = byAddress(outputs.size(), addressOf);
    for (const Span& span : session.spans(
             program, [&](size_t i) { return outputs[order[i]]; }, order.size())) {
      for (size_t i = span.from; i < span.to; ++i)
        places_[order[i]] = {downloads_.size(), static_cast<size_t>(addressOf(order[i]) - span.start)};
      downloads_.push_back(session.backend_->beginDownload(span.start, span.bytes));
    }
  }

  // Copies are made in their order.
  bool ready() override { return downloads_.empty() || downloads_.back()->ready(); }

  std::vector<HostArray> take() override {
    if (downloads_.empty()) session_.backend_->finish();
    std::vector<HostArray> results;
    for (size_t i = 0; i < specs_.size(); ++i)
      results.push_back(fromMachine(*session_.backend_, specs_[i], [&](void* to, size_t bytes) {
        std::memcpy(to, downloads_[places_[i].download]->wait() + places_[i].offset, bytes);
      }));
    return results;
  }

 private:
  struct Place {
    size_t download, offset;  // in bytes
  };
  const Session& session_;
  std::vector<BufferSpec> specs_;
  std::vector<Place> places_;  // of each output
  std::vector<std::unique_ptr<Download>> downloads_;
};

void Session::uploadAll(const Program& program, const std::vector<Input>& inputs) {
  const auto addressOf = [&](size_t input) { return program.memory.addresses[inputs[input].id]; };
  const std::vector<size_t> order = byAddress(inputs.size(), addressOf);
  for (const Span& span : spans(
           program, [&](size_t i) { return inputs[order[i]].id; }, order.size())) {
    const Input& first = inputs[order[span.from]];
    if (span.to == span.from + 1) {
      upload(program.table[first.id], span.start, first.values);
      continue;
    }
    std::vector<std::byte> block(span.bytes);
    for (size_t i = span.from; i < span.to; ++i) {
      const Input& input = inputs[order[i]];
      std::byte* const to = block.data() + (addressOf(order[i]) - span.start);
      toMachine(*backend_, program.table[input.id], input.values,
                [&](const void* data, size_t bytes) { std::memcpy(to, data, bytes); });
    }
    backend_->upload(span.start, block.data(), block.size());
  }
}

std::unique_ptr<PendingResults> Session::start(size_t index, const std::vector<Input>& inputs, const std::vector<size_t>& outputs,
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
    for (const Allocation& each : {arena_, workspace_, prepared_})
      if (each.bytes > 0) backend_->fill(each.memory, std::byte{0xFF}, each.bytes);
  uploadAll(program, inputs);
  program.replay->run(cancelled);
  return std::make_unique<Run>(*this, program, outputs);
}

std::vector<HostArray> Session::run(size_t program, const std::vector<Input>& inputs, const std::vector<size_t>& outputs,
                                    const std::atomic<bool>& cancelled) {
  return start(program, inputs, outputs, cancelled)->take();
}

void Session::upload(const BufferSpec& spec, std::byte* to, const HostArray& values) {
  toMachine(*backend_, spec, values, [&](const void* data, size_t bytes) { backend_->upload(to, data, bytes); });
}

HostArray Session::download(const BufferSpec& spec, const std::byte* from) const {
  return fromMachine(*backend_, spec, [&](void* to, size_t bytes) { backend_->download(to, from, bytes); });
}

std::pair<BufferSpec, std::byte*> Session::partOf(size_t id, const Part& part) const {
  if (id >= buffers_.size()) throw invalid("there is no buffer " + std::to_string(id));
  BufferSpec spec = buffers_[id];
  const int64_t elements = part.elements < 0 ? spec.elements - part.first : part.elements;
  if (part.first > spec.elements || elements > spec.elements - part.first)
    throw invalid("buffer '" + spec.name + "': expected a part of its " + std::to_string(spec.elements) + " values, got " +
                  std::to_string(elements) + " from " + std::to_string(part.first));
  spec.elements = elements;
  return {spec, addresses_[id] + static_cast<size_t>(part.first) * backend_->elementBytes(spec.type)};
}

HostArray Session::read(size_t id, const Part& part) const {
  const auto [spec, from] = partOf(id, part);
  return download(spec, from);
}

void Session::write(size_t id, const HostArray& values, const Part& part) {
  const auto [spec, to] = partOf(id, part);
  upload(spec, to, values);
}

void Session::initialize(size_t id, uint64_t seed, const std::vector<InitialTensor>& tensors, const std::atomic<bool>& cancelled) {
  if (id >= buffers_.size()) throw invalid("there is no buffer " + std::to_string(id));
  const BufferSpec& spec = buffers_[id];
  if (spec.type != ElementType::Real) throw invalid("buffer '" + spec.name + "': only reals have initial values");
  checkInitialTensors(tensors, spec.elements);
  const auto fill = [&](auto values) {
    drawInitial(seed, tensors, values.data(), cancelled);
    if (!cancelled) upload(spec, addresses_[id], std::move(values));
  };
  const auto elements = static_cast<size_t>(spec.elements);
  backend_->elementBytes(spec.type) == sizeof(double) ? fill(std::vector<double>(elements)) : fill(std::vector<float>(elements));
}

}  // namespace revnet

#include "plan.h"

#include <algorithm>
#include <string>

namespace revnet {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 40;

// Visits a record's operands; the numbers between them were checked when the record was read.
template <class OnOperand>
struct OperandVisitor {
  const std::vector<BufferSpec>& table;
  OnOperand onOperand;

  template <class T>
  void number(const char*, T&) {}
  template <class T>
  void count(const char*, T&) {}
  void dimension(const char*, int&, int = 0) {}
  void flag(const char*, bool&) {}
  void convolution(const char* name, Convolution& convolution) {
    if (!convolution.valid()) throw invalid(std::string(name) + ": sizes, kernel or stride out of bounds");
  }

  int64_t split(int64_t elements, int c, size_t parts) const {
    if (parts < 1 || parts > 2 || c % static_cast<int>(parts) != 0)
      throw invalid("expected one tensor, or two with half the channels each");
    return elements / static_cast<int64_t>(parts);
  }
  void operand(const char* name, Operand& operand, Access access, Types types, int64_t elements) {
    if (!operand) throw invalid(std::string(name) + ": missing");
    const auto id = static_cast<size_t>(operand.id);
    if (id >= table.size())
      throw invalid(std::string(name) + ": there is no buffer " + std::to_string(id) + " among " + std::to_string(table.size()));
    const BufferSpec& buffer = table[id];
    if ((bit(buffer.type) & types) == 0)
      throw invalid(std::string(name) + ": buffer '" + buffer.name + "' has element type " +
                    kElementTypeNames[static_cast<size_t>(buffer.type)]);
    if (buffer.elements != elements)
      throw invalid(std::string(name) + ": buffer '" + buffer.name + "' has " + std::to_string(buffer.elements) +
                    " elements, expected " + std::to_string(elements));
    onOperand(name, id, access);
  }
  void optional(const char* name, Operand& operand, Access access, Types types, int64_t elements) {
    if (operand) this->operand(name, operand, access, types, elements);
  }
  template <class Elements>
  void operands(const char* name, std::vector<Operand>& list, Access access, Types types, Elements elements) {
    for (size_t i = 0; i < list.size(); ++i) operand(name, list[i], access, types, elements(i));
  }
  template <class T, class Each>
  void list(const char*, std::vector<T>& entries, Each each) {
    for (size_t i = 0; i < entries.size(); ++i) each(entries[i], i);
  }
  void sameType(Operand a, Operand b) const {
    if (table[static_cast<size_t>(a.id)].type != table[static_cast<size_t>(b.id)].type)
      throw invalid("buffers '" + table[static_cast<size_t>(a.id)].name + "' and '" + table[static_cast<size_t>(b.id)].name +
                    "' must have the same element type");
  }
};

template <class OnOperand>
void visitOperands(Op& op, const std::vector<BufferSpec>& table, OnOperand onOperand) {
  OperandVisitor<OnOperand> visitor{table, onOperand};
  std::visit([&](auto& record) { record.visit(visitor); }, op);
}

struct Lifetime {
  int first = -1, last = -1;  // ops; first < 0: never touched
  bool overlaps(const Lifetime& other) const { return first <= other.last && other.first <= last; }
};

struct Placement {
  size_t id, bytes, offset;
  Lifetime lifetime;
  bool pinned;
};

// Each at the lowest offset where it meets no other that is alive with it. Pinned ones, alive all the time, come first in the order
// of the table, so that what a run takes and what it gives can lie side by side; then the others, largest first.
void place(std::vector<Placement>& placements, Plan& plan) {
  std::stable_sort(placements.begin(), placements.end(), [](const Placement& a, const Placement& b) {
    return a.pinned != b.pinned ? a.pinned : !a.pinned && a.bytes > b.bytes;
  });
  std::vector<const Placement*> placed;  // by offset
  for (Placement& next : placements) {
    size_t offset = 0;
    for (const Placement* other : placed) {
      if (!other->lifetime.overlaps(next.lifetime)) continue;
      if (offset + next.bytes <= other->offset) break;
      offset = std::max(offset, other->offset + other->bytes);
    }
    next.offset = offset;
    const auto at =
        std::upper_bound(placed.begin(), placed.end(), offset, [](size_t value, const Placement* p) { return value < p->offset; });
    placed.insert(at, &next);
    plan.offsets[next.id] = offset;
    plan.arenaBytes = std::max(plan.arenaBytes, offset + next.bytes);
  }
}

size_t peakLiveBytes(const std::vector<Placement>& placements, size_t ops) {
  std::vector<size_t> born(ops + 1, 0), dead(ops + 1, 0);
  for (const Placement& p : placements) {
    born[static_cast<size_t>(p.lifetime.first)] += p.bytes;
    dead[static_cast<size_t>(p.lifetime.last)] += p.bytes;
  }
  size_t live = 0, peak = 0;
  for (size_t i = 0; i <= ops; ++i) {
    live += born[i];
    peak = std::max(peak, live);
    live -= dead[i];
  }
  return peak;
}

// What one op touches, to find operands that share memory.
struct Touched {
  const char* name;
  size_t id, root;
  int64_t first, last;  // elements of the root, [first, last)
  Access access;
};

// Kernels take their operands for separate memory. The exceptions are one buffer given twice: read and then updated (base and y of
// residualForward, dy and dx of residualBackward), or written and then read (statistics inside an op).
void checkSeparate(const std::vector<Touched>& touched, const std::vector<BufferSpec>& table) {
  for (size_t i = 0; i < touched.size(); ++i)
    for (size_t j = i + 1; j < touched.size(); ++j) {
      const Touched &a = touched[i], &b = touched[j];
      if (a.root != b.root || a.last <= b.first || b.last <= a.first) continue;
      if (a.access == Access::Read && b.access == Access::Read) continue;
      const bool readThenUpdated = a.access == Access::Read && b.access == Access::Update;
      const bool writtenThenRead = a.access == Access::Write && b.access == Access::Read;
      if (a.id == b.id && (readThenUpdated || writtenThenRead)) continue;
      throw invalid(std::string(a.name) + " and " + b.name + ": buffers '" + table[a.id].name + "' and '" + table[b.id].name +
                    "' share memory, and one is written");
    }
}

}  // namespace

Root rootOf(const std::vector<BufferSpec>& table, size_t id) {
  int64_t offset = 0;
  while (table[id].parent >= 0) {
    offset += table[id].offset;
    id = static_cast<size_t>(table[id].parent);
  }
  return {id, offset};
}

void checkBuffer(const std::vector<BufferSpec>& table, size_t id) {
  const BufferSpec& buffer = table[id];
  if (buffer.elements < 1 || buffer.elements > kMaxElements)
    throw invalid("buffer '" + buffer.name + "': expected 1 to 2^40 elements, got " + std::to_string(buffer.elements));
  if (buffer.parent < 0) return;
  if (static_cast<size_t>(buffer.parent) >= id) throw invalid("buffer '" + buffer.name + "': a view's parent must come before it");
  const BufferSpec& parent = table[static_cast<size_t>(buffer.parent)];
  if (parent.type != buffer.type || buffer.offset < 0 || buffer.offset > parent.elements - buffer.elements)
    throw invalid("buffer '" + buffer.name + "': not inside its parent '" + parent.name + "'");
}

Plan planProgram(const std::vector<BufferSpec>& table, size_t firstLocal, std::vector<Op>& ops, const Backend& backend) {
  for (size_t id = firstLocal; id < table.size(); ++id) checkBuffer(table, id);

  Plan plan;
  plan.offsets.assign(table.size(), Plan::kNotPlanned);
  std::vector<Lifetime> lifetimes(table.size());
  const int count = static_cast<int>(ops.size());
  for (size_t id = firstLocal; id < table.size(); ++id)
    if (table[id].pinned) lifetimes[rootOf(table, id).id] = {0, std::max(0, count - 1)};

  std::vector<Touched> touched;
  for (int i = 0; i < count; ++i) {
    Op& op = ops[static_cast<size_t>(i)];
    touched.clear();
    try {
      visitOperands(op, table, [&](const char* name, size_t id, Access access) {
        const auto [root, offset] = rootOf(table, id);
        touched.push_back({name, id, root, offset, offset + table[id].elements, access});
        if (root < firstLocal) return;
        Lifetime& lifetime = lifetimes[root];
        if (lifetime.first < 0) {
          if (access != Access::Write)
            throw invalid(std::string(name) + ": buffer '" + table[id].name + "' is read before it is written");
          lifetime.first = i;
        }
        lifetime.last = std::max(lifetime.last, i);
      });
      checkSeparate(touched, table);
    } catch (const Error& error) {
      throw Error(error.code(), "op " + std::to_string(i) + " (" + std::string(opName(op)) + "): " + error.what());
    }
    plan.workspaceBytes = std::max(plan.workspaceBytes, alignUp(backend.workspaceBytes(op)));
  }
  std::vector<ElementType> types;
  for (const BufferSpec& buffer : table) types.push_back(buffer.type);
  plan.preparedBytes = backend.preparedBytes(ops, types);

  std::vector<Placement> placements;
  for (size_t id = firstLocal; id < table.size(); ++id) {
    if (table[id].parent >= 0 || lifetimes[id].first < 0) continue;
    const size_t bytes = alignUp(static_cast<size_t>(table[id].elements) * backend.elementBytes(table[id].type));
    placements.push_back({id, bytes, 0, lifetimes[id], table[id].pinned});
  }
  plan.liveBytes = peakLiveBytes(placements, ops.size());
  place(placements, plan);
  return plan;
}

}  // namespace revnet

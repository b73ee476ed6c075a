// From a list of ops to memory: checks every operand against its buffer, finds how long each planned activation lives, and
// places them in one arena so that those alive at the same time do not overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend.h"
#include "buffer.h"
#include "ops.h"

namespace revnet {

struct Plan {
  // Byte offset in the arena of each planned buffer, by operand id; kNotPlanned for all others.
  static constexpr size_t kNotPlanned = static_cast<size_t>(-1);
  std::vector<size_t> offsets;
  size_t arenaBytes = 0;      // size of the arena: the peak of the activations alive at once, as placed
  size_t liveBytes = 0;       // the largest sum of live activations at any op: the bound that no placement can beat
  size_t workspaceBytes = 0;  // the largest scratch of any op
  size_t preparedBytes = 0;   // what the program makes of parameters
};

// `table`: the session's buffers, then the program's own. Buffers with id >= `firstLocal` and no parent are placed in the
// arena; they must be written (by an op, or pinned) before they are read. Throws Error ERR_INVALID_ARGUMENT naming the op,
// the field and the buffer.
Plan planProgram(const std::vector<BufferSpec>& table, size_t firstLocal, std::vector<Op>& ops, const Backend& backend);

// The buffer that owns the memory of `id`, and where in it (in elements) the buffer starts.
struct Root {
  size_t id;
  int64_t offset;
};
Root rootOf(const std::vector<BufferSpec>& table, size_t id);

// Throws unless the buffer's size is sane and, for a view, it lies inside an earlier buffer of the same type.
void checkBuffer(const std::vector<BufferSpec>& table, size_t id);

}  // namespace revnet

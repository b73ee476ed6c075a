// From the plain objects of binding.d.ts to the typed records of native/core. Only shapes and ranges are checked here, so that
// no arithmetic on them can overflow; the plan checks operands against their buffers.
#pragma once

#include <vector>

#include "core/buffer.h"
#include "core/initial_values.h"
#include "core/ops.h"
#include "reader.h"

namespace revnet {

constexpr uint32_t kMaxBuffers = 1 << 16;
constexpr uint32_t kMaxOps = 1 << 16;

struct ProgramRecord {
  std::vector<BufferSpec> locals;
  std::vector<Op> ops;
};

BufferSpec readBuffer(const Reader& reader);
std::vector<BufferSpec> readBuffers(const Reader& reader);
Op readOp(const Reader& reader);
ProgramRecord readProgram(const Reader& reader);
// Where they lie is checked against the buffer (checkInitialTensors).
std::vector<InitialTensor> readInitialTensors(const Reader& reader);
uint64_t readSeed(const Reader& reader);

}  // namespace revnet

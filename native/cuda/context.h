// What every op of the CUDA backend gets to enqueue its kernels.
#pragma once

#include "core/backend.h"
#include "cuda/device.h"

namespace revnet::cuda {

// The number of Context::counters.
constexpr size_t kCounters = size_t{1} << 16;

class PreparedProgram;

// Where a program's operands are, and what was made of its weights and norms for all of its ops (prepare.cuh).
struct ProgramMemory : Memory {
  const PreparedProgram& program;
};

// Bytes of an element of a hidden tensor, and of what a backward pass keeps of its gradient (dz).
constexpr size_t hiddenBytes(Precision precision) { return precision == Precision::Bfloat16 ? 2 : 4; }

struct Context {
  cudaStream_t stream;
  const ProgramMemory& memory;  // device addresses, fixed for the life of the replay
  Precision precision;          // of the convolutions' products, and of hidden tensors
  // kCounters words of device memory, zero between kernels: whoever counts with them (atomicIncrement) counts back to zero.
  // Ops of one stream run one after the other, so they share them.
  unsigned* counters;
  // Whether no kernel right before this op's first one has prepared weights: then they may be read before waitForPrevious.
  bool weightsAreReady = false;

  // Null for an absent operand.
  template <class T>
  T* at(Operand operand) const {
    return memory.at<T>(operand);
  }
};

}  // namespace revnet::cuda

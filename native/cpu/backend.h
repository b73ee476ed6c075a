// The CPU backend: float32, vectorised for the instruction set found at run time, threaded over images.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/backend.h"
#include "cpu/thread_pool.h"

namespace revnet {

// The kernels, compiled once per instruction set (isa_*.cc).
struct CpuKernels {
  const char* name;
  size_t (*workspaceBytes)(const Op& op, int threads);
  void (*run)(const Op& op, const Memory& memory, ThreadPool& pool);
};

#if defined(__aarch64__)
extern const CpuKernels kNeonKernels;
#else
extern const CpuKernels kPortableKernels;
#endif
#if defined(__x86_64__)
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;
#endif

// Those that this processor can run, best first: "avx512", "avx2", "portable"; on arm64 "neon".
std::vector<std::string> cpuInstructionSets();

}  // namespace revnet

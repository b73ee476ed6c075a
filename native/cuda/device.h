// All of CUDA that kernels use, in one place: launches, shared memory, barriers, asynchronous copies and matrix instructions.
// Kernels go through these names and no others, so that the same sources also run where there is no GPU: with REVNET_EMULATED
// the host compiler reads test/emulation instead, which defines CUDA's keywords, the runtime calls and the intrinsics below.
//
// Matrix instructions are those of the PTX manual ("Warp-level matrix instructions"): mma.m16n8k8 for tf32 and mma.m16n8k16 for
// bfloat16, both 32 bytes of A's row deep, with float32 accumulation. Their fragments, for lane = 4 * group + member:
//   a[0..3]  rows group and group + 8 (a[1], a[3]); 4-byte words member and member + 4 (a[2], a[3]) of the row's 32 bytes
//   b0, b1   column group; 4-byte words member and member + 4 of the column's 32 bytes
//   d[0..3]  rows group and group + 8 (d[2], d[3]); columns 2 * member and 2 * member + 1
// A 4-byte word holds one tf32 value or two neighbours of bfloat16, the first in the low half.
#pragma once

#if defined(REVNET_EMULATED)
#include "emulation/device.h"
#else

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace revnet::cuda {

#if defined(__CUDACC__)

// The block's shared memory, aligned to 128 bytes.
__device__ inline std::byte* sharedMemory() {
  extern __shared__ __align__(128) unsigned char revnetShared[];
  return reinterpret_cast<std::byte*>(revnetShared);
}

// Every kernel calls this before it reads or writes memory of the device. From Hopper on a kernel's blocks may start while those of
// the kernel before it end (see launch): here they wait until it has ended, and all that it and those before it wrote is there.
// Then the next one may start its blocks where there is room.
__device__ inline void waitForPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

// The same value, of which the compiler knows nothing: what is computed from it in a loop stays there. Otherwise compilers keep all
// that does not change from tile to tile in registers, which are too few for it.
__device__ inline int opaque(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// ---- Barriers and exchange ------------------------------------------------------------------------------------------------

__device__ inline void syncBlock() { __syncthreads(); }
__device__ inline void syncWarp() { __syncwarp(); }
// All 32 lanes take part.
template <class T>
__device__ T shuffleXor(T value, int lanes) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, lanes);
}

// Makes this thread's writes visible to the whole device before those that follow.
__device__ inline void fence() { __threadfence(); }
// counter = counter >= last ? 0 : counter + 1; returns what it was. A counter that starts at zero comes back to zero after
// last + 1 calls.
__device__ inline unsigned atomicIncrement(unsigned* counter, unsigned last) { return atomicInc(counter, last); }
// An integer sum, which has no order.
__device__ inline void atomicAddCount(int* counter, int count) { atomicAdd(counter, count); }
// Reads what another block wrote in this launch: past the L1 cache.
__device__ inline float loadFresh(const float* address) { return __ldcg(address); }
__device__ inline float2 loadFresh(const float2* address) { return __ldcg(address); }

// The word at index `at`, and the four from there on (16 bytes, aligned), where they are `wanted`, else zeros; the same of 2-byte
// elements. What is not wanted need not be memory. Each is one predicated instruction and no branch: behind a branch, compilers
// move a load's result to another register, and so make the next load wait for this one.
__device__ inline uint32_t loadWhere(bool wanted, const uint32_t* words, int64_t at) {
  uint32_t v;
  asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\nmov.u32 %0, 0;\n@p ld.global.u32 %0, [%1];\n}\n"
               : "=&r"(v)
               : "l"(__cvta_generic_to_global(words) + static_cast<size_t>(at) * 4), "r"(static_cast<unsigned>(wanted)));
  return v;
}
__device__ inline uint4 loadFourWhere(bool wanted, const uint32_t* words, int64_t at) {
  uint4 v;
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.u32 p, %5, 0;\n"
      "mov.u32 %0, 0;\nmov.u32 %1, 0;\nmov.u32 %2, 0;\nmov.u32 %3, 0;\n"
      "@p ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n}\n"
      : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
      : "l"(__cvta_generic_to_global(words) + static_cast<size_t>(at) * 4), "r"(static_cast<unsigned>(wanted)));
  return v;
}

__device__ inline uint32_t loadHalfWhere(bool wanted, const uint16_t* halves, int64_t at) {
  uint32_t v;
  asm volatile(
      "{\n.reg .pred p;\n.reg .b16 h;\nsetp.ne.u32 p, %2, 0;\nmov.b16 h, 0;\n@p ld.global.b16 h, [%1];\ncvt.u32.u16 %0, h;\n}\n"
      : "=r"(v)
      : "l"(__cvta_generic_to_global(halves) + static_cast<size_t>(at) * 2), "r"(static_cast<unsigned>(wanted)));
  return v;
}
// Two elements a word, 8 bytes, aligned.
__device__ inline uint2 loadFourHalvesWhere(bool wanted, const uint16_t* halves, int64_t at) {
  uint2 v;
  asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %3, 0;\nmov.u32 %0, 0;\nmov.u32 %1, 0;\n@p ld.global.v2.u32 {%0, %1}, [%2];\n}\n"
               : "=&r"(v.x), "=&r"(v.y)
               : "l"(__cvta_generic_to_global(halves) + static_cast<size_t>(at) * 2), "r"(static_cast<unsigned>(wanted)));
  return v;
}

// ---- Asynchronous copies, global to shared (sm_80; before, they are ordinary ones) -------------------------------------------

// 16 bytes; both addresses are multiples of 16. The copy is there after copyAsyncWait, for this thread; after a barrier too, for
// all.
__device__ inline void copyAsync16(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(shared))),
               "l"(global));
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}
// Closes this thread's group of copies.
__device__ inline void copyAsyncCommit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::);
#endif
}
// Waits until at most `pending` of this thread's groups are still under way.
template <int pending>
__device__ void copyAsyncWait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
#endif
}

// ---- Matrix instructions -----------------------------------------------------------------------------------------------------

// ldmatrix.x4: four 8x8 matrices of 2-byte elements, that is, of 8 rows of 16 bytes. Lane 8 i + j names row j of matrix i (16
// bytes, aligned); r[i] of lane 4 g + m is the 4-byte word m of row g of matrix i.
__device__ inline void loadMatrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}
// The same, each matrix transposed: r[i] of lane 4 g + m holds column g's 2-byte elements 2 m (low half) and 2 m + 1.
__device__ inline void loadMatricesTransposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}

// d += a b, tf32 operands, float32 sums. Needs sm_80.
__device__ inline void multiplyTf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
// d += a b, bfloat16 operands, float32 sums. Needs sm_80.
__device__ inline void multiplyBfloat16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Of a power of two.
__device__ inline int logOf(int power) { return __ffs(power) - 1; }

// ---- Conversion ----------------------------------------------------------------------------------------------------------------

// To the nearest tf32 (10 stored fraction bits, ties away from zero), as float32's bits with the rest cleared.
__device__ inline uint32_t toTf32(float value) {
  uint32_t bits = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(value));
#endif
  return bits;
}
// Two values to the nearest bfloat16 (ties to even), `low` in the low half.
__device__ inline uint32_t toBfloat16Pair(float low, float high) {
  uint32_t bits = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(bits) : "f"(high), "f"(low));
#endif
  return bits;
}
// The two halves of a word as floats' bits: bfloat16 is the upper half of a float.
__device__ inline uint32_t lowAsFloat(uint32_t pair) { return pair << 16; }
__device__ inline uint32_t highAsFloat(uint32_t pair) { return pair & 0xFFFF0000u; }
__device__ inline float asFloat(uint32_t bits) { return __uint_as_float(bits); }
__device__ inline float asFloat(int bits) { return __int_as_float(bits); }
__device__ inline int asInt(float value) { return __float_as_int(value); }
// The larger of two, +0 of two zeros; NaN where one of them is.
__device__ inline float maxNan(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float larger;
  asm("max.NaN.f32 %0, %1, %2;\n" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
#else
  return a != a || b != b ? a + b : fmaxf(a, b);
#endif
}
// To the nearest integer, ties to even; saturates, and gives 0 for NaN.
__device__ inline int roundToInt(float value) { return __float2int_rn(value); }

#endif  // __CUDACC__

}  // namespace revnet::cuda

#endif  // REVNET_EMULATED

#include "cuda/errors.h"

namespace revnet::cuda {

constexpr int kWarp = 32;

// Whether blocks of the kernel may start before the kernel before it has ended: its code has to know how to wait, which code for
// older devices does not, and captures keep such launches from CUDA 12.3 on.
template <class... Parameters>
bool mayStartEarly(void (*kernel)(Parameters...)) {
  constexpr int kFirst = 12030;
  int driver = 0;
  cudaFuncAttributes attributes{};
  check(cudaDriverGetVersion(&driver), "launch");
  check(cudaFuncGetAttributes(&attributes, kernel), "launch");
  return CUDART_VERSION >= kFirst && driver >= kFirst && attributes.ptxVersion >= 90;
}

// Enqueues a kernel. `sharedBytes` of shared memory are exactly what sharedMemory() points to. Throws on a launch that the
// device refuses; what goes wrong while the kernel runs shows at the next synchronisation.
template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, void (*kernel)(Parameters...), dim3 grid, int threads, size_t sharedBytes,
            const Arguments&... arguments) {
  // A kernel has to ask for more than this. It asks for all that the device has, whatever this launch needs: sessions on other
  // threads launch the same kernel, and none may take away what another has asked for.
  constexpr size_t kSharedByDefault = 48 << 10;
  if (sharedBytes > kSharedByDefault) {
    int device = 0, most = 0;
    check(cudaGetDevice(&device), "launch");
    check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "launch");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), "launch");
  }
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = grid;
  configuration.blockDim = dim3(static_cast<unsigned>(threads));
  configuration.dynamicSmemBytes = sharedBytes;
  configuration.stream = stream;
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  configuration.attrs = &early;
  configuration.numAttrs = mayStartEarly(kernel) ? 1 : 0;
  check(cudaLaunchKernelEx(&configuration, kernel, static_cast<Parameters>(arguments)...), "launch");
}

}  // namespace revnet::cuda

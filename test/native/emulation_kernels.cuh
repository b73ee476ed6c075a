// Small kernels that the tests of the emulation run. Some come with a planted fault, of a kind that emulation is there to find;
// `faulty` false is the same kernel without it. They are ordinary CUDA: nvcc compiles them too.
#pragma once

#include "cuda/device.h"

namespace revnet::test {
namespace {

using namespace revnet::cuda;

#if defined(__CUDACC__) || defined(REVNET_EMULATED)

template <class T>
__device__ T* sharedArray() {
  return reinterpret_cast<T*>(sharedMemory());
}

// ---- Planted faults -------------------------------------------------------------------------------------------------------

// out[block] = the sum of its threads' elements of in. Faulty: without the barrier between warps.
template <bool faulty>
__global__ void missingBarrier(const float* in, float* out) {
  float* const sums = sharedArray<float>();
  float sum = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int lanes = 1; lanes < kWarp; lanes *= 2) sum += shuffleXor(sum, lanes);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = sum;
  if (!faulty) syncBlock();
  if (threadIdx.x != 0) return;
  float total = 0;
  for (unsigned warp = 0; warp < blockDim.x / kWarp; ++warp) total += sums[warp];
  out[blockIdx.x] = total;
}

// Each block reverses its elements. Faulty: one past the end.
template <bool faulty>
__global__ void outOfBounds(const float* in, float* out) {
  float* const reversed = sharedArray<float>();
  const unsigned at = blockIdx.x * blockDim.x;
  reversed[blockDim.x - (faulty ? 0 : 1) - threadIdx.x] = in[at + threadIdx.x];
  syncBlock();
  out[at + threadIdx.x] = reversed[threadIdx.x];
}

// out[block] = the sum of its elements of in, which has `count`. Faulty: what is past the end of `in` is not set to zero.
template <bool faulty>
__global__ void uninitialisedRead(const float* in, float* out, unsigned count) {
  float* const tile = sharedArray<float>();
  const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at < count)
    tile[threadIdx.x] = in[at];
  else if (!faulty)
    tile[threadIdx.x] = 0;
  syncBlock();
  if (threadIdx.x != 0) return;
  float sum = 0;
  for (unsigned i = 0; i < blockDim.x; ++i) sum += tile[i];
  out[blockIdx.x] = sum;
}

// Each block adds up `rounds` slices of `in`, of four floats a thread, copying one ahead of the other into two buffers. Faulty: it
// waits for all copies but one, where it should wait for all: the slice that it adds may not have arrived.
template <bool faulty>
__global__ void missingWait(const float* in, float* out, int rounds) {
  float4* const buffers = sharedArray<float4>();
  const unsigned slice = gridDim.x * blockDim.x, own = blockIdx.x * blockDim.x + threadIdx.x;
  const auto fetch = [&](int round) {
    copyAsync16(buffers + static_cast<unsigned>(round % 2) * blockDim.x + threadIdx.x,
                in + (static_cast<unsigned>(round) * slice + own) * 4);
    copyAsyncCommit();
  };
  float4 sum = make_float4(0, 0, 0, 0);
  fetch(0);
  for (int round = 0; round < rounds; ++round) {
    copyAsyncWait<faulty ? 1 : 0>();
    syncBlock();
    if (round + 1 < rounds) fetch(round + 1);
    // A neighbour's: the barrier is needed too.
    const float4 v = buffers[static_cast<unsigned>(round % 2) * blockDim.x + (threadIdx.x ^ 1u)];
    sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
  }
  reinterpret_cast<float4*>(out)[own] = sum;
}

// out[i] = in[n - 1 - i] + 1, where the launch before has written in. Faulty: without waiting for it.
template <bool faulty>
__global__ void missingDependentWait(const float* in, float* out) {
  if (!faulty) waitForPrevious();
  const unsigned count = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = in[count - 1 - i] + 1;
}

// The same, through an asynchronous copy that begins before the wait.
template <bool faulty>
__global__ void earlyCopy(const float* in, float* out) {
  auto* const fours = reinterpret_cast<float4*>(sharedMemory());
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (!faulty) waitForPrevious();
  copyAsync16(fours + threadIdx.x, in + 4 * i);
  copyAsyncCommit();
  if (faulty) waitForPrevious();
  copyAsyncWait<0>();
  const float4 v = fours[threadIdx.x];
  *reinterpret_cast<float4*>(out + 4 * i) = make_float4(v.x + 1, v.y + 1, v.z + 1, v.w + 1);
}

// ---- What must be refused -------------------------------------------------------------------------------------------------

// A barrier that half of the threads do not reach, since they wait for the other half of their warps.
__global__ void divergentBarriers() {
  if (threadIdx.x % 2 == 0)
    syncBlock();
  else
    syncWarp();
}

// Two barriers where there should be one.
__global__ void splitBarrier() {
  if (threadIdx.x < blockDim.x / 2)
    syncBlock();
  else
    syncBlock();
}

// A collective that the first lane leaves out.
__global__ void partialWarp(float* out) {
  float value = 1;
  if (threadIdx.x > 0) value = shuffleXor(value, 1);
  out[threadIdx.x] = value;
}

// One whose lanes come from two places of the source.
__global__ void splitWarp(float* out) {
  float value = 1;
  if (threadIdx.x % 2 == 0)
    value = shuffleXor(value, 1);
  else
    value = shuffleXor(value, 1);
  out[threadIdx.x] = value;
}

__global__ void misalignedCopy(const float* in) {
  copyAsync16(sharedMemory(), in + 1);
  copyAsyncCommit();
  copyAsyncWait<0>();
}

// Copies from past the end of `in`, [count].
__global__ void copyOutside(const float* in, int count) {
  copyAsync16(sharedMemory(), in + count);
  copyAsyncCommit();
  copyAsyncWait<0>();
}

__global__ void matricesOutside() {
  uint32_t r[4];
  loadMatrices(r, sharedMemory() + 16 * threadIdx.x);
}

// ---- Blocks, counters, collectives ----------------------------------------------------------------------------------------

// order[turn]: which block took that turn. counter: zero before and after.
__global__ void takeTurns(unsigned* counter, int* order, int* total) {
  order[atomicIncrement(counter, gridDim.x - 1)] = static_cast<int>(blockIdx.x);
  atomicAddCount(total, static_cast<int>(blockIdx.x));
}

// out[thread] = the value of the lane `lanes` away, by xor.
__global__ void exchange(const double* in, double* out, int lanes) { out[threadIdx.x] = shuffleXor(in[threadIdx.x], lanes); }

__global__ void addOne(float* values) { values[blockIdx.x * blockDim.x + threadIdx.x] += 1; }

// ---- Matrix instructions --------------------------------------------------------------------------------------------------

// Fragments as the tables of the PTX manual give them ("Matrix Fragments for mma.m16n8k8" and "... mma.m16n8k16"), element by
// element. d [16][8] += a [16][8] b [8][8].
__global__ void multiplyByTableTf32(const float* a, const float* b, float* d) {
  const int lane = static_cast<int>(threadIdx.x), groupId = lane >> 2, threadInGroup = lane % 4;
  uint32_t fragmentA[4], fragmentB[2];
  float fragmentD[4];
  for (int i = 0; i < 4; ++i) {
    const int row = i == 0 || i == 2 ? groupId : groupId + 8, column = i < 2 ? threadInGroup : threadInGroup + 4;
    fragmentA[i] = toTf32(a[row * 8 + column]);
  }
  for (int i = 0; i < 2; ++i) fragmentB[i] = toTf32(b[(i == 0 ? threadInGroup : threadInGroup + 4) * 8 + groupId]);
  const auto element = [&](int i) { return (i < 2 ? groupId : groupId + 8) * 8 + threadInGroup * 2 + (i & 1); };
  for (int i = 0; i < 4; ++i) fragmentD[i] = d[element(i)];
  multiplyTf32(fragmentD, fragmentA, fragmentB[0], fragmentB[1]);
  for (int i = 0; i < 4; ++i) d[element(i)] = fragmentD[i];
}

// d [16][8] += a [16][16] b [16][8].
__global__ void multiplyByTableBfloat16(const float* a, const float* b, float* d) {
  const int lane = static_cast<int>(threadIdx.x), groupId = lane >> 2, threadInGroup = lane % 4;
  uint32_t fragmentA[4], fragmentB[2];
  float fragmentD[4];
  const auto elementA = [&](int i) {
    const int row = i < 2 || (i >= 4 && i < 6) ? groupId : groupId + 8;
    const int column = threadInGroup * 2 + (i & 1) + (i < 4 ? 0 : 8);
    return a[row * 16 + column];
  };
  const auto elementB = [&](int i) { return b[(threadInGroup * 2 + (i & 1) + (i < 2 ? 0 : 8)) * 8 + groupId]; };
  for (int i = 0; i < 4; ++i) fragmentA[i] = toBfloat16Pair(elementA(2 * i), elementA(2 * i + 1));
  for (int i = 0; i < 2; ++i) fragmentB[i] = toBfloat16Pair(elementB(2 * i), elementB(2 * i + 1));
  const auto element = [&](int i) { return (i < 2 ? groupId : groupId + 8) * 8 + threadInGroup * 2 + (i & 1); };
  for (int i = 0; i < 4; ++i) fragmentD[i] = d[element(i)];
  multiplyBfloat16(fragmentD, fragmentA, fragmentB[0], fragmentB[1]);
  for (int i = 0; i < 4; ++i) d[element(i)] = fragmentD[i];
}

// out[lane][4]: what ldmatrix gives each lane of four matrices [4][8][8] of 16-bit elements.
template <bool transposed>
__global__ void loadByTable(const uint16_t* matrices, uint32_t* out) {
  uint16_t* const shared = sharedArray<uint16_t>();
  for (unsigned i = threadIdx.x; i < 4 * 64; i += kWarp) shared[i] = matrices[i];
  syncWarp();
  uint32_t r[4];
  if (transposed)
    loadMatricesTransposed(r, shared + threadIdx.x * 8);
  else
    loadMatrices(r, shared + threadIdx.x * 8);
  for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + static_cast<unsigned>(i)] = r[i];
}

// Of in[thread] and in[thread + 1].
__global__ void roundByThread(const float* in, uint32_t* tf32, uint32_t* bfloat16, int* whole) {
  tf32[threadIdx.x] = toTf32(in[threadIdx.x]);
  bfloat16[threadIdx.x] = toBfloat16Pair(in[threadIdx.x], in[threadIdx.x + 1]);
  whole[threadIdx.x] = roundToInt(in[threadIdx.x]);
}

#endif

}  // namespace
}  // namespace revnet::test

// Four neighbouring numbers of a tensor at a time: in one access where they are there and aligned (`whole`), else one by one.
#pragma once

#include <type_traits>

#include "cuda/device.h"

#if defined(__CUDACC__) || defined(REVNET_EMULATED)

namespace revnet::cuda {

// Four numbers as they lie in memory, of 4 bytes each or of 2.
template <bool kNarrow>
using RawFour = std::conditional_t<kNarrow, uint2, uint4>;

// Words [at, at + 4), those from `count` on as zeros; all zeros, and nothing read, unless `wanted`. See loadWhere.
__device__ inline uint4 loadUpToFour(bool wanted, const uint32_t* words, int64_t at, int count) {
  return {loadWhere(wanted && count > 0, words, at), loadWhere(wanted && count > 1, words, at + 1),
          loadWhere(wanted && count > 2, words, at + 2), loadWhere(wanted && count > 3, words, at + 3)};
}

// The same of bfloat16, as the bits of floats.
__device__ inline uint4 loadUpToFour(bool wanted, const uint16_t* halves, int64_t at, int count) {
  return {lowAsFloat(loadHalfWhere(wanted && count > 0, halves, at)),
          lowAsFloat(loadHalfWhere(wanted && count > 1, halves, at + 1)),
          lowAsFloat(loadHalfWhere(wanted && count > 2, halves, at + 2)),
          lowAsFloat(loadHalfWhere(wanted && count > 3, halves, at + 3))};
}

// One of four numbers, of 4 bytes or of bfloat16: its bits, those of a float in either case unless it is fixed point.
__device__ inline uint32_t wordOf(const uint4& four, int i) { return i == 0 ? four.x : i == 1 ? four.y : i == 2 ? four.z : four.w; }
__device__ inline uint32_t wordOf(const uint2& four, int i) {
  const uint32_t pair = i < 2 ? four.x : four.y;
  return i % 2 == 0 ? lowAsFloat(pair) : highAsFloat(pair);
}

// To bfloat16; `v` becomes what is stored.
__device__ inline uint2 roundFour(float (&v)[4]) {
  const uint2 rounded = make_uint2(toBfloat16Pair(v[0], v[1]), toBfloat16Pair(v[2], v[3]));
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = asFloat(wordOf(rounded, i));
  return rounded;
}

// Those from `count` on are zero.
__device__ inline void loadFour(float (&v)[4], const float* from, int count, bool whole) {
  if (whole) {
    const float4 all = *reinterpret_cast<const float4*>(from);
    v[0] = all.x, v[1] = all.y, v[2] = all.z, v[3] = all.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = i < count ? from[i] : 0.0f;
}
__device__ inline void loadFour(int (&v)[4], const int* from, int count, bool whole) {
  if (whole) {
    const int4 all = *reinterpret_cast<const int4*>(from);
    v[0] = all.x, v[1] = all.y, v[2] = all.z, v[3] = all.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = i < count ? from[i] : 0;
}

// Those from `count` on are left alone.
__device__ inline void storeFour(float* to, const float (&v)[4], int count, bool whole) {
  if (whole) {
    *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) to[i] = v[i];
}
__device__ inline void storeFour(int* to, const int (&v)[4], int count, bool whole) {
  if (whole) {
    *reinterpret_cast<int4*>(to) = make_int4(v[0], v[1], v[2], v[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) to[i] = v[i];
}

__device__ inline void storeFour(uint16_t* to, const uint2& four, int count, bool whole) {
  if (whole) {
    *reinterpret_cast<uint2*>(to) = four;
    return;
  }
  const uint32_t halves[4] = {four.x, four.x >> 16, four.y, four.y >> 16};
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) to[i] = static_cast<uint16_t>(halves[i]);
}

}  // namespace revnet::cuda

#endif

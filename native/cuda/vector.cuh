// Four neighbouring numbers of a tensor at a time: in one access where they are there and aligned (`whole`), else one by one.
#pragma once

#include "cuda/device.h"

#if defined(__CUDACC__) || defined(REVNET_EMULATED)

namespace revnet::cuda {

// Words [at, at + 4), those from `count` on as zeros; all zeros, and nothing read, unless `wanted`. See loadWhere.
__device__ inline uint4 loadUpToFour(bool wanted, const uint32_t* words, int64_t at, int count) {
  return {loadWhere(wanted && count > 0, words, at), loadWhere(wanted && count > 1, words, at + 1),
          loadWhere(wanted && count > 2, words, at + 2), loadWhere(wanted && count > 3, words, at + 3)};
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

}  // namespace revnet::cuda

#endif

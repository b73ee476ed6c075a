// Batch norm by channel, as kernels apply it: to what they read (forward), and to gradients that they read (backward).
#pragma once

#include "core/carver.h"
#include "core/ops.h"
#include "cuda/context.h"
#include "cuda/device.h"

namespace revnet::cuda {

// The step of a fixed-point stream, 2^-22, and its inverse.
constexpr float kFixedStep = 0x1p-22f;
constexpr float kFixedScale = 0x1p22f;

// A tensor of floats, of bfloat16 (`narrow`), or a fixed-point stream (`fixed`).
struct StreamPointer {
  void* data = nullptr;
  bool fixed = false;
  bool aligned = false;  // to four elements, which can then be read at once
  bool narrow = false;
  constexpr explicit operator bool() const { return data != nullptr; }

#if defined(__CUDACC__) || defined(REVNET_EMULATED)
  // Its element `index` of type T, which has to be the element's; null where there is no tensor.
  template <class T>
  __device__ T* at(int64_t index) const {
    return data != nullptr ? static_cast<T*>(data) + index : nullptr;
  }
  // What a stored number has to be multiplied with.
  __host__ __device__ float step() const { return fixed ? kFixedStep : 1.0f; }
  // The stored number at `index`, without its step.
  __device__ float stored(int64_t index) const {
    if (narrow) return asFloat(lowAsFloat(static_cast<const uint16_t*>(data)[index]));
    return fixed ? static_cast<float>(static_cast<const int*>(data)[index]) : static_cast<const float*>(data)[index];
  }
  // Four stored numbers from `index` on, a multiple of 4; only where `aligned`.
  __device__ float4 stored4(int64_t index) const {
    if (narrow) {
      const uint2 v = *reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(data) + index);
      return make_float4(asFloat(lowAsFloat(v.x)), asFloat(highAsFloat(v.x)), asFloat(lowAsFloat(v.y)), asFloat(highAsFloat(v.y)));
    }
    if (!fixed) return *reinterpret_cast<const float4*>(static_cast<const float*>(data) + index);
    const int4 v = *reinterpret_cast<const int4*>(static_cast<const int*>(data) + index);
    return make_float4(static_cast<float>(v.x), static_cast<float>(v.y), static_cast<float>(v.z), static_cast<float>(v.w));
  }
#endif
};

inline StreamPointer streamAt(const Memory& memory, Operand operand) {
  if (!operand) return {nullptr, false, true, false};
  auto* const data = memory.at<void>(operand);
  const size_t bytes = memory.bytesOf(operand);
  return {data, memory.isFixed(operand), reinterpret_cast<uintptr_t>(data) % (4 * bytes) == 0, bytes == 2};
}

// A Norm's operands. `statistics` null: there is none.
struct NormArguments {
  const float *statistics = nullptr, *gamma = nullptr, *beta = nullptr;  // [2][c], [c], [c]
  float epsilon = 0;
  int c = 0;
};

inline NormArguments normArguments(const Norm& norm, const Memory& memory, int c) {
  return {memory.at<const float>(norm.statistics), memory.at<const float>(norm.gamma), memory.at<const float>(norm.beta),
          static_cast<float>(norm.epsilon), c};
}

#if defined(__CUDACC__) || defined(REVNET_EMULATED)

// v * scale + shift
struct Affine {
  float scale, shift;
  __device__ float operator()(float v) const { return fmaf(v, scale, shift); }
};

__device__ inline float inverseDeviation(const NormArguments& norm, int channel) {
  return 1.0f / sqrtf(norm.statistics[norm.c + channel] + norm.epsilon);
}
// Of a number as stored (`step`: what it has to be multiplied with), to the norm's output before its ReLU.
__device__ inline Affine normAffine(const NormArguments& norm, int channel, float step) {
  const float scale = norm.gamma[channel] * inverseDeviation(norm, channel);
  return {scale * step, fmaf(-norm.statistics[channel], scale, norm.beta[channel])};
}
// Of a number as stored, to x^: mean 0, variance 1.
__device__ inline Affine standardizer(const NormArguments& norm, int channel, float step) {
  const float inverse = inverseDeviation(norm, channel);
  return {inverse * step, -norm.statistics[channel] * inverse};
}

// Keeps NaN: a network that diverged must not look alive.
__device__ inline float relu(float v) { return maxNan(v, 0.0f); }

// base + sign * q; it wraps around, so that subtracting the same q undoes it.
__device__ inline int wrappingSum(int base, int sign, int q) {
  return static_cast<int>(static_cast<unsigned>(base) + static_cast<unsigned>(sign) * static_cast<unsigned>(q));
}

// base + sign * q(value) in steps, q: round to nearest even, saturating. `left` grows by one where the sum or q(value) is outside
// what int32 holds.
__device__ inline int addFixed(int base, float value, int sign, int& left) {
  const float scaled = value * kFixedScale;
  const int q = roundToInt(scaled), after = wrappingSum(base, sign, q);
  // 2^31 is the first float above int32; a NaN fails both comparisons.
  const bool fits = scaled >= -0x1p31f && scaled < 0x1p31f;
  if (!fits || ((base ^ after) & (q ^ after)) < 0) ++left;
  return after;
}

#endif

// The gradient through batch norm, from dz, the gradient of its output (already masked by the ReLU):
//   dx = gamma / std * (dz - mean(dz) - x^ * mean(dz * x^))  =  slope * dz + tilt * x + offset,  x as stored
struct NormGradientVectors {
  float *slope = nullptr, *tilt = nullptr, *offset = nullptr;  // [c] each

  NormGradientVectors() = default;
  NormGradientVectors(int c, Carver& carver)
      : slope(carver.take<float>(static_cast<size_t>(c))),
        tilt(carver.take<float>(static_cast<size_t>(c))),
        offset(carver.take<float>(static_cast<size_t>(c))) {}
};

}  // namespace revnet::cuda

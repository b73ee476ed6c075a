// One register of arm64's NEON: 4 lanes, 32 registers.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace revnet::REVNET_ISA {

constexpr int kRegisterLanes = 4;
typedef float FloatRegister __attribute__((vector_size(16)));
typedef int32_t IntRegister __attribute__((vector_size(16)));

// The register tile (tile.h): 16 accumulators, what four pipes of four cycles need, beside four registers of weights and four of
// inputs.
constexpr int kTileVectors = 1, kTileAccumulators = 16;

// a * b + c, rounded once.
inline FloatRegister fmaRegister(FloatRegister a, FloatRegister b, FloatRegister c) {
  return (FloatRegister)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
// a[lane] * b + c: an instruction that needs no broadcast. (tile.h)
#define REVNET_FMA_BY_LANE
template <int lane>
inline FloatRegister fmaRegisterByLane(FloatRegister a, FloatRegister b, FloatRegister c) {
  return (FloatRegister)vfmaq_laneq_f32((float32x4_t)c, (float32x4_t)b, (float32x4_t)a, lane);
}
// To the nearest integer, ties to even; INT32_MIN where int32 cannot hold it, and for NaN. (The instruction saturates, and
// turns NaN into 0; x86 does not.)
inline IntRegister roundRegister(FloatRegister v) {
  const IntRegister fits = (v >= -2147483648.0f) & (v < 2147483648.0f), least = INT32_MIN - IntRegister{};
  return fits ? (IntRegister)vcvtnq_s32_f32((float32x4_t)v) : least;
}

// The first `count` lanes, 0 to 4; the others are 0 and their memory is not touched.
template <class Register>
inline Register loadFirst(const void* p, int count) {
  Register v{};
  std::memcpy(&v, p, 4 * static_cast<size_t>(count));
  return v;
}
template <class Register>
inline void storeFirst(void* p, Register v, int count) {
  std::memcpy(p, &v, 4 * static_cast<size_t>(count));
}

}  // namespace revnet::REVNET_ISA

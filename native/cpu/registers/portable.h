// Four lanes in plain C++, which the compiler maps to what the processor has. Where that cannot fuse a multiply-add, std::fma is a
// function of the C library: the same bits, about a hundred times slower.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace revnet::REVNET_ISA {

constexpr int kRegisterLanes = 4;
typedef float FloatRegister __attribute__((vector_size(16)));
typedef int32_t IntRegister __attribute__((vector_size(16)));

// The register tile (tile.h).
constexpr int kTileVectors = 1, kTileAccumulators = 8;

// a * b + c, rounded once.
inline FloatRegister fmaRegister(FloatRegister a, FloatRegister b, FloatRegister c) {
  FloatRegister result;
  for (int i = 0; i < kRegisterLanes; ++i) result[i] = std::fma(a[i], b[i], c[i]);
  return result;
}
// To the nearest integer, ties to even; INT32_MIN where int32 cannot hold it, and for NaN.
inline IntRegister roundRegister(FloatRegister v) {
  IntRegister result;
  for (int i = 0; i < kRegisterLanes; ++i)
    result[i] = v[i] >= -2147483648.0f && v[i] < 2147483648.0f ? static_cast<int32_t>(std::nearbyint(v[i])) : INT32_MIN;
  return result;
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

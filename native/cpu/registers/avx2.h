// One register of AVX2 with FMA: 8 lanes, 16 registers, vectors as masks for partial loads and stores.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace revnet::REVNET_ISA {

constexpr int kRegisterLanes = 8;
typedef float FloatRegister __attribute__((vector_size(32)));
typedef int32_t IntRegister __attribute__((vector_size(32)));

// The register tile (tile.h): 6 rows of 2 registers. With 8 accumulators, as many as two pipes of four cycles need, every load that
// is late stops them; the other 4 registers hold the weights and an input.
constexpr int kTileVectors = 1, kTileAccumulators = 12;

// a * b + c, rounded once.
inline FloatRegister fmaRegister(FloatRegister a, FloatRegister b, FloatRegister c) {
  return (FloatRegister)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
// To the nearest integer, ties to even; INT32_MIN where int32 cannot hold it, and for NaN.
inline IntRegister roundRegister(FloatRegister v) { return (IntRegister)_mm256_cvtps_epi32((__m256)v); }

// All bits of the first `count` lanes.
inline __m256i firstLanes(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
// The first `count` lanes, 0 to 8; the others are 0 and their memory is not touched.
template <class Register>
inline Register loadFirst(const void* p, int count) {
  return (Register)_mm256_maskload_epi32(static_cast<const int*>(p), firstLanes(count));
}
template <class Register>
inline void storeFirst(void* p, Register v, int count) {
  _mm256_maskstore_epi32(static_cast<int*>(p), firstLanes(count), (__m256i)v);
}

}  // namespace revnet::REVNET_ISA

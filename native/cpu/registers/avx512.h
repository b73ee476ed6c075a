// One register of AVX-512: 16 lanes, 32 registers, masks for partial loads and stores.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace revnet::REVNET_ISA {

constexpr int kRegisterLanes = 16;
typedef float FloatRegister __attribute__((vector_size(64)));
typedef int32_t IntRegister __attribute__((vector_size(64)));

// The register tile (tile.h): 16 accumulators, twice what two pipes of four cycles need, so that weights are loaded less often.
constexpr int kTileVectors = 2, kTileAccumulators = 16;

// a * b + c, rounded once.
inline FloatRegister fmaRegister(FloatRegister a, FloatRegister b, FloatRegister c) {
  return (FloatRegister)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
// To the nearest integer, ties to even; INT32_MIN where int32 cannot hold it, and for NaN. (The masked form: GCC 12 warns of the
// other.)
inline IntRegister roundRegister(FloatRegister v) { return (IntRegister)_mm512_maskz_cvtps_epi32(0xFFFF, (__m512)v); }

// The first `count` lanes, 0 to 16; the others are 0 and their memory is not touched.
template <class Register>
inline Register loadFirst(const void* p, int count) {
  return (Register)_mm512_maskz_loadu_epi32(static_cast<__mmask16>((1u << count) - 1), p);
}
template <class Register>
inline void storeFirst(void* p, Register v, int count) {
  _mm512_mask_storeu_epi32(p, static_cast<__mmask16>((1u << count) - 1), (__m512i)v);
}

}  // namespace revnet::REVNET_ISA

// A vector of REVNET_LANES floats, written with the compiler's vector extensions: arithmetic, comparisons and scalar
// broadcasts are plain C++ operators. Only rounding and partial loads need intrinsics.
//
// All kernel headers live in a namespace per instruction set, since they are compiled once for each.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace revnet::REVNET_ISA {

constexpr int kLanes = REVNET_LANES;
typedef float Vec __attribute__((vector_size(4 * REVNET_LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * REVNET_LANES)));
typedef uint32_t UintVec __attribute__((vector_size(4 * REVNET_LANES)));

// Fixed-point streams: int32 with 22 fraction bits.
constexpr float kFixedScale = 4194304.0f;
constexpr float kFixedStep = 1.0f / kFixedScale;

constexpr int ceilDiv(int a, int b) { return (a + b - 1) / b; }
constexpr int roundUp(int a, int b) { return ceilDiv(a, b) * b; }
constexpr int minOf(int a, int b) { return a < b ? a : b; }
constexpr int maxOf(int a, int b) { return a > b ? a : b; }

inline Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline IntVec load(const int32_t* p) {
  IntVec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class T>
inline void store(T* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// The first `count` < kLanes elements; the others are 0 and their memory is not touched.
template <class V, class T>
inline V loadPartialAs(const T* p, int count) {
#if REVNET_LANES == 16
  const auto mask = static_cast<__mmask16>((1u << count) - 1);
  return (V)_mm512_maskz_loadu_epi32(mask, p);
#else
  V v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
#endif
}
inline Vec loadPartial(const float* p, int count) { return loadPartialAs<Vec>(p, count); }
inline IntVec loadPartial(const int32_t* p, int count) { return loadPartialAs<IntVec>(p, count); }
template <class V, class T>
inline void storePartial(T* p, V v, int count) {
#if REVNET_LANES == 16
  _mm512_mask_storeu_epi32(p, static_cast<__mmask16>((1u << count) - 1), (__m512i)v);
#else
  for (int i = 0; i < count; ++i) p[i] = v[i];
#endif
}

inline Vec toFloat(Vec v) { return v; }
inline Vec toFloat(IntVec v) { return __builtin_convertvector(v, Vec); }

// ReLU. NaN stays NaN: a network that diverged must not look alive.
inline Vec maxZero(Vec v) { return v < 0.0f ? Vec{} : v; }

// Round to nearest even. Out of range and NaN give INT32_MIN on x86, and are counted as out of range either way.
inline IntVec roundToInt(Vec v) {
#if REVNET_LANES == 16
  return (IntVec)_mm512_maskz_cvtps_epi32(0xFFFF, (__m512)v);
#elif REVNET_LANES == 8
  return (IntVec)_mm256_cvtps_epi32((__m256)v);
#elif defined(__x86_64__)
  return (IntVec)_mm_cvtps_epi32((__m128)v);
#else
  IntVec result;
  for (int i = 0; i < kLanes; ++i) {
    const float limited = v[i] >= -2147483648.0f && v[i] < 2147483648.0f ? v[i] : -2147483648.0f;
    result[i] = static_cast<int32_t>(__builtin_rintf(limited));
  }
  return result;
#endif
}

template <class V>
inline auto sumLanes(V v, int count = kLanes) {
  auto sum = v[0];
  for (int i = 1; i < count; ++i) sum += v[i];
  return sum;
}

// Elements of a stream, real or fixed, as `T` stores them.
inline float streamScale(const float*) { return 1.0f; }
inline float streamScale(const int32_t*) { return kFixedStep; }

// Calls body(block, count, full) for each block of kLanes channels; `full` is a compile-time constant where count == kLanes,
// so that the common case has no masks.
struct Full {
  template <class T>
  static auto load(const T* p, int) {
    return REVNET_ISA::load(p);
  }
  template <class T, class V>
  static void store(T* p, V v, int) {
    REVNET_ISA::store(p, v);
  }
};
struct Partial {
  template <class T>
  static auto load(const T* p, int count) {
    return loadPartial(p, count);
  }
  template <class T, class V>
  static void store(T* p, V v, int count) {
    storePartial(p, v, count);
  }
};
template <class Body>
inline void forEachBlock(int channels, const Body& body) {
  const int full = channels / kLanes;
  for (int block = 0; block < full; ++block) body(block, kLanes, Full{});
  if (channels % kLanes != 0) body(full, channels % kLanes, Partial{});
}

}  // namespace revnet::REVNET_ISA

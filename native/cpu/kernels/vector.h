// Sixteen floats or integers ("lanes"), in as many registers as the instruction set needs for them: one of AVX-512, two of AVX2,
// four of NEON. Every instruction set computes lane by lane in the same order and fuses the same multiply-adds, so all give the
// same bits: the compiler's own contraction is off (CMakeLists.txt), and what is fused says fma().
//
// Arithmetic is the compiler's vector extensions, one register at a time; what those have no notation for, and the sizes that
// depend on the register file, is in cpu/registers/, one header for each instruction set. All kernel headers live in a namespace
// per instruction set, since they are compiled once for each: isa_*.cc define REVNET_ISA and REVNET_REGISTERS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include REVNET_REGISTERS

namespace revnet::REVNET_ISA {

constexpr int kLanes = 16;
constexpr int kRegisters = kLanes / kRegisterLanes;

// Fixed-point streams: int32 with 22 fraction bits.
constexpr float kFixedScale = 4194304.0f;
constexpr float kFixedStep = 1.0f / kFixedScale;

constexpr int ceilDiv(int a, int b) { return (a + b - 1) / b; }
constexpr int roundUp(int a, int b) { return ceilDiv(a, b) * b; }
constexpr int minOf(int a, int b) { return a < b ? a : b; }
constexpr int maxOf(int a, int b) { return a > b ? a : b; }

template <class T>
struct Lanes {
  typedef std::conditional_t<std::is_same_v<T, float>, FloatRegister, IntRegister> Register;
  Register r[kRegisters];

  T operator[](int lane) const { return r[lane / kRegisterLanes][lane % kRegisterLanes]; }
  void set(int lane, T value) { r[lane / kRegisterLanes][lane % kRegisterLanes] = value; }
};
typedef Lanes<float> Vec;
typedef Lanes<int32_t> IntVec;  // also what comparisons give: -1 where true, 0 where false

// body(0), ..., body(N - 1) with compile-time constants, and no loop: an array of vectors lies in registers only where the compiler
// sees all of its indices before it unrolls anything.
#define REVNET_INLINE __attribute__((always_inline))
template <int N, class Body>
REVNET_INLINE inline void unrolled(const Body& body) {
  [&]<int... i>(std::integer_sequence<int, i...>) REVNET_INLINE { (body(std::integral_constant<int, i>{}), ...); }
  (std::make_integer_sequence<int, N>{});
}

// f(register of each argument), register by register.
template <class T, class F, class... U>
REVNET_INLINE inline Lanes<T> eachRegister(const F& f, const Lanes<U>&... v) {
  Lanes<T> result;
  unrolled<kRegisters>([&](auto i) REVNET_INLINE { result.r[i] = f(v.r[i]...); });
  return result;
}

template <class T>
inline Lanes<T> broadcast(T value) {
  Lanes<T> result;
  unrolled<kRegisters>([&](auto i) REVNET_INLINE { result.r[i] = value - typename Lanes<T>::Register{}; });
  return result;
}

#define REVNET_OPERATOR(T, Result, op)                                                      \
  inline Lanes<Result> operator op(const Lanes<T>& a, const Lanes<T>& b) {                  \
    return eachRegister<Result>([](const auto& x, const auto& y) { return x op y; }, a, b); \
  }
REVNET_OPERATOR(float, float, +)
REVNET_OPERATOR(float, float, -)
REVNET_OPERATOR(float, float, *)
REVNET_OPERATOR(float, int32_t, <)
REVNET_OPERATOR(float, int32_t, >)
REVNET_OPERATOR(float, int32_t, >=)
REVNET_OPERATOR(float, int32_t, !=)
REVNET_OPERATOR(int32_t, int32_t, <)
REVNET_OPERATOR(int32_t, int32_t, ==)
REVNET_OPERATOR(int32_t, int32_t, &)
REVNET_OPERATOR(int32_t, int32_t, |)
REVNET_OPERATOR(int32_t, int32_t, ^)
#undef REVNET_OPERATOR

inline Vec operator*(const Vec& a, float b) { return a * broadcast(b); }
inline Vec operator*(float a, const Vec& b) { return broadcast(a) * b; }
inline Vec operator-(const Vec& a) {
  return eachRegister<float>([](const auto& x) { return -x; }, a);
}
inline Vec& operator+=(Vec& a, const Vec& b) { return a = a + b; }

// Modulo 2^32.
typedef uint32_t UintRegister __attribute__((vector_size(4 * kRegisterLanes)));
inline IntVec addWrapping(const IntVec& a, const IntVec& b) {
  return eachRegister<int32_t>([](IntRegister x, IntRegister y) { return (IntRegister)((UintRegister)x + (UintRegister)y); }, a, b);
}
inline IntVec subtractWrapping(const IntVec& a, const IntVec& b) {
  return eachRegister<int32_t>([](IntRegister x, IntRegister y) { return (IntRegister)((UintRegister)x - (UintRegister)y); }, a, b);
}

// yes where condition is true (a comparison's -1), no where it is 0.
template <class T>
inline Lanes<T> select(const IntVec& condition, const Lanes<T>& yes, const Lanes<T>& no) {
  return eachRegister<T>([](const auto& c, const auto& x, const auto& y) { return c ? x : y; }, condition, yes, no);
}

// a * b + c, rounded once.
inline Vec fma(const Vec& a, const Vec& b, const Vec& c) { return eachRegister<float>(fmaRegister, a, b, c); }
inline Vec fma(float a, const Vec& b, const Vec& c) { return fma(broadcast(a), b, c); }
#if defined(REVNET_FMA_BY_LANE)
// The same with one lane of a, which takes no broadcast.
template <int lane>
inline Vec fmaByLane(FloatRegister a, const Vec& b, const Vec& c) {
  return eachRegister<float>([&](FloatRegister x, FloatRegister y) { return fmaRegisterByLane<lane>(a, x, y); }, b, c);
}
#endif

inline Vec toFloat(const Vec& v) { return v; }
inline Vec toFloat(const IntVec& v) {
  return eachRegister<float>([](IntRegister x) { return __builtin_convertvector(x, FloatRegister); }, v);
}

// ReLU. NaN stays NaN: a network that diverged must not look alive.
inline Vec maxZero(const Vec& v) { return select(v < Vec{}, Vec{}, v); }

// To the nearest integer, ties to even; INT32_MIN where int32 cannot hold it, and for NaN.
inline IntVec roundToInt(const Vec& v) { return eachRegister<int32_t>(roundRegister, v); }

// ---- Memory ----------------------------------------------------------------------------------------------------------------

template <class T>
inline Lanes<T> load(const T* p) {
  Lanes<T> v;
  unrolled<kRegisters>([&](auto i) REVNET_INLINE { __builtin_memcpy(&v.r[i], p + i * kRegisterLanes, sizeof v.r[i]); });
  return v;
}
template <class T>
inline void store(T* p, const Lanes<T>& v) {
  unrolled<kRegisters>([&](auto i) REVNET_INLINE { __builtin_memcpy(p + i * kRegisterLanes, &v.r[i], sizeof v.r[i]); });
}

// Lanes of register i among the first `count`.
constexpr int lanesOfRegister(int i, int count) {
  const int left = count - i * kRegisterLanes;
  return left < 0 ? 0 : minOf(left, kRegisterLanes);
}

// The first `count` < kLanes elements; the others are 0 and their memory is not touched.
template <class T>
inline Lanes<T> loadPartial(const T* p, int count) {
  Lanes<T> v;
  unrolled<kRegisters>([&](auto i) REVNET_INLINE {
    v.r[i] = loadFirst<typename Lanes<T>::Register>(p + i * kRegisterLanes, lanesOfRegister(i, count));
  });
  return v;
}
template <class T>
inline void storePartial(T* p, const Lanes<T>& v, int count) {
  unrolled<kRegisters>([&](auto i) REVNET_INLINE { storeFirst(p + i * kRegisterLanes, v.r[i], lanesOfRegister(i, count)); });
}

// In the order of lanes.
template <class T>
inline T sumLanes(const Lanes<T>& v, int count = kLanes) {
  T sum = v[0];
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
  static Lanes<T> load(const T* p, int) {
    return REVNET_ISA::load(p);
  }
  template <class T>
  static void store(T* p, const Lanes<T>& v, int) {
    REVNET_ISA::store(p, v);
  }
};
struct Partial {
  template <class T>
  static Lanes<T> load(const T* p, int count) {
    return loadPartial(p, count);
  }
  template <class T>
  static void store(T* p, const Lanes<T>& v, int count) {
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

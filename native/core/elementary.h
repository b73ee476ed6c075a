// Elementary functions whose bits must not depend on the C library.
#pragma once

#include <bit>
#include <cstdint>

namespace revnet {

// The natural logarithm of a positive, normal number, with the bits that fdlibm's algorithm gives, which is JavaScript's Math.log
// in V8:
//   x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), s = f / (2 + f), log(1 + f) = f - s (f - R(s^2)),
// R being a polynomial of degree 14 in s, and log 2 a sum of two numbers of which the first times k is exact. Below 1 ulp. Only
// additions, multiplications and one division, so the bits are the same wherever those are not contracted.
inline double logarithm(double x) {
  constexpr double kLog2High = 0x1.62e42feep-1, kLog2Low = 0x1.a39ef35793c76p-33;
  constexpr double kR[] = {0x1.5555555555593p-1, 0x1.999999997fa04p-2, 0x1.2492494229359p-2, 0x1.c71c51d8e78afp-3,
                           0x1.7466496cb03dep-3, 0x1.39a09d078c69fp-3, 0x1.2f112df3e5244p-3};
  // By the upper word of x: its exponent, and the 20 upper bits of its fraction.
  constexpr int kFraction = 0xfffff, kOne = 0x3ff00000;
  const auto bits = std::bit_cast<uint64_t>(x);
  const auto high = static_cast<int>(bits >> 32);
  const int fraction = high & kFraction;
  // Above sqrt(2), half of 1 + f and one more of k.
  const int above = (fraction + 0x95f64) & (kFraction + 1);
  const int k = (high >> 20) - 1023 + (above >> 20);
  const uint64_t scaled = (static_cast<uint64_t>(fraction | (above ^ kOne)) << 32) | (bits & 0xffffffffu);
  const double f = std::bit_cast<double>(scaled) - 1.0, n = k;

  if ((kFraction & (2 + fraction)) < 3) {  // |f| < 2^-20
    if (f == 0) return k == 0 ? 0.0 : n * kLog2High + n * kLog2Low;
    const double r = f * f * (0.5 - 0.33333333333333333 * f);
    return k == 0 ? f - r : n * kLog2High - ((r - n * kLog2Low) - f);
  }
  const double s = f / (2.0 + f), z = s * s, w = z * z;
  const double r = z * (kR[0] + w * (kR[2] + w * (kR[4] + w * kR[6]))) + w * (kR[1] + w * (kR[3] + w * kR[5]));
  // Where f is not near an end of its range, f^2 / 2 is taken out of R, which then is smaller.
  if (((fraction - 0x6147a) | (0x6b851 - fraction)) > 0) {
    const double half = 0.5 * f * f;
    return k == 0 ? f - (half - s * (half + r)) : n * kLog2High - ((half - (s * (half + r) + n * kLog2Low)) - f);
  }
  return k == 0 ? f - s * (f - r) : n * kLog2High - ((s * (f - r) - n * kLog2Low) - f);
}

}  // namespace revnet

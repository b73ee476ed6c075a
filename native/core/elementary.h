// Elementary functions whose bits must not depend on the C library. lib/elementary.ts has the same ones, with the same bits, for
// JavaScript.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace revnet {

// log 2 as a sum, the first part of which times an exponent is exact.
constexpr double kLog2High = 0x1.62e42feep-1, kLog2Low = 0x1.a39ef35793c76p-33;

// e^x, by fdlibm's algorithm: for x = k log 2 + r, 2^k e^r with
//   e^r = 1 + r + r c / (2 - c),  c = r - r^2 P(r^2),
// P being a polynomial of degree 4. Below 1 ulp.
inline double exponential(double x) {
  constexpr double kInverseLog2 = 0x1.71547652b82fep+0, kLargest = 0x1.62e42fefa39efp+9, kSmallest = -0x1.74910d52d3051p+9;
  constexpr double kP[] = {0x1.555555555553ep-3, -0x1.6c16c16bebd93p-9, 0x1.1566aaf25de2cp-14, -0x1.bbd41c5d26bf1p-20,
                           0x1.6376972bea4d0p-25};
  if (!(x <= kLargest)) return x * std::numeric_limits<double>::infinity();  // NaN stays NaN
  if (x < kSmallest) return 0;
  const int k = std::abs(x) > kLog2High / 2 ? static_cast<int>(kInverseLog2 * x + (x < 0 ? -0.5 : 0.5)) : 0;
  const double high = x - k * kLog2High, low = k * kLog2Low, r = high - low, t = r * r;
  const double c = r - t * (kP[0] + t * (kP[1] + t * (kP[2] + t * (kP[3] + t * kP[4]))));
  if (k == 0) return 1.0 - (r * c / (c - 2.0) - r);
  const double y = 1.0 - (low - r * c / (2.0 - c) - high);
  const auto powerOf2 = [](int exponent) { return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52); };
  if (k < -1000) return y * powerOf2(k + 1000) * powerOf2(-1000);
  return k > 1023 ? y * 2.0 * powerOf2(k - 1) : y * powerOf2(k);
}

// The natural logarithm of a positive, normal number, by fdlibm's algorithm; NaN and infinity stay what they are. With
//   x = 2^k (1 + f),  1 + f in [sqrt(1/2), sqrt(2)),  s = f / (2 + f):  log(1 + f) = f - s (f - R(s^2)),
// R being a polynomial of degree 14 in s, and log 2 a sum of two numbers of which the first times k is exact. Below 1 ulp. Only
// additions, multiplications and one division, so the bits are the same wherever those are not contracted.
inline double logarithm(double x) {
  constexpr double kR[] = {0x1.5555555555593p-1, 0x1.999999997fa04p-2, 0x1.2492494229359p-2, 0x1.c71c51d8e78afp-3,
                           0x1.7466496cb03dep-3, 0x1.39a09d078c69fp-3, 0x1.2f112df3e5244p-3};
  if (!(x < std::numeric_limits<double>::infinity())) return x;
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

// bfloat16, the upper half of a float, on the host: what a backend stores in two bytes, JavaScript reads and writes as floats.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace revnet {

struct Bfloat16Bits {
  uint16_t bits;
};

// To the nearest, ties to even. NaN stays NaN.
inline Bfloat16Bits toBfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return {0x7FFF};
  return {static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
}

inline float fromBfloat16(Bfloat16Bits value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }

}  // namespace revnet

// Initial values of parameters. Each tensor that is drawn has a Philox stream of its own, so its values depend on the seed and its
// place alone: same seed, same bits, on every device.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "host_array.h"

namespace revnet {

enum class Distribution : uint8_t {
  Constant,         // of that value
  Uniform,          // in (-value, value)
  TruncatedNormal,  // value: the deviation of the normal before it is cut at two of them
};
constexpr const char* kDistributionNames[] = {"constant", "uniform", "truncatedNormal"};

// A run of elements in a flat buffer. A convolution's are drawn as [out][in][taps] and lie as [taps][in][out]; others have out =
// taps = 1.
struct InitialTensor {
  Distribution distribution = Distribution::Constant;
  double value = 0;
  uint32_t stream = 0;
  int64_t offset = 0;
  int64_t out = 1, in = 1, taps = 1;
  int64_t elements() const { return out * in * taps; }
};

// Throws ERR_INVALID_ARGUMENT where a tensor does not lie within `elements`.
void checkInitialTensors(std::span<const InitialTensor> tensors, int64_t elements);
// Values are rounded to float; what no tensor covers stays as it is. Returns early once `cancelled`. `to`: checked by the former.
void drawInitial(uint64_t seed, std::span<const InitialTensor> tensors, float* to, const std::atomic<bool>& cancelled);
void drawInitial(uint64_t seed, std::span<const InitialTensor> tensors, double* to, const std::atomic<bool>& cancelled);

}  // namespace revnet

// How the reference backend sees memory: real = float64, fixed = int64 with 40 fraction bits, index = int32, byte = uint8.
// Ops read every tensor as float64 values, compute with plain loops, and write back; a stream's element type matters only
// in `stream` and `add`.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "core/backend.h"

namespace revnet::reference {

using Values = std::vector<double>;
using View = std::span<const double>;
using MutableView = std::span<double>;

constexpr int kFractionBits = 40;

// Thrown to leave an op early; never leaves Replay::run.
struct Cancelled {};

class Context {
 public:
  Context(const Memory& memory, const std::atomic<bool>& cancelled) : memory_(memory), cancelled_(cancelled) {}

  // Called between ops, and between images by loops over images.
  void checkCancelled() const {
    if (cancelled_.load(std::memory_order_relaxed)) throw Cancelled{};
  }

  // Empty for an absent operand.
  MutableView reals(Operand operand, int64_t elements) const { return span<double>(operand, elements); }
  std::span<int32_t> indices(Operand operand, int64_t elements) const { return span<int32_t>(operand, elements); }
  std::span<uint8_t> bytes(Operand operand, int64_t elements) const { return span<uint8_t>(operand, elements); }

  // A copy of a stream (real or fixed) as float64; exact for every value inside the fixed-point range.
  Values stream(Operand operand, int64_t elements) const;

  // The residual addition and its inverse: y = base + sign * q(values), sign +1 or -1; `base` absent means zero and may be y.
  // q is the identity on real streams. Fixed sums wrap, so that the inverse is exact even where the range was left.
  // `outOfRange` [1] += elements that are NaN or whose sum is outside [-512, 512): what int32 with 22 fraction bits can hold.
  void add(Operand base, Operand y, View values, int sign, Operand outOfRange) const;
  // y = q(values)
  void store(Operand y, View values, Operand outOfRange = {}) const { add({}, y, values, 1, outOfRange); }
  // notFinite [1] = 1 where one of `values` is NaN, infinite or beyond kLargestValue.
  void checkFinite(View values, Operand notFinite) const;

 private:
  template <class T>
  std::span<T> span(Operand operand, int64_t elements) const {
    return operand ? std::span<T>(memory_.at<T>(operand), static_cast<size_t>(elements)) : std::span<T>();
  }

  const Memory& memory_;
  const std::atomic<bool>& cancelled_;
};

// The channels of a [pixels][c] tensor that is stored as `parts` tensors of c / parts channels each.
Values joinChannels(const Context& context, const std::vector<Operand>& parts, int64_t pixels, int c);
void storeChannels(const Context& context, const std::vector<Operand>& parts, View values, int c, Operand outOfRange);

}  // namespace revnet::reference

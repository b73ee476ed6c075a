// The one description of a convolution, shared by op records, backends, tests and benchmarks.
#pragma once

#include <cstdint>

namespace revnet {

// Bounds that keep every element count inside int64: images or rows, and edges or channels.
constexpr int kMaxRows = 1 << 22;
constexpr int kMaxEdge = 1 << 13;
// What kernels have tables for.
constexpr int kMaxKernel = 15;
constexpr int kMaxStride = 2;

// x: [n][h][w][c]   weight: [kernel][kernel][c][k]   y: [n][outH][outW][k], no bias, padding kernel / 2 on every side.
struct Convolution {
  int n = 0, h = 0, w = 0, c = 0;
  int k = 0;       // output channels
  int kernel = 0;  // edge of the square kernel, odd
  int stride = 0;

  constexpr int padding() const { return kernel / 2; }
  constexpr int outH() const { return (h + 2 * padding() - kernel) / stride + 1; }
  constexpr int outW() const { return (w + 2 * padding() - kernel) / stride + 1; }
  constexpr int taps() const { return kernel * kernel; }

  bool valid() const {
    const auto within = [](int value, int most) { return value >= 1 && value <= most; };
    return within(n, kMaxRows) && within(h, kMaxEdge) && within(w, kMaxEdge) && within(c, kMaxEdge) && within(k, kMaxEdge) &&
           within(kernel, kMaxKernel) && kernel % 2 == 1 && within(stride, kMaxStride);
  }

  constexpr int64_t inputElements() const { return int64_t{n} * h * w * c; }
  constexpr int64_t outputElements() const { return int64_t{n} * outH() * outW() * k; }
  constexpr int64_t weightElements() const { return int64_t{taps()} * c * k; }
  // Multiplications and additions of one pass (forward, backward data and backward weights are equal).
  constexpr int64_t flops() const { return 2 * outputElements() * taps() * c; }
};

}  // namespace revnet

// Flat passes over whole buffers: the optimizer, copies, and the comparison of streams.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/carver.h"
#include "core/ops.h"
#include "cpu/kernels/finite.h"
#include "cpu/kernels/vector.h"
#include "cpu/thread_pool.h"

namespace revnet::REVNET_ISA {

constexpr int64_t kSlice = 1 << 14;  // elements of one task
inline int slices(int64_t elements) { return static_cast<int>((elements + kSlice - 1) / kSlice); }

// Calls body(first, last) for slices of [0, elements).
template <class Body>
inline void forEachSlice(ThreadPool& pool, int64_t elements, const Body& body) {
  pool.parallelFor(slices(elements), [&](int slice, int) {
    const int64_t first = slice * kSlice;
    body(first, std::min(elements, first + kSlice));
  });
}

inline void run(const SgdUpdate& op, const Memory& memory, ThreadPool& pool) {
  float *parameters = memory.at<float>(op.parameters), *momenta = memory.at<float>(op.momenta);
  const float *gradients = memory.at<const float>(op.gradients), *hyperparameters = memory.at<const float>(op.hyperparameters);
  const float learningRate = hyperparameters[0], momentum = hyperparameters[1], weightDecay = hyperparameters[2];
  const bool nesterov = hyperparameters[3] != 0;
  NotFinite notFinite;
  forEachSlice(pool, op.elements, [&](int64_t first, int64_t last) {
    const auto update = [&](int64_t from, int64_t to, float decay) {
      bool finite = true;
      for (int64_t i = from; i < to; ++i) {
        const float gradient = std::fma(decay, parameters[i], gradients[i]);
        const float m = std::fma(momentum, momenta[i], gradient);
        momenta[i] = m;
        parameters[i] = std::fma(-learningRate, nesterov ? std::fma(momentum, m, gradient) : m, parameters[i]);
        finite &= isFinite(parameters[i]);
      }
      notFinite.note(finite);
    };
    const int64_t decayed = std::clamp(op.decayed, first, last);
    update(first, decayed, weightDecay);
    update(decayed, last, 0.0f);
  });
  notFinite.write(memory, op.notFinite);
}

inline void run(const AdamwUpdate& op, const Memory& memory, ThreadPool& pool) {
  float *parameters = memory.at<float>(op.parameters), *mean = memory.at<float>(op.mean), *square = memory.at<float>(op.square);
  const float *gradients = memory.at<const float>(op.gradients), *h = memory.at<const float>(op.hyperparameters);
  const float shrink = h[0], stepSize = h[1], beta1 = h[2], rest1 = h[3], beta2 = h[4], rest2 = h[5], correction = h[6],
              epsilon = h[7];
  NotFinite notFinite;
  forEachSlice(pool, op.elements, [&](int64_t first, int64_t last) {
    // Square root and division are rounded correctly, so they too have the same bits everywhere.
    const auto update = [&](int64_t from, int64_t to, float decay) {
      bool finite = true;
      for (int64_t i = from; i < to; ++i) {
        const float g = gradients[i];
        const float m = std::fma(rest1, g, beta1 * mean[i]), s = std::fma(rest2 * g, g, beta2 * square[i]);
        mean[i] = m;
        square[i] = s;
        const float kept = std::fma(-decay, parameters[i], parameters[i]);
        parameters[i] = std::fma(-stepSize, m / (std::sqrt(s) / correction + epsilon), kept);
        finite &= isFinite(parameters[i]);
      }
      notFinite.note(finite);
    };
    const int64_t decayed = std::clamp(op.decayed, first, last);
    update(first, decayed, shrink);
    update(decayed, last, 0.0f);
  });
  notFinite.write(memory, op.notFinite);
}

struct ClipGradientNormLayout {
  double* sums;  // [slices]
  ClipGradientNormLayout(const ClipGradientNorm& op, int, Carver& carver)
      : sums(carver.take<double>(static_cast<size_t>(slices(op.elements)))) {}
};

inline void run(const ClipGradientNorm& op, const Memory& memory, ThreadPool& pool, ClipGradientNormLayout& at) {
  float* gradients = memory.at<float>(op.gradients);
  forEachSlice(pool, op.elements, [&](int64_t first, int64_t last) {
    // In float64, where squares neither overflow nor vanish, and in an order that leaves the compiler its vectors.
    constexpr int kSums = 16;
    double sums[kSums] = {};
    for (int64_t i = first; i < last; i += kSums)
      for (int lane = 0; lane < std::min<int64_t>(kSums, last - i); ++lane)
        sums[lane] = std::fma(static_cast<double>(gradients[i + lane]), static_cast<double>(gradients[i + lane]), sums[lane]);
    double sum = 0;
    for (const double lane : sums) sum += lane;
    at.sums[first / kSlice] = sum;
  });
  double sum = 0;
  for (int i = 0; i < slices(op.elements); ++i) sum += at.sums[i];
  const double norm = std::sqrt(sum);
  const auto factor = static_cast<float>(op.factor(op.maxNorm, norm));
  forEachSlice(pool, op.elements, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) gradients[i] *= factor;
  });
  *memory.at<float>(op.norm) = static_cast<float>(norm);
}

inline void run(const Copy& op, const Memory& memory, ThreadPool& pool) {
  const std::byte* x = memory.at<const std::byte>(op.x);
  std::byte* y = memory.at<std::byte>(op.y);
  forEachSlice(pool, op.elements, [&](int64_t first, int64_t last) {
    std::memcpy(y + 4 * first, x + 4 * first, static_cast<size_t>(4 * (last - first)));
  });
}

struct MaximumDifferenceLayout {
  double* largest;  // [slices]
  MaximumDifferenceLayout(const MaximumDifference& op, int, Carver& carver)
      : largest(carver.take<double>(static_cast<size_t>(slices(op.elements)))) {}
};

inline void run(const MaximumDifference& op, const Memory& memory, ThreadPool& pool, MaximumDifferenceLayout& at) {
  const auto compare = [&](const auto* a, const auto* b) {
    forEachSlice(pool, op.elements, [&](int64_t first, int64_t last) {
      double largest = 0;
      for (int64_t i = first; i < last; ++i) {
        const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
        if (difference > largest || std::isnan(difference)) largest = difference;  // once NaN, it stays
      }
      at.largest[first / kSlice] = largest * static_cast<double>(streamScale(a));
    });
  };
  memory.isFixed(op.a) ? compare(memory.at<const int32_t>(op.a), memory.at<const int32_t>(op.b))
                       : compare(memory.at<const float>(op.a), memory.at<const float>(op.b));
  double largest = 0;
  for (int i = 0; i < slices(op.elements); ++i)
    if (at.largest[i] > largest || std::isnan(at.largest[i])) largest = at.largest[i];
  *memory.at<float>(op.y) = static_cast<float>(largest);
}

}  // namespace revnet::REVNET_ISA

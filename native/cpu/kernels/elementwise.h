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
  NotFinite notFinite;
  forEachSlice(pool, op.elements, [&](int64_t first, int64_t last) {
    const auto update = [&](int64_t from, int64_t to, float decay) {
      bool finite = true;
      for (int64_t i = from; i < to; ++i) {
        const float m = std::fma(momentum, momenta[i], std::fma(decay, parameters[i], gradients[i]));
        momenta[i] = m;
        parameters[i] = std::fma(-learningRate, m, parameters[i]);
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

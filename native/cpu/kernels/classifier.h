// Linear layer and softmax cross-entropy: a thousandth of a step's work, kept plain.
#pragma once

#include "core/elementary.h"
#include "cpu/kernels/layer.h"

namespace revnet::REVNET_ISA {

inline void run(const LinearForward& op, const Memory& memory, ThreadPool& pool) {
  const float *x = memory.at<const float>(op.x), *weight = memory.at<const float>(op.weight),
              *bias = memory.at<const float>(op.bias);
  float* y = memory.at<float>(op.y);
  const auto in = static_cast<size_t>(op.in), out = static_cast<size_t>(op.out);
  pool.parallelFor(op.n, [&](int n, int) {
    const float* row = x + static_cast<size_t>(n) * in;
    for (size_t o = 0; o < out; ++o) {
      Vec sum{};
      forEachBlock(op.in, [&](int block, int count, auto kind) {
        sum = fma(kind.load(row + block * kLanes, count), kind.load(weight + o * in + static_cast<size_t>(block * kLanes), count),
                  sum);
      });
      y[static_cast<size_t>(n) * out + o] = bias[o] + sumLanes(sum);
    }
  });
}

inline void run(const LinearBackward& op, const Memory& memory, ThreadPool& pool) {
  const float *x = memory.at<const float>(op.x), *weight = memory.at<const float>(op.weight), *dy = memory.at<const float>(op.dy);
  float *dx = memory.at<float>(op.dx), *dw = memory.at<float>(op.weightGradient), *db = memory.at<float>(op.biasGradient);
  const auto in = static_cast<size_t>(op.in), out = static_cast<size_t>(op.out);
  pool.parallelFor(op.n, [&](int n, int) {
    const float* gradient = dy + static_cast<size_t>(n) * out;
    forEachBlock(op.in, [&](int block, int count, auto kind) {
      Vec sum{};
      for (size_t o = 0; o < out; ++o)
        sum = fma(gradient[o], kind.load(weight + o * in + static_cast<size_t>(block * kLanes), count), sum);
      kind.store(dx + static_cast<size_t>(n) * in + static_cast<size_t>(block * kLanes), sum, count);
    });
  });
  pool.parallelFor(op.out, [&](int o, int) {
    forEachBlock(op.in, [&](int block, int count, auto kind) {
      Vec sum{};
      for (size_t n = 0; n < static_cast<size_t>(op.n); ++n)
        sum = fma(dy[n * out + static_cast<size_t>(o)], kind.load(x + n * in + static_cast<size_t>(block * kLanes), count), sum);
      kind.store(dw + static_cast<size_t>(o) * in + static_cast<size_t>(block * kLanes), sum, count);
    });
    float sum = 0;
    for (size_t n = 0; n < static_cast<size_t>(op.n); ++n) sum += dy[n * out + static_cast<size_t>(o)];
    db[o] = sum;
  });
}

struct SoftmaxCrossEntropyLayout {
  double* losses;  // [n]
  SoftmaxCrossEntropyLayout(const SoftmaxCrossEntropy& op, int, Carver& carver)
      : losses(carver.take<double>(static_cast<size_t>(op.n))) {}
};

inline void run(const SoftmaxCrossEntropy& op, const Memory& memory, ThreadPool& pool, SoftmaxCrossEntropyLayout& at) {
  const auto classes = static_cast<size_t>(op.classes);
  const float* x = memory.at<const float>(op.x);
  const int32_t* labels = memory.at<const int32_t>(op.labels);
  float* dx = memory.at<float>(op.dx);
  const auto counts = [&](int n) { return labels[n] >= 0 && labels[n] < op.classes; };
  int rows = 0, correct = 0;
  for (int n = 0; n < op.n; ++n) {
    if (!counts(n)) continue;
    ++rows;
    const float* logits = x + static_cast<size_t>(n) * classes;
    correct += std::max_element(logits, logits + classes) - logits == labels[n];
  }

  pool.parallelFor(op.n, [&](int n, int) {
    const float* logits = x + static_cast<size_t>(n) * classes;
    float* gradient = dx ? dx + static_cast<size_t>(n) * classes : nullptr;
    at.losses[n] = 0;
    if (!counts(n)) {
      if (gradient) std::memset(gradient, 0, classes * sizeof(float));
      return;
    }
    const float largest = *std::max_element(logits, logits + classes);
    double sum = 0;
    for (size_t i = 0; i < classes; ++i) sum += exponential(static_cast<double>(logits[i] - largest));
    at.losses[n] = logarithm(sum) - static_cast<double>(logits[labels[n]] - largest);
    if (!gradient) return;
    for (size_t i = 0; i < classes; ++i) {
      const double probability = exponential(static_cast<double>(logits[i] - largest)) / sum;
      gradient[i] = static_cast<float>((probability - (static_cast<int>(i) == labels[n] ? 1 : 0)) / rows);
    }
  });

  double loss = 0;
  for (int n = 0; n < op.n; ++n) loss += at.losses[n];
  *memory.at<float>(op.loss) = rows > 0 ? static_cast<float>(loss / rows) : 0.0f;
  *memory.at<int32_t>(op.correct) = correct;
}

}  // namespace revnet::REVNET_ISA

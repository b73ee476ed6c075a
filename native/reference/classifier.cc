// The classifier: a linear layer, and softmax with cross-entropy.
#include <algorithm>
#include <cmath>

#include "core/elementary.h"
#include "run.h"

namespace revnet::reference {

void run(const Context& context, const LinearForward& op) {
  const int64_t in = op.in, out = op.out;
  const View x = context.reals(op.x, op.n * in), weight = context.reals(op.weight, out * in), bias = context.reals(op.bias, out);
  const MutableView y = context.reals(op.y, op.n * out);
  for (int64_t row = 0; row < op.n; ++row) {
    for (int64_t j = 0; j < out; ++j) {
      double sum = bias[j];
      for (int64_t i = 0; i < in; ++i) sum += x[row * in + i] * weight[j * in + i];
      y[row * out + j] = sum;
    }
  }
}

void run(const Context& context, const LinearBackward& op) {
  const int64_t in = op.in, out = op.out;
  const View x = context.reals(op.x, op.n * in), weight = context.reals(op.weight, out * in), dy = context.reals(op.dy, op.n * out);
  const MutableView dx = context.reals(op.dx, op.n * in);
  const MutableView dWeight = context.reals(op.weightGradient, out * in), dBias = context.reals(op.biasGradient, out);
  for (const MutableView& gradient : {dx, dWeight, dBias}) std::fill(gradient.begin(), gradient.end(), 0.0);
  for (int64_t row = 0; row < op.n; ++row) {
    for (int64_t j = 0; j < out; ++j) {
      const double d = dy[row * out + j];
      dBias[j] += d;
      for (int64_t i = 0; i < in; ++i) {
        dx[row * in + i] += d * weight[j * in + i];
        dWeight[j * in + i] += d * x[row * in + i];
      }
    }
  }
}

// loss = mean of log(sum_j exp(x_j)) - x_label;  dx_j = (softmax(x)_j - [j = label]) / counted. Logits are shifted by their
// largest, so that no exponential overflows.
void run(const Context& context, const SoftmaxCrossEntropy& op) {
  const int64_t n = op.n, classes = op.classes;
  const View x = context.reals(op.x, n * classes);
  const auto labels = context.indices(op.labels, n);
  const MutableView dx = context.reals(op.dx, n * classes);
  const auto counts = [&](int32_t label) { return label >= 0 && label < classes; };
  const auto counted = static_cast<double>(std::count_if(labels.begin(), labels.end(), counts));

  double loss = 0;
  int32_t correct = 0;
  std::fill(dx.begin(), dx.end(), 0.0);
  for (int64_t row = 0; row < n; ++row) {
    if (!counts(labels[row])) continue;
    const View logits = x.subspan(row * classes, classes);
    const auto largest = std::max_element(logits.begin(), logits.end());  // the first one of equals
    if (largest - logits.begin() == labels[row]) ++correct;
    double sum = 0;
    for (const double logit : logits) sum += exponential(logit - *largest);
    loss += logarithm(sum) + *largest - logits[labels[row]];
    if (dx.empty()) continue;
    for (int64_t j = 0; j < classes; ++j)
      dx[row * classes + j] = (exponential(logits[j] - *largest) / sum - (j == labels[row] ? 1 : 0)) / counted;
  }
  context.reals(op.loss, 1)[0] = counted > 0 ? loss / counted : 0;
  context.indices(op.correct, 1)[0] = correct;
}

}  // namespace revnet::reference

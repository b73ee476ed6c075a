#include "convolution.h"

#include <algorithm>

#include "norm.h"
#include "run.h"

namespace revnet::reference {

Values convolutionForward(const Context& context, const Convolution& shape, View x, View weight) {
  Values y(static_cast<size_t>(shape.outputElements()), 0.0);
  forEachTap(context, shape, [&](int64_t in, int tap, int64_t out) {
    for (int c = 0; c < shape.c; ++c) {
      const double value = x[in * shape.c + c];
      const double* row = &weight[(int64_t{tap} * shape.c + c) * shape.k];
      double* to = &y[out * shape.k];
      for (int k = 0; k < shape.k; ++k) to[k] += value * row[k];
    }
  });
  return y;
}

Values convolutionBackwardData(const Context& context, const Convolution& shape, View weight, View dy) {
  Values dx(static_cast<size_t>(shape.inputElements()), 0.0);
  forEachTap(context, shape, [&](int64_t in, int tap, int64_t out) {
    for (int c = 0; c < shape.c; ++c) {
      const double* row = &weight[(int64_t{tap} * shape.c + c) * shape.k];
      const double* from = &dy[out * shape.k];
      for (int k = 0; k < shape.k; ++k) dx[in * shape.c + c] += row[k] * from[k];
    }
  });
  return dx;
}

void convolutionBackwardWeights(const Context& context, const Convolution& shape, View x, View dy, MutableView weightGradient) {
  std::fill(weightGradient.begin(), weightGradient.end(), 0.0);
  forEachTap(context, shape, [&](int64_t in, int tap, int64_t out) {
    for (int c = 0; c < shape.c; ++c) {
      const double value = x[in * shape.c + c];
      double* row = &weightGradient[(int64_t{tap} * shape.c + c) * shape.k];
      const double* from = &dy[out * shape.k];
      for (int k = 0; k < shape.k; ++k) row[k] += value * from[k];
    }
  });
}

void run(const Context& context, const ConvolutionForward& op) {
  const Convolution& shape = op.convolution;
  const Values x = normForward(context, op.norm, shape.c, context.stream(op.x, shape.inputElements()));
  context.store(op.y, convolutionForward(context, shape, x, context.reals(op.weight, shape.weightElements())), op.outOfRange);
  if (!op.statistics) return;
  computeStatistics(context.stream(op.y, shape.outputElements()), shape.k, context.reals(op.statistics, 2 * int64_t{shape.k}));
}

void run(const Context& context, const ConvolutionBackwardData& op) {
  const Convolution& shape = op.convolution;
  const View weight = context.reals(op.weight, shape.weightElements()), dy = context.reals(op.dy, shape.outputElements());
  context.store(op.dx, convolutionBackwardData(context, shape, weight, dy));
}

void run(const Context& context, const ConvolutionBackwardWeights& op) {
  const Convolution& shape = op.convolution;
  const Values x = normForward(context, op.norm, shape.c, context.stream(op.x, shape.inputElements()));
  convolutionBackwardWeights(context, shape, x, context.reals(op.dy, shape.outputElements()),
                             context.reals(op.weightGradient, shape.weightElements()));
}

}  // namespace revnet::reference

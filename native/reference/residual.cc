// Residual functions and what is built of them: y = base + q(F(x)), and the reversible block of Gomez et al. 2017:
//   y1 = x1 + F(x2)    y2 = x2 + G(y1)          x2 = y2 - G(y1)    x1 = y1 - F(x2)
#include <algorithm>

#include "convolution.h"
#include "norm.h"
#include "run.h"

namespace revnet::reference {
namespace {

// F(x), not yet rounded. Overwrites the hidden tensors and, if asked, the statistics that the later layers' norms use.
Values evaluate(const Context& context, const ResidualFunction& function, View x, const Hidden& hidden,
                bool computeHiddenStatistics) {
  Values value(x.begin(), x.end());
  for (size_t i = 0; i < function.layers.size(); ++i) {
    const auto& [shape, norm, weight] = function.layers[i];
    if (i > 0) {
      const MutableView kept = context.reals(hidden[i - 1], shape.inputElements());
      std::copy(value.begin(), value.end(), kept.begin());
      if (computeHiddenStatistics) computeStatistics(kept, shape.c, context.reals(norm.statistics, 2 * int64_t{shape.c}));
    }
    const Values input = normForward(context, norm, shape.c, value);
    value = convolutionForward(context, shape, input, context.reals(weight, shape.weightElements()));
  }
  return value;
}

// (dF/dx)^T dy, overwriting the gradients of F's parameters; `hidden` as `evaluate` left it.
Values differentiate(const Context& context, const ResidualFunction& function, const ResidualGradient& gradient, View x,
                     const Hidden& hidden, View dy) {
  Values dOutput(dy.begin(), dy.end());  // d loss / d output of layer i
  for (size_t i = function.layers.size(); i-- > 0;) {
    const auto& [shape, norm, weight] = function.layers[i];
    const View input = i > 0 ? context.reals(hidden[i - 1], shape.inputElements()) : x;  // before the norm
    convolutionBackwardWeights(context, shape, normForward(context, norm, shape.c, input), dOutput,
                               context.reals(gradient.layers[i].weight, shape.weightElements()));
    const Values dInput = convolutionBackwardData(context, shape, context.reals(weight, shape.weightElements()), dOutput);
    dOutput = normBackward(context, norm, gradient.layers[i].norm, shape.c, input, dInput);
  }
  return dOutput;
}

void streamStatistics(const Context& context, Operand stream, const Convolution& writtenBy, Operand statistics) {
  if (!statistics) return;
  computeStatistics(context.stream(stream, writtenBy.outputElements()), writtenBy.k,
                    context.reals(statistics, 2 * int64_t{writtenBy.k}));
}

void accumulate(MutableView to, View values) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += values[i];
}

// One half of a reversible block run backwards. On entry `stream` is y = x + q(F(other)), `dStream` is dy; on return `stream` is
// x, and `dOther` has gained (dF/dother)^T dy. F is evaluated once, for both.
void undo(const Context& context, const ResidualFunction& function, const ResidualGradient& gradient, const Hidden& hidden,
          Operand stream, Operand other, Operand dStream, Operand dOther) {
  const int64_t elements = function.inputElements();
  const Values x = context.stream(other, elements);
  const Values value = evaluate(context, function, x, hidden, false);
  const Values dx = differentiate(context, function, gradient, x, hidden, context.reals(dStream, elements));
  context.add(stream, stream, value, -1, {});
  accumulate(context.reals(dOther, elements), dx);
}

}  // namespace

void run(const Context& context, const ResidualForward& op) {
  const Values x = context.stream(op.x, op.function.inputElements());
  context.add(op.base, op.y, evaluate(context, op.function, x, op.hidden, op.computeStatistics), 1, op.outOfRange);
  if (op.computeStatistics) streamStatistics(context, op.y, op.function.last(), op.statistics);
}

void run(const Context& context, const ResidualBackward& op) {
  const Values x = context.stream(op.x, op.function.inputElements());
  const View dy = context.reals(op.dy, op.function.outputElements());
  const Values dx = differentiate(context, op.function, op.gradient, x, op.hidden, dy);
  accumulate(context.reals(op.dx, op.function.inputElements()), dx);
}

void run(const Context& context, const ReversibleForward& op) {
  const int64_t elements = op.f.inputElements();
  const Values x2 = context.stream(op.stream2, elements);
  context.add(op.stream1, op.stream1, evaluate(context, op.f, x2, op.hidden, op.computeStatistics), 1, op.outOfRange);
  if (op.computeStatistics) streamStatistics(context, op.stream1, op.f.last(), op.statistics1);

  const Values y1 = context.stream(op.stream1, elements);
  context.add(op.stream2, op.stream2, evaluate(context, op.g, y1, op.hidden, op.computeStatistics), 1, op.outOfRange);
  if (op.computeStatistics) streamStatistics(context, op.stream2, op.g.last(), op.statistics2);
}

void run(const Context& context, const ReversibleInverse& op) {
  const int64_t elements = op.f.inputElements();
  const Values y1 = context.stream(op.stream1, elements);
  context.add(op.stream2, op.stream2, evaluate(context, op.g, y1, op.hidden, false), -1, {});
  const Values x2 = context.stream(op.stream2, elements);
  context.add(op.stream1, op.stream1, evaluate(context, op.f, x2, op.hidden, false), -1, {});
}

// The paper's Algorithm 1. gradient1 gains G's part before F reads it: it is then the total derivative of y1, and dx1.
void run(const Context& context, const ReversibleBackward& op) {
  undo(context, op.g, op.gGradient, op.hidden, op.stream2, op.stream1, op.gradient2, op.gradient1);
  undo(context, op.f, op.fGradient, op.hidden, op.stream1, op.stream2, op.gradient1, op.gradient2);
}

}  // namespace revnet::reference

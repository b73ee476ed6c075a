// Residual functions and the reversible blocks made of them (the paper's equations 6 to 8 and its Algorithm 1), as lists of
// launches. All fusion happens inside the passes of convolution_block.cuh and weights_gradient_block.cuh, and of launches in
// backward.cu:
//   forward    a convolution reads its input through the norm; the last one adds to the stream as it writes, and whoever writes a
//              tensor whose statistics are asked for makes them, and the norm that reads it next
//   backward   for each layer, from the last: the gradient of its output is read through the norm above it; dX masks by this
//              layer's ReLU and sums for this layer's norm as it writes; at the end dx += the gradient through the first norm
// With L layers: forward L launches; backward L + 1, and L more where F is recomputed, of which the first of F shares that of G's
// end.
#include "cuda/convolution.cuh"
#include "cuda/prepare.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

// ---- Forward and inverse -----------------------------------------------------------------------------------------------------

// A residual function made ready to run forward.
class ForwardFunction {
 public:
  ForwardFunction(const ResidualFunction& function, Operand x, const Hidden& hidden, Precision precision)
      : function_(function), x_(x), hidden_(hidden) {
    for (const auto& layer : function.layers) plans_.push_back(planForward(layer.convolution, precision));
  }

  size_t depth() const { return function_.layers.size(); }
  Operand input(size_t i) const { return i == 0 ? x_ : hidden_.empty() ? Operand{} : hidden_[i - 1]; }
  const ResidualFunction::Layer& layer(size_t i) const { return function_.layers[i]; }
  ChannelNorm* norm(size_t i, const ProgramMemory& memory) const { return memory.program.norm(layer(i).norm, input(i)); }
  void cover(PartialSums::Extent& extent) const {
    for (const ConvolutionPlan& plan : plans_) extent.cover(plan);
  }
  Source source(size_t i, const ProgramMemory& memory) const { return normSource(streamAt(memory, input(i)), norm(i, memory)); }

  // What a pass has to make for the norm of layer i, whose input it writes.
  StatisticsTarget statisticsFor(size_t i, Operand statistics, const ProgramMemory& memory) const {
    const Norm& norm = layer(i).norm;
    return {memory.at<float>(statistics), normArguments(norm, memory, layer(i).convolution.c), this->norm(i, memory)};
  }

  // target.y = target.base + sign * q(F(x)). With `end` it also ends the backward pass of another function, whose gradients and
  // scratch it does not touch.
  void run(const Context& context, const PartialSums& partials, bool computeStatistics, const Target& target,
           const BackwardEnd* end = nullptr) const {
    for (size_t i = 0; i < depth(); ++i) {
      Target to = target;
      if (i + 1 < depth()) {
        to = {};
        to.y = streamAt(context.memory, hidden_[i]);
        if (computeStatistics) to.statistics = statisticsFor(i + 1, layer(i + 1).norm.statistics, context.memory);
      }
      const std::byte* const weights = context.memory.program.weights(layer(i).weight, plans_[i].layout);
      if (i == 0 && end != nullptr)
        endBackwardAndConvolve(context, *end, plans_[i], source(i, context.memory), weights, to, partials);
      else
        convolve(context, plans_[i], source(i, context.memory), weights, to, partials);
    }
  }

 private:
  const ResidualFunction& function_;
  Operand x_;
  const Hidden& hidden_;
  std::vector<ConvolutionPlan> plans_;
};

// y = base + sign * q(...)
Target sumTarget(const Memory& memory, Operand base, Operand y, int sign, Operand outOfRange = {}) {
  Target target;
  target.base = streamAt(memory, base);
  target.y = streamAt(memory, y);
  target.sign = sign;
  target.outOfRange = memory.at<int>(outOfRange);
  return target;
}

struct ResidualForwardLayout {
  ForwardFunction function;
  PartialSums partials;

  ResidualForwardLayout(const ResidualForward& op, Precision precision, Carver& carver)
      : function(op.function, op.x, op.hidden, precision) {
    PartialSums::Extent extent;
    function.cover(extent);
    partials = extent.carve(carver);
  }
};

// F and G of a reversible block. G's first norm reads what F's last pass writes.
struct ReversibleLayout {
  ForwardFunction f, g;
  PartialSums partials;

  template <class Record>
  ReversibleLayout(const Record& op, Precision precision, Carver& carver)
      : f(op.f, op.stream2, op.hidden, precision), g(op.g, op.stream1, op.hidden, precision) {
    PartialSums::Extent extent;
    f.cover(extent);
    g.cover(extent);
    partials = extent.carve(carver);
  }
};

// ---- Backward ------------------------------------------------------------------------------------------------------------------

// Of each gradient of a layer: with a norm both share a launch.
int backwardBlocks(const ResidualFunction::Layer& layer) { return layer.norm ? kBlocksBeside : kBlocks; }

// What the backward passes of one function, or of two that run one after the other, share.
struct BackwardScratch {
  size_t dzBytes = 0, weightFloats = 0;
  PartialSums::Extent extent;
  void* dz[2] = {};  // dz of one layer is read while that of the next is written
  float* weightPartials = nullptr;
  PartialSums partials{};

  void cover(const ResidualFunction& function, Precision precision) {
    size_t weights = 0;
    for (const auto& layer : function.layers) {
      dzBytes = std::max(dzBytes, static_cast<size_t>(layer.convolution.inputElements()) * hiddenBytes(precision));
      weights += planBackwardWeights(layer.convolution, precision, backwardBlocks(layer)).partialFloats();
      extent.cover(planForward(layer.convolution, precision));
      extent.cover(planBackwardData(layer.convolution, precision, backwardBlocks(layer)));
    }
    weightFloats = std::max(weightFloats, weights);
  }
  void carve(Carver& carver) {
    for (void*& buffer : dz) buffer = carver.take<std::byte>(dzBytes);
    weightPartials = carver.take<float>(weightFloats);
    partials = extent.carve(carver);
  }
};

class BackwardFunction {
 public:
  BackwardFunction(const ResidualFunction& function, const ResidualGradient& gradient, Operand x, const Hidden& hidden,
                   Precision precision, Carver& carver)
      : forward_(function, x, hidden, precision), gradient_(gradient) {
    for (const auto& layer : function.layers)
      layers_.push_back({planBackwardData(layer.convolution, precision, backwardBlocks(layer)),
                         planBackwardWeights(layer.convolution, precision, backwardBlocks(layer)),
                         NormGradientVectors(layer.convolution.c, carver)});
  }

  // stream -= q(F(x)), and the hidden tensors. `end`: of the other function of the block, whose input the stream is.
  void reconstruct(const Context& context, const BackwardScratch& scratch, Operand stream, const BackwardEnd* end = nullptr) const {
    // That function's last addition still reads the stream, which the last layer writes.
    const bool together = end != nullptr && forward_.depth() > 1;
    if (end != nullptr && !together) endBackward(context, *end);
    forward_.run(context, scratch.partials, false, sumTarget(context.memory, stream, stream, -1), together ? end : nullptr);
  }

  // The gradients of the parameters, and dx += (dF/dx)^T dy: all but what is returned.
  BackwardEnd run(const Context& context, const BackwardScratch& scratch, Operand dyOperand, Operand dxOperand) const {
    const ProgramMemory& memory = context.memory;
    Source dy = plainSource(streamAt(memory, dyOperand));
    BackwardEnd end{};
    float* partials = scratch.weightPartials;
    for (size_t i = forward_.depth(); i-- > 0;) {
      const Layer& layer = layers_[i];
      const ResidualFunction::Layer& record = forward_.layer(i);
      const ResidualGradient::Layer& gradients = gradient_.layers[i];
      const StreamPointer dz{scratch.dz[i % 2], false, true, hiddenBytes(context.precision) == 2};

      auto* const weightGradient = context.at<float>(gradients.weight);
      const Source x = forward_.source(i, memory);
      const std::byte* const weights = memory.program.weights(record.weight, layer.data.layout);
      Target target;
      target.y = dz;
      if (record.norm) {
        target.writing = Writing::Mask;
        target.x = streamAt(memory, forward_.input(i));
        target.norm = forward_.norm(i, memory);
        target.normArguments = normArguments(record.norm, memory, record.convolution.c);
        target.gammaGradient = context.at<float>(gradients.norm.gamma);
        target.betaGradient = context.at<float>(gradients.norm.beta);
        target.vectors = layer.vectors;
        backwardLayer(context, layer.data, weights, target, scratch.partials, layer.weightsGradient, x, dy, weightGradient,
                      partials);
        dy = normGradientSource(dz, target.x, layer.vectors);
      } else {
        convolveBackwardWeights(context, layer.weightsGradient, x, dy, weightGradient, partials);
        convolve(context, layer.data, dy, weights, target, scratch.partials);
        dy = plainSource(dz);
      }
      end.sums[i] = {partials, weightGradient, layer.weightsGradient.splits, layer.weightsGradient.elements()};
      partials += layer.weightsGradient.partialFloats();
    }
    const Convolution& first = forward_.layer(0).convolution;
    end.count = static_cast<int>(forward_.depth());
    end.gradient = {dy, streamAt(memory, dxOperand), first.inputElements() / first.c, first.c};
    return end;
  }

 private:
  struct Layer {
    ConvolutionPlan data;
    WeightsGradientPlan weightsGradient;
    NormGradientVectors vectors;
  };
  ForwardFunction forward_;
  const ResidualGradient& gradient_;
  std::vector<Layer> layers_;
};

struct ResidualBackwardLayout {
  BackwardFunction function;
  BackwardScratch scratch;

  ResidualBackwardLayout(const ResidualBackward& op, Precision precision, Carver& carver)
      : function(op.function, op.gradient, op.x, op.hidden, precision, carver) {
    scratch.cover(op.function, precision);
    scratch.carve(carver);
  }
};

struct ReversibleBackwardLayout {
  BackwardFunction f, g;
  BackwardScratch scratch;

  ReversibleBackwardLayout(const ReversibleBackward& op, Precision precision, Carver& carver)
      : f(op.f, op.fGradient, op.stream2, op.hidden, precision, carver),
        g(op.g, op.gGradient, op.stream1, op.hidden, precision, carver) {
    scratch.cover(op.f, precision);
    scratch.cover(op.g, precision);
    scratch.carve(carver);
  }
};

}  // namespace

// ---- Ops -----------------------------------------------------------------------------------------------------------------------

size_t workspaceBytes(const ResidualForward& op, Precision precision) { return carvedBytes<ResidualForwardLayout>(op, precision); }
void run(const ResidualForward& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ResidualForwardLayout at(op, context.precision, carver);
  Target target = sumTarget(context.memory, op.base, op.y, 1, op.outOfRange);
  target.statistics = context.memory.program.statisticsTarget(op.statistics, op.y);
  at.function.run(context, at.partials, op.computeStatistics, target);
}

size_t workspaceBytes(const ResidualBackward& op, Precision precision) {
  return carvedBytes<ResidualBackwardLayout>(op, precision);
}
void run(const ResidualBackward& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ResidualBackwardLayout at(op, context.precision, carver);
  endBackward(context, at.function.run(context, at.scratch, op.dy, op.dx));
}

size_t workspaceBytes(const ReversibleForward& op, Precision precision) { return carvedBytes<ReversibleLayout>(op, precision); }
// y1 = x1 + q(F(x2));  y2 = x2 + q(G(y1))
void run(const ReversibleForward& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ReversibleLayout at(op, context.precision, carver);
  Target y1 = sumTarget(context.memory, op.stream1, op.stream1, 1, op.outOfRange);
  Target y2 = sumTarget(context.memory, op.stream2, op.stream2, 1, op.outOfRange);
  if (op.computeStatistics) {
    y1.statistics = at.g.statisticsFor(0, op.statistics1, context.memory);
    y2.statistics = context.memory.program.statisticsTarget(op.statistics2, op.stream2);
  }
  at.f.run(context, at.partials, op.computeStatistics, y1);
  at.g.run(context, at.partials, op.computeStatistics, y2);
}

size_t workspaceBytes(const ReversibleInverse& op, Precision precision) { return carvedBytes<ReversibleLayout>(op, precision); }
// x2 = y2 - q(G(y1));  x1 = y1 - q(F(x2))
void run(const ReversibleInverse& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ReversibleLayout at(op, context.precision, carver);
  at.g.run(context, at.partials, false, sumTarget(context.memory, op.stream2, op.stream2, -1));
  at.f.run(context, at.partials, false, sumTarget(context.memory, op.stream1, op.stream1, -1));
}

size_t workspaceBytes(const ReversibleBackward& op, Precision precision) {
  return carvedBytes<ReversibleBackwardLayout>(op, precision);
}
// Algorithm 1: x2 = y2 - q(G(y1)), dy1 += (dG/dy1)^T dy2;  x1 = y1 - q(F(x2)), dx2 = dy2 + (dF/dx2)^T dy1;  dx1 = dy1.
void run(const ReversibleBackward& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ReversibleBackwardLayout at(op, context.precision, carver);
  at.g.reconstruct(context, at.scratch, op.stream2);
  const BackwardEnd end = at.g.run(context, at.scratch, op.gradient2, op.gradient1);
  at.f.reconstruct(context, at.scratch, op.stream1, &end);
  endBackward(context, at.f.run(context, at.scratch, op.gradient1, op.gradient2));
}

}  // namespace revnet::cuda

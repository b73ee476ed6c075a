// Residual functions and the reversible blocks made of them (the paper's equations 6 to 8 and its Algorithm 1), as lists of
// launches. All fusion happens inside the passes of convolution.cu and weights_gradient.cu:
//   forward    a convolution reads its input through the norm; the last one adds to the stream as it writes, and whoever writes a
//              tensor whose statistics are asked for makes them, and the norm that reads it next
//   backward   for each layer, from the last: the gradient of its output is read through the norm above it; dX masks by this
//              layer's ReLU and sums for this layer's norm as it writes; at the end dx += the gradient through the first norm
// With L layers: forward L launches; backward 2 L + 2, and L more where F is recomputed.
//
// addGradientKernel: 4 bytes of dz, dx and x read and 4 written an element; 256 threads a block.
#include "cuda/convolution.cuh"
#include "cuda/prepare.cuh"
#include "cuda/run.h"
#include "cuda/vector.cuh"

namespace revnet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 2048;
constexpr int kLoadsAtOnce = 2;  // of each of three tensors, for each thread

struct GradientSum {
  Source source;
  StreamPointer dx;
  int64_t pixels;
  int c;
};

#if REVNET_KERNEL_CODE

// dx += source, for four channels from `channel` on, and pixels `first` and every each-th after it. `whole`: four channels at once.
template <bool kWhole>
__device__ void addGradients(const GradientSum& sum, int channel, int64_t first, int64_t each) {
  using Reader = SourceReader<true, kWhole>;
  const Reader reader(sum.source, channel, sum.c, 0);
  const int count = sum.c - channel;
  auto* const to = static_cast<float*>(sum.dx.data) + channel;
  const auto* const before = reinterpret_cast<const uint32_t*>(to);
  for (int64_t pixel = first; pixel < sum.pixels; pixel += kLoadsAtOnce * each) {
    typename Reader::Raw raw[kLoadsAtOnce];
    uint4 dx[kLoadsAtOnce];
#pragma unroll
    for (int i = 0; i < kLoadsAtOnce; ++i) {
      const int64_t at = (pixel + i * each) * sum.c;
      const bool exists = pixel + i * each < sum.pixels;
      raw[i] = reader.load(exists, at);
      dx[i] = kWhole ? loadFourWhere(exists, before, at) : loadUpToFour(exists, before, at, count);
    }
    float v[kLoadsAtOnce][4];
    reader.convert(raw, v);
#pragma unroll
    for (int i = 0; i < kLoadsAtOnce; ++i) {
      if (pixel + i * each >= sum.pixels) break;
      v[i][0] += asFloat(dx[i].x), v[i][1] += asFloat(dx[i].y), v[i][2] += asFloat(dx[i].z), v[i][3] += asFloat(dx[i].w);
      storeFour(to + (pixel + i * each) * sum.c, v[i], count, kWhole);
    }
  }
}

// dx += source, element by element.
__global__ void __launch_bounds__(kThreads) addGradientKernel(const __grid_constant__ GradientSum sum) {
  waitForPrevious();
  const int groups = ceilDiv(sum.c, 4);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t each = static_cast<int64_t>(gridDim.x) * kThreads / groups;
  const int channel = static_cast<int>(thread % groups) * 4;
  if (thread / groups >= each) return;
  if (sum.dx.aligned && SourceReader<true>::isWhole(sum.source, sum.c))
    addGradients<true>(sum, channel, thread / groups, each);
  else
    addGradients<false>(sum, channel, thread / groups, each);
}

#endif

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

  // target.y = target.base + sign * q(F(x))
  void run(const Context& context, const PartialSums& partials, bool computeStatistics, const Target& target) const {
    for (size_t i = 0; i < depth(); ++i) {
      Target to = target;
      if (i + 1 < depth()) {
        to = {};
        to.y = streamAt(context.memory, hidden_[i]);
        if (computeStatistics) to.statistics = statisticsFor(i + 1, layer(i + 1).norm.statistics, context.memory);
      }
      convolve(context, plans_[i], source(i, context.memory), context.memory.program.weights(layer(i).weight, plans_[i].layout), to,
               partials);
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

// What the backward passes of one function, or of two that run one after the other, share.
struct BackwardScratch {
  size_t dzElements = 0, weightFloats = 0;
  PartialSums::Extent extent;
  float *dz[2] = {}, *weightPartials = nullptr;  // dz of one layer is read while that of the next is written
  PartialSums partials{};

  void cover(const ResidualFunction& function, Precision precision) {
    size_t weights = 0;
    for (const auto& layer : function.layers) {
      dzElements = std::max(dzElements, static_cast<size_t>(layer.convolution.inputElements()));
      weights += planBackwardWeights(layer.convolution, precision).partialFloats();
      extent.cover(planForward(layer.convolution, precision));
      extent.cover(planBackwardData(layer.convolution, precision));
    }
    weightFloats = std::max(weightFloats, weights);
  }
  void carve(Carver& carver) {
    for (float*& buffer : dz) buffer = carver.take<float>(dzElements);
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
      layers_.push_back({planBackwardData(layer.convolution, precision), planBackwardWeights(layer.convolution, precision),
                         NormGradientVectors(layer.convolution.c, carver)});
  }

  // stream -= q(F(x)), and the hidden tensors.
  void reconstruct(const Context& context, const BackwardScratch& scratch, Operand stream) const {
    forward_.run(context, scratch.partials, false, sumTarget(context.memory, stream, stream, -1));
  }

  // dx += (dF/dx)^T dy, and the gradients of the parameters.
  void run(const Context& context, const BackwardScratch& scratch, Operand dyOperand, Operand dxOperand) const {
    const ProgramMemory& memory = context.memory;
    Source dy = plainSource(streamAt(memory, dyOperand));
    PendingSum pending[kMaxPendingSums];
    float* partials = scratch.weightPartials;
    for (size_t i = forward_.depth(); i-- > 0;) {
      const Layer& layer = layers_[i];
      const ResidualFunction::Layer& record = forward_.layer(i);
      const ResidualGradient::Layer& gradients = gradient_.layers[i];
      float* const dz = scratch.dz[i % 2];

      auto* const weightGradient = context.at<float>(gradients.weight);
      convolveBackwardWeights(context, layer.weightsGradient, forward_.source(i, memory), dy, weightGradient, partials);
      pending[i] = {partials, weightGradient, layer.weightsGradient.splits, layer.weightsGradient.elements()};
      partials += layer.weightsGradient.partialFloats();

      Target target;
      target.y = {dz, false, true};
      if (record.norm) {
        target.writing = Writing::Mask;
        target.x = streamAt(memory, forward_.input(i));
        target.norm = forward_.norm(i, memory);
        target.normArguments = normArguments(record.norm, memory, record.convolution.c);
        target.gammaGradient = context.at<float>(gradients.norm.gamma);
        target.betaGradient = context.at<float>(gradients.norm.beta);
        target.vectors = layer.vectors;
      }
      convolve(context, layer.data, dy, memory.program.weights(record.weight, layer.data.layout), target, scratch.partials);
      dy = record.norm ? normGradientSource(dz, streamAt(memory, forward_.input(i)), layer.vectors) : plainSource(target.y);
    }
    sumPartials(context, pending, static_cast<int>(forward_.depth()));

    const Convolution& first = forward_.layer(0).convolution;
    const GradientSum sum{dy, streamAt(memory, dxOperand), first.inputElements() / first.c, first.c};
    const int64_t threads = sum.pixels * ceilDiv(sum.c, 4);
    const auto blocks = std::clamp<int64_t>((threads + kThreads - 1) / kThreads, ceilDiv(ceilDiv(sum.c, 4), kThreads), kMaxBlocks);
    launch(context.stream, addGradientKernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, sum);
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

size_t workspaceBytes(const ResidualForward& op, Precision precision) {
  Carver carver(nullptr);
  const ResidualForwardLayout layout(op, precision, carver);
  return carver.used();
}
void run(const ResidualForward& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ResidualForwardLayout at(op, context.precision, carver);
  Target target = sumTarget(context.memory, op.base, op.y, 1, op.outOfRange);
  target.statistics = context.memory.program.statisticsTarget(op.statistics, op.y);
  at.function.run(context, at.partials, op.computeStatistics, target);
}

size_t workspaceBytes(const ResidualBackward& op, Precision precision) {
  Carver carver(nullptr);
  const ResidualBackwardLayout layout(op, precision, carver);
  return carver.used();
}
void run(const ResidualBackward& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ResidualBackwardLayout at(op, context.precision, carver);
  at.function.run(context, at.scratch, op.dy, op.dx);
}

size_t workspaceBytes(const ReversibleForward& op, Precision precision) {
  Carver carver(nullptr);
  const ReversibleLayout layout(op, precision, carver);
  return carver.used();
}
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

size_t workspaceBytes(const ReversibleInverse& op, Precision precision) {
  Carver carver(nullptr);
  const ReversibleLayout layout(op, precision, carver);
  return carver.used();
}
// x2 = y2 - q(G(y1));  x1 = y1 - q(F(x2))
void run(const ReversibleInverse& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ReversibleLayout at(op, context.precision, carver);
  at.g.run(context, at.partials, false, sumTarget(context.memory, op.stream2, op.stream2, -1));
  at.f.run(context, at.partials, false, sumTarget(context.memory, op.stream1, op.stream1, -1));
}

size_t workspaceBytes(const ReversibleBackward& op, Precision precision) {
  Carver carver(nullptr);
  const ReversibleBackwardLayout layout(op, precision, carver);
  return carver.used();
}
// Algorithm 1: x2 = y2 - q(G(y1)), dy1 += (dG/dy1)^T dy2;  x1 = y1 - q(F(x2)), dx2 = dy2 + (dF/dx2)^T dy1;  dx1 = dy1.
void run(const ReversibleBackward& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ReversibleBackwardLayout at(op, context.precision, carver);
  at.g.reconstruct(context, at.scratch, op.stream2);
  at.g.run(context, at.scratch, op.gradient2, op.gradient1);
  at.f.reconstruct(context, at.scratch, op.stream1);
  at.f.run(context, at.scratch, op.gradient1, op.gradient2);
}

}  // namespace revnet::cuda

// The backward pass of a residual function, two launches of which each does two things beside each other: blocks of the one take
// the multiprocessors that those of the other leave, and what both read is in the L2 cache the second time.
//   backwardLayerKernel   a layer: backward data, masked (convolution_block.cuh), and the weights' gradient
//   (weights_gradient_block.cuh) endBackwardKernel     all layers: the sums of the weights' gradients; the input's stream: dx +=
//   the gradient through the first norm
//
// Bytes of the addition: 4 of dz, dx and x read and 4 written an element.
#include "cuda/convolution_block.cuh"
#include "cuda/run.h"
#include "cuda/weights_gradient_block.cuh"

namespace revnet::cuda {
namespace {

constexpr int kMostBlocks = 2048;  // that add
constexpr int kLoadsAtOnce = 2;    // of each of three tensors, for each thread

struct LayerPass {
  ConvolutionPass data;
  WeightsPass weights;
};

struct EndPass {
  Sums sums;
  GradientSum gradient;
  int adding;  // blocks

  constexpr int allBlocks() const { return sums.allBlocks() + adding; }
};

struct EndAndConvolutionPass {
  EndPass end;
  ConvolutionPass convolution;
};

#if REVNET_KERNEL_CODE

// Which of two passes a block belongs to, and which of its blocks it is. They take turns: blocks that run at the same time then
// have the same pixels, which one of them finds in the L2 cache.
struct Turn {
  bool first;
  int index;

  __device__ Turn(int ofFirst, int ofSecond) {
    const int block = static_cast<int>(blockIdx.x), pairs = min(ofFirst, ofSecond);
    first = block < 2 * pairs ? block % 2 == 0 : ofFirst > pairs;
    index = block < 2 * pairs ? block / 2 : block - pairs;
  }
};

template <class Math, int kColumnWarps, bool kAhead>
__global__ void __launch_bounds__(kConvolutionThreads, kAhead ? 2 : 1) backwardLayerKernel(const __grid_constant__ LayerPass pass) {
  const Turn turn(pass.data.allBlocks(), pass.weights.allBlocks());
  if (turn.first)
    convolveTiles<Math, kColumnWarps, Writing::Mask, kAhead>(pass.data, turn.index);
  else
    sumWeightsGradient<Math>(pass.weights, turn.index);
}

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

// dx += source, element by element. `index`: which block, of `blocks`.
__device__ inline void addGradients(const GradientSum& sum, int index, int blocks) {
  const int groups = ceilDiv(sum.c, 4);
  const int64_t thread = static_cast<int64_t>(index) * kConvolutionThreads + threadIdx.x;
  const int64_t each = static_cast<int64_t>(blocks) * kConvolutionThreads / groups;
  const int channel = static_cast<int>(thread % groups) * 4;
  if (thread / groups >= each) return;
  if (sum.dx.aligned && SourceReader<true>::isWhole(sum.source, sum.c))
    addGradients<true>(sum, channel, thread / groups, each);
  else
    addGradients<false>(sum, channel, thread / groups, each);
}

// `index`: which block, of end.allBlocks().
__device__ inline void endFunction(const EndPass& end, int index) {
  waitForPrevious();
  const int summing = end.sums.allBlocks();
  if (index < summing)
    sumSplits(end.sums, index);
  else
    addGradients(end.gradient, index - summing, end.adding);
}

__global__ void __launch_bounds__(kConvolutionThreads) endBackwardKernel(const __grid_constant__ EndPass end) {
  endFunction(end, static_cast<int>(blockIdx.x));
}

template <class Math, int kColumnWarps, bool kAhead>
__global__ void __launch_bounds__(kConvolutionThreads, kAhead ? 2 : 1)
    endAndConvolveKernel(const __grid_constant__ EndAndConvolutionPass pass) {
  const Turn turn(pass.convolution.allBlocks(), pass.end.allBlocks());
  if (turn.first)
    convolveTiles<Math, kColumnWarps, Writing::Add, kAhead>(pass.convolution, turn.index);
  else
    endFunction(pass.end, turn.index);
}

#endif

EndPass endPass(const BackwardEnd& end) {
  const int64_t groups = ceilDiv(end.gradient.c, 4), threads = end.gradient.pixels * groups;
  const auto blocksFor = [](int64_t items) { return (items + kConvolutionThreads - 1) / kConvolutionThreads; };
  return {pendingSums(end.sums, end.count), end.gradient,
          static_cast<int>(std::clamp<int64_t>(blocksFor(threads), blocksFor(groups), kMostBlocks))};
}

}  // namespace

void backwardLayer(const Context& context, const ConvolutionPlan& data, const std::byte* weights, const Target& target,
                   const PartialSums& partials, const WeightsGradientPlan& weightsGradient, const Source& x, const Source& dy,
                   float* gradient, float* weightPartials) {
  const LayerPass pass{convolutionPass(context, data, dy, weights, target, partials),
                       weightsPass(weightsGradient, x, dy, gradient, weightPartials)};
  const auto blocks = static_cast<unsigned>(pass.data.allBlocks() + pass.weights.allBlocks());
  const size_t sharedBytes = std::max(data.sharedBytes, weightsGradient.sharedBytes);
  withMath(context.precision, [&](auto math) {
    withShape(data, [&](auto columnWarps, auto ahead) {
      launch(context.stream, backwardLayerKernel<decltype(math), decltype(columnWarps)::value, decltype(ahead)::value>,
             dim3(blocks), kConvolutionThreads, sharedBytes, pass);
    });
  });
}

void endBackward(const Context& context, const BackwardEnd& end) {
  const EndPass pass = endPass(end);
  launch(context.stream, endBackwardKernel, dim3(static_cast<unsigned>(pass.allBlocks())), kConvolutionThreads, kSumBytes, pass);
}

void endBackwardAndConvolve(const Context& context, const BackwardEnd& end, const ConvolutionPlan& plan, const Source& source,
                            const std::byte* weights, const Target& target, const PartialSums& partials) {
  const EndAndConvolutionPass pass{endPass(end), convolutionPass(context, plan, source, weights, target, partials)};
  const auto blocks = static_cast<unsigned>(pass.end.allBlocks() + pass.convolution.allBlocks());
  withMath(context.precision, [&](auto math) {
    withShape(plan, [&](auto columnWarps, auto ahead) {
      launch(context.stream, endAndConvolveKernel<decltype(math), decltype(columnWarps)::value, decltype(ahead)::value>,
             dim3(blocks), kConvolutionThreads, std::max(plan.sharedBytes, kSumBytes), pass);
    });
  });
}

}  // namespace revnet::cuda

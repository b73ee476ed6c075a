// The backward pass of a residual function: launches that each do two things beside each other, so that blocks of the one take
// the multiprocessors that those of the other leave.
//
//   backwardLayerKernel    of a layer: backward data, masked, and the weights' gradient
//   endBackwardKernel      of all layers: the sums of the weights' gradients; and dx += the gradient through the first norm
//   endAndConvolveKernel   the same, and the first convolution of the function that is recomputed next
//
// Bytes of the addition: 4 of dz, dx and x read and 4 written an element; 2 of dz and dx, where they are bfloat16.
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
  ConvolutionPass convolution;
  EndPass end;
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

// dx += source, for four channels from `channel` on, and pixels `first` and every each-th after it. kWhole: four channels at once,
// and the others say which tensors are narrow: x and dz, as SourceReader has them, and dx (kNarrowSum); without, they say which may
// be.
template <bool kWhole, bool kNarrow, bool kNarrowDz, bool kNarrowSum>
__device__ void addGradients(const GradientSum& sum, int channel, int64_t first, int64_t each) {
  using Reader = SourceReader<true, kWhole, kNarrow, kNarrowDz>;
  const Reader reader(sum.source, channel, sum.c, 0);
  const int count = sum.c - channel;
  const bool narrow = kNarrowSum && (kWhole || sum.dx.narrow);
  auto* const words = static_cast<uint32_t*>(sum.dx.data) + channel;
  auto* const halves = static_cast<uint16_t*>(sum.dx.data) + channel;
  for (int64_t pixel = first; pixel < sum.pixels; pixel += kLoadsAtOnce * each) {
    typename Reader::Raw raw[kLoadsAtOnce];
    RawFour<kWhole && kNarrowSum> dx[kLoadsAtOnce];
#pragma unroll
    for (int i = 0; i < kLoadsAtOnce; ++i) {
      const int64_t at = (pixel + i * each) * sum.c;
      const bool exists = pixel + i * each < sum.pixels;
      raw[i] = reader.load(exists, at);
      if constexpr (kWhole && kNarrowSum)
        dx[i] = loadFourHalvesWhere(exists, halves, at);
      else if constexpr (kWhole)
        dx[i] = loadFourWhere(exists, words, at);
      else
        dx[i] = narrow ? loadUpToFour(exists, halves, at, count) : loadUpToFour(exists, words, at, count);
    }
    float v[kLoadsAtOnce][4];
    reader.convert(raw, v);
#pragma unroll
    for (int i = 0; i < kLoadsAtOnce; ++i) {
      if (pixel + i * each >= sum.pixels) break;
      const int64_t at = (pixel + i * each) * sum.c;
#pragma unroll
      for (int j = 0; j < 4; ++j) v[i][j] += asFloat(wordOf(dx[i], j));
      if (narrow)
        storeFour(halves + at, roundFour(v[i]), count, kWhole);
      else
        storeFour(reinterpret_cast<float*>(words) + at, v[i], count, kWhole);
    }
  }
}

// dx += source, element by element. `index`: which block, of `blocks`. kNarrow: dz is narrow, and dx may be. kAnySource: with code
// of its own for a source that is dz itself, as where the first layer has no norm; without, that one is read one by one.
template <bool kNarrow, bool kAnySource>
__device__ void addGradients(const GradientSum& sum, int index, int blocks) {
  const int groups = ceilDiv(sum.c, 4);
  const int64_t thread = static_cast<int64_t>(index) * kConvolutionThreads + threadIdx.x;
  const int64_t each = static_cast<int64_t>(blocks) * kConvolutionThreads / groups;
  const int channel = static_cast<int>(thread % groups) * 4;
  const int64_t first = thread / groups;
  if (first >= each) return;
  const bool plain = sum.source.x.narrow;
  if (sum.c % 4 != 0 || !sum.dx.aligned || !sum.source.x.aligned || (plain && !kAnySource))
    return addGradients<false, kNarrow, kNarrow, kNarrow>(sum, channel, first, each);
  if constexpr (kNarrow && kAnySource) {
    if (plain && sum.dx.narrow) return addGradients<true, true, true, true>(sum, channel, first, each);
    if (plain) return addGradients<true, true, true, false>(sum, channel, first, each);
  }
  if constexpr (kNarrow) {
    if (sum.dx.narrow) return addGradients<true, false, true, true>(sum, channel, first, each);
  }
  addGradients<true, false, kNarrow, false>(sum, channel, first, each);
}

// `index`: which block, of end.allBlocks().
template <bool kNarrow, bool kAnySource>
__device__ void endFunction(const EndPass& end, int index) {
  waitForPrevious();
  const int summing = end.sums.allBlocks();
  if (index < summing)
    sumSplits(end.sums, index);
  else
    addGradients<kNarrow, kAnySource>(end.gradient, index - summing, end.adding);
}

template <bool kNarrow>
__global__ void __launch_bounds__(kConvolutionThreads) endBackwardKernel(const __grid_constant__ EndPass end) {
  endFunction<kNarrow, true>(end, static_cast<int>(blockIdx.x));
}

template <class Math, int kColumnWarps, bool kAhead>
__global__ void __launch_bounds__(kConvolutionThreads, kAhead ? 2 : 1)
    endAndConvolveKernel(const __grid_constant__ EndAndConvolutionPass pass) {
  const Turn turn(pass.convolution.allBlocks(), pass.end.allBlocks());
  if (turn.first)
    convolveTiles<Math, kColumnWarps, Writing::Add, kAhead, false>(pass.convolution, turn.index);
  else
    endFunction<Math::kNarrowTensors, false>(pass.end, turn.index);
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
  const auto kernel = hiddenBytes(context.precision) == 2 ? endBackwardKernel<true> : endBackwardKernel<false>;
  launch(context.stream, kernel, dim3(static_cast<unsigned>(pass.allBlocks())), kConvolutionThreads, kSumBytes, pass);
}

void endBackwardAndConvolve(const Context& context, const BackwardEnd& end, const ConvolutionPlan& plan, const Source& source,
                            const std::byte* weights, const Target& target, const PartialSums& partials) {
  const EndAndConvolutionPass pass{convolutionPass(context, plan, source, weights, target, partials), endPass(end)};
  const auto blocks = static_cast<unsigned>(pass.end.allBlocks() + pass.convolution.allBlocks());
  withMath(context.precision, [&](auto math) {
    withShape(plan, [&](auto columnWarps, auto ahead) {
      launch(context.stream, endAndConvolveKernel<decltype(math), decltype(columnWarps)::value, decltype(ahead)::value>,
             dim3(blocks), kConvolutionThreads, std::max(plan.sharedBytes, kSumBytes), pass);
    });
  });
}

}  // namespace revnet::cuda

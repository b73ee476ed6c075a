// The gradient of a convolution's weights: how a pass is laid out, and its kernels, where it is an op of its own. In residual
// functions it is part of a layer's backward pass (backward.cu).
#include "cuda/run.h"
#include "cuda/weights_gradient_block.cuh"

namespace revnet::cuda {
namespace {

constexpr int kBlocksEach = 2;  // of a multiprocessor
constexpr size_t kSharedBytes = 64 << 10;
constexpr int kMostShares = 32;

#if REVNET_KERNEL_CODE

template <class Math>
__global__ void __launch_bounds__(kConvolutionThreads, kBlocksEach)
    weightsGradientKernel(const __grid_constant__ WeightsPass pass) {
  sumWeightsGradient<Math>(pass, static_cast<int>(blockIdx.x));
}

__global__ void __launch_bounds__(kConvolutionThreads) sumPartialsKernel(const __grid_constant__ Sums sums) {
  waitForPrevious();
  sumSplits(sums, static_cast<int>(blockIdx.x));
}

#endif

constexpr int powerFrom(int value) {
  int power = 1;
  while (power < value) power *= 2;
  return power;
}

// Of a block's Work, and the pixels behind it.
size_t workBytes(const Gather& gather) {
  return sizeof(Work) + static_cast<size_t>(gather.patchPixels() + gather.tile.pixels()) * sizeof(BoxPixel);
}

// How a block's share of taps and channels is laid out, for the widths of the plan.
void layRows(WeightsGradientPlan& plan) {
  const int taps = plan.convolution.taps(), most = kTileRows * (kConvolutionWarps / (plan.columns / kTileEdge));
  const int groups = ceilDiv(taps, std::max(1, most / (plan.chunk / kTileEdge)));
  plan.tapsPerBlock = ceilDiv(taps, groups);
  plan.rowGroups = powerFrom(ceilDiv(plan.chunk / kTileEdge * plan.tapsPerBlock, kTileRows));
}

template <class Math>
WeightsGradientPlan planPass(const Convolution& shape, int blocks) {
  const Convolution conv = flattened(shape);
  int pixels = kMostPixels;
  WeightsGradientPlan plan{conv, forwardGather(conv, pixels), 16, 16, 0, 0, 1, 0};
  // The widest blocks that eight warps have registers for: the wider, the fewer times x and dy are read.
  const int widest = conv.kernel == 1 ? 128 : conv.kernel == 3 ? 32 : 16;
  plan.chunk = std::min(widest, powerFrom(std::max(conv.c, kTileEdge)));
  int fewest = 0;
  for (int columns = kTileEdge; columns <= std::min(64, powerFrom(std::max(conv.k, kTileEdge))); columns *= 2) {
    WeightsGradientPlan wider = plan;
    wider.columns = columns;
    layRows(wider);
    if (fewest == 0 || wider.parts() < fewest) plan = wider, fewest = wider.parts();
  }
  const auto sharedBytes = [&] {
    const auto tile = static_cast<size_t>(plan.gather.patchPixels()) * static_cast<size_t>(columnPitch<Math>(plan.chunk)) +
                      static_cast<size_t>(pixels) * static_cast<size_t>(columnPitch<Math>(plan.columns));
    const int units = plan.rowGroups * (plan.columns / kTileEdge);
    return std::max(tile, static_cast<size_t>(kConvolutionWarps - units) * kUnitBytes) + workBytes(plan.gather);
  };
  const auto narrow = [&] {
    int& wider = plan.columns >= plan.chunk ? plan.columns : plan.chunk;
    if (wider == kTileEdge) return false;
    wider /= 2;
    layRows(plan);
    return true;
  };
  const auto shorten = [&] {
    if (pixels == 64) return false;
    pixels /= 2;
    plan.gather = forwardGather(conv, pixels);
    return true;
  };
  while (sharedBytes() > kSharedBytes && (shorten() || narrow())) continue;
  // Where there are too few of them for all multiprocessors, blocks become narrower, then tiles shorter: more splits would cost
  // more than reading x and dy again.
  while (2 * plan.gather.tiles() * plan.parts() <= blocks && (narrow() || shorten())) continue;
  plan.sharedBytes = sharedBytes();
  plan.splits = std::clamp(blocks / plan.parts(), 1, plan.gather.tiles());
  return plan;
}

}  // namespace

WeightsGradientPlan planBackwardWeights(const Convolution& conv, Precision precision, int blocks) {
  return withMath(precision, [&](auto math) { return planPass<decltype(math)>(conv, blocks); });
}

WeightsPass weightsPass(const WeightsGradientPlan& plan, const Source& x, const Source& dy, float* gradient, float* partials) {
  return {plan.gather,
          patchBox(plan.gather),
          tileBox(plan.gather, 0, 0),
          plan.convolution,
          x,
          dy,
          plan.chunk,
          plan.columns,
          plan.tapsPerBlock,
          plan.rowGroups,
          static_cast<int>(plan.sharedBytes - workBytes(plan.gather)),
          plan.splits > 1 ? partials : gradient,
          plan.splits > 1 ? partialStride(plan.elements()) : 0,
          plan.splits,
          plan.parts()};
}

Sums pendingSums(const PendingSum* sums, int count) {
  Sums pending{};
  for (int i = 0; i < count; ++i) {
    if (sums[i].splits <= 1) continue;
    const int shares = std::min(kMostShares, powerFrom(ceilDiv(sums[i].splits, kSumLoads)));
    pending.list[pending.count++] = {sums[i], shares};
    const int64_t elements = 4 * kConvolutionThreads / shares;  // of a block
    pending.blocks = std::max(pending.blocks, static_cast<int>((sums[i].elements + elements - 1) / elements));
  }
  return pending;
}

void convolveBackwardWeights(const Context& context, const WeightsGradientPlan& plan, const Source& x, const Source& dy,
                             float* gradient, float* partials) {
  const WeightsPass pass = weightsPass(plan, x, dy, gradient, partials);
  withMath(context.precision, [&](auto math) {
    launch(context.stream, weightsGradientKernel<decltype(math)>, dim3(static_cast<unsigned>(pass.allBlocks())),
           kConvolutionThreads, plan.sharedBytes, pass);
  });
}

// ---- Op ------------------------------------------------------------------------------------------------------------------------

namespace {

struct BackwardWeightsLayout {
  WeightsGradientPlan plan;
  float* partials;

  BackwardWeightsLayout(const ConvolutionBackwardWeights& op, Precision precision, Carver& carver)
      : plan(planBackwardWeights(op.convolution, precision)), partials(carver.take<float>(plan.partialFloats())) {}
};

}  // namespace

size_t workspaceBytes(const ConvolutionBackwardWeights& op, Precision precision) {
  return carvedBytes<BackwardWeightsLayout>(op, precision);
}
void run(const ConvolutionBackwardWeights& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const BackwardWeightsLayout at(op, context.precision, carver);
  auto* const gradient = context.at<float>(op.weightGradient);
  convolveBackwardWeights(context, at.plan, normSource(streamAt(context.memory, op.x), context.memory.program.norm(op.norm, op.x)),
                          plainSource(streamAt(context.memory, op.dy)), gradient, at.partials);
  const PendingSum sum{at.partials, gradient, at.plan.splits, at.plan.elements()};
  const Sums sums = pendingSums(&sum, 1);
  if (sums.count > 0)
    launch(context.stream, sumPartialsKernel, dim3(static_cast<unsigned>(sums.allBlocks())), kConvolutionThreads, kSumBytes, sums);
}

}  // namespace revnet::cuda

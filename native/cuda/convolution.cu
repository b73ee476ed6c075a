// Convolution: how its passes are laid out, and the kernel of those that add (Writing::Add). Those that mask are part of a layer's
// backward pass (backward.cu).
#include "cuda/convolution_block.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

constexpr int kThreads = kConvolutionThreads;
constexpr size_t kPatchBytes = 40 << 10;
// Of a block, on the GPUs that have least: of compute capability 8.6 and, in float32, which runs there, 7.5.
template <class Math>
constexpr size_t kSharedBytes = Math::kTensorCores ? 99 << 10 : 64 << 10;
constexpr size_t kStreamedBytes = 64 << 10;  // so that more than one block has room where weights come and go
constexpr int kChunkBytes = 128;

#if REVNET_KERNEL_CODE

template <class Math, int kColumnWarps, bool kAhead>
__global__ void __launch_bounds__(kThreads, kAhead ? 2 : 1) convolveKernel(const __grid_constant__ ConvolutionPass pass) {
  convolveTiles<Math, kColumnWarps, Writing::Add, kAhead>(pass, static_cast<int>(blockIdx.x));
}

#endif

// ---- Host ----------------------------------------------------------------------------------------------------------------------

// Of BoxPixels.
size_t pixelBytes(const Gather& gather) {
  return static_cast<size_t>(gather.patchPixels() + gather.tile.pixels()) * sizeof(BoxPixel);
}

// `layTiles` of a pass's gather for so many pixels.
template <class Math, class GatherFor>
ConvolutionPlan planPass(const Convolution& conv, bool transposed, int blocks, const GatherFor& gatherFor) {
  const auto planFor = [&](BlockShape shape) {
    ConvolutionPlan plan{};
    plan.shape = shape;
    plan.ahead = true;
    plan.gather = gatherFor(shape.pixels());
    plan.layout = {conv.kernel,     plan.gather.sourceChannels,        plan.gather.outputChannels,
                   shape.columns(), kChunkBytes / Math::kElementBytes, transposed};
    return plan;
  };
  // Channels side by side as far as there are any, unless a wide kernel takes more shared memory than there is, for its weights or
  // for the pixels that it sees around those of a tile.
  const int outputs = transposed ? conv.c : conv.k;
  const auto hasRoom = [](const ConvolutionPlan& plan) {
    const int patch = plan.gather.patchPixels() * rowPitch<Math>(Math::kStep);
    return pixelBytes(plan.gather) + static_cast<size_t>(patch + (plan.ahead ? 2 : 1) * plan.layout.kernel *
                                                                     slabBytes<Math>(Math::kStep, plan.layout.columns)) <=
           kSharedBytes<Math>;
  };
  ConvolutionPlan plan = planFor({outputs <= 16 ? 1 : outputs <= 32 ? 2 : 4});
  for (const int columnWarps : {4, 2, 1})
    if (!hasRoom(plan)) plan = planFor({columnWarps});
  if (!hasRoom(plan)) {
    plan = planFor({4});
    plan.ahead = false;
  }

  WeightLayout& layout = plan.layout;
  const auto patchBytes = [&] {
    return static_cast<size_t>(plan.gather.patchPixels()) * static_cast<size_t>(rowPitch<Math>(layout.chunk));
  };
  while (layout.chunk > Math::kStep && (layout.chunk / 2 >= layout.inputs || patchBytes() > kPatchBytes)) layout.chunk /= 2;
  const auto rowBytes = [&] { return static_cast<size_t>(slabBytes<Math>(layout.chunk, layout.columns) * layout.kernel); };
  const auto withPixels = [&](size_t bytes) { return bytes + pixelBytes(plan.gather); };
  const auto residentBytes = [&] {
    return withPixels(patchBytes() + rowBytes() * static_cast<size_t>(layout.chunks() * layout.kernel));
  };
  const auto streamedBytes = [&](int rows) { return withPixels(patchBytes() + rowBytes() * static_cast<size_t>(rows)); };
  plan.resident = residentBytes() <= kSharedBytes<Math>;
  const int buffers = plan.ahead ? 2 : 1;
  while (!plan.resident && layout.chunk > Math::kStep && streamedBytes(buffers) > kSharedBytes<Math>) layout.chunk /= 2;
  plan.rowsAtOnce = layout.kernel;
  while (!plan.resident && plan.rowsAtOnce > 1 && streamedBytes(buffers * plan.rowsAtOnce) > kStreamedBytes) --plan.rowsAtOnce;
  const size_t reading = plan.resident ? residentBytes() : streamedBytes(buffers * plan.rowsAtOnce);
  const size_t summing = sizeof(float4) * (1 + kThreads);  // ChannelSums::leave takes no more
  plan.pixelsAt = static_cast<int>(reading - pixelBytes(plan.gather));
  plan.sharedBytes = std::max(reading, summing);
  plan.blocks = std::clamp(blocks / (layout.columnTiles() * plan.gather.phases * plan.gather.phases), 1, plan.gather.tiles());
  return plan;
}

}  // namespace

ConvolutionPlan planForward(const Convolution& conv, Precision precision, int blocks) {
  return withMath(precision, [&](auto math) {
    return planPass<decltype(math)>(conv, false, blocks, [&](int pixels) { return forwardGather(conv, pixels); });
  });
}
ConvolutionPlan planBackwardData(const Convolution& conv, Precision precision, int blocks) {
  return withMath(precision, [&](auto math) {
    return planPass<decltype(math)>(conv, true, blocks, [&](int pixels) { return backwardGather(conv, pixels); });
  });
}

void convolve(const Context& context, const ConvolutionPlan& plan, const Source& source, const std::byte* weights,
              const Target& target, const PartialSums& partials) {
  const ConvolutionPass pass = convolutionPass(context, plan, source, weights, target, partials);
  withMath(context.precision, [&](auto math) {
    withShape(plan, [&](auto columnWarps, auto ahead) {
      launch(context.stream, convolveKernel<decltype(math), decltype(columnWarps)::value, decltype(ahead)::value>,
             dim3(static_cast<unsigned>(pass.allBlocks())), kThreads, plan.sharedBytes, pass);
    });
  });
}

// ---- Ops -----------------------------------------------------------------------------------------------------------------------

namespace {

struct ForwardLayout {
  ConvolutionPlan plan;
  PartialSums partials;

  ForwardLayout(const ConvolutionForward& op, Precision precision, Carver& carver) : plan(planForward(op.convolution, precision)) {
    PartialSums::Extent extent;
    extent.cover(plan);
    partials = extent.carve(carver);
  }
};

}  // namespace

size_t workspaceBytes(const ConvolutionForward& op, Precision precision) { return carvedBytes<ForwardLayout>(op, precision); }
void run(const ConvolutionForward& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ForwardLayout at(op, context.precision, carver);
  const PreparedProgram& prepared = context.memory.program;
  Target target;
  target.y = streamAt(context.memory, op.y);
  target.outOfRange = context.at<int>(op.outOfRange);
  target.statistics = prepared.statisticsTarget(op.statistics, op.y);
  convolve(context, at.plan, normSource(streamAt(context.memory, op.x), prepared.norm(op.norm, op.x)),
           prepared.weights(op.weight, at.plan.layout), target, at.partials);
}

void run(const ConvolutionBackwardData& op, const Context& context) {
  const ConvolutionPlan plan = planBackwardData(op.convolution, context.precision);
  Target target;
  target.y = streamAt(context.memory, op.dx);
  convolve(context, plan, plainSource(streamAt(context.memory, op.dy)), context.memory.program.weights(op.weight, plan.layout),
           target, {});
}

}  // namespace revnet::cuda

// The convolution kernel, forward and backward data.
//
// A block computes tiles of 128 pixels x kColumns (16, 32 or 64) output channels with 4 warps, each 32 pixels:
//   for each chunk of at most 32 input channels
//     the patch of source pixels that the tile sees, normalised and rounded, into shared memory (once for all taps)
//     for each tap: 32 pixels x kColumns += shifted rows of the patch x a slab of weights, which cp.async brings in two ahead
//   the sums through shared memory, so that whole rows of channels are written
// It overlaps reading and multiplying across the blocks of a multiprocessor, not within one.
//
// Bytes of a pass, in device memory: 4 n h w c x (patch pixels / tile pixels: 1.4 for 3x3 on 8x16) read (most of the overlap hits
// in L2), 4 n outH outW k written (Add: + 4 to 8 read; Mask: + 4 read); NormGradient reads 8 in place of 4.
// Flops: 2 n outH outW k c taps. Launch: min(tiles, 512) x column tiles x phases blocks of 128 threads.
#include "cuda/convolution.cuh"
#include "cuda/epilogue.cuh"
#include "cuda/prepare.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

constexpr int kThreads = kConvolutionThreads;
constexpr int kTilePixels = 128;
constexpr int kStages = 3;       // slabs of weights in shared memory
constexpr int kMaxBlocks = 512;  // whose partial sums one block can add up in a few microseconds
constexpr int kFewBlocks = 96;   // below this many blocks, narrower column tiles fill more multiprocessors
constexpr size_t kPatchBytes = 40 << 10;

struct Pass {
  Gather gather;
  WeightLayout layout;
  Source source;
  Target target;
  const std::byte* weights;
  PartialSums partials;
  unsigned* counters;
};

template <class Math>
constexpr int slabPitch(int chunk, int columns) {
  return Math::kTensorCores ? rowPitch<Math>(chunk) : columns * 4;
}
template <class Math>
constexpr int slabBytes(int chunk, int columns) {
  return slabPitch<Math>(chunk, columns) * (Math::kTensorCores ? columns : chunk);
}
// Of the output tile in shared memory, in floats: rows of pixels in different banks.
constexpr int outputPitch(int columns) { return columns + 8; }

#if REVNET_KERNEL_CODE

// Brings one slab of weights into shared memory.
template <class Math, int kColumns>
__device__ void copySlab(std::byte* to, const std::byte* from, int chunk) {
  const int rowBytes = Math::kTensorCores ? chunk * Math::kElementBytes : kColumns * 4;
  const int pieces = rowBytes / 16, rows = Math::kTensorCores ? kColumns : chunk;
  const int pitch = slabPitch<Math>(chunk, kColumns);
  for (int i = static_cast<int>(threadIdx.x); i < rows * pieces; i += kThreads)
    copyAsync16(to + i / pieces * pitch + i % pieces * 16, from + i * 16);
}

template <class Math, int kColumns>
__global__ void __launch_bounds__(kThreads, Math::kTensorCores ? 3 : 2) convolveKernel(const __grid_constant__ Pass pass) {
  waitForPrevious();
  const Gather& gather = pass.gather;
  const WeightLayout& layout = pass.layout;
  const int thread = static_cast<int>(threadIdx.x), chunk = layout.chunk;
  const Axis &rows = gather.rows[blockIdx.z / 2], &columns = gather.columns[blockIdx.z % 2];
  const int phase = static_cast<int>(gather.phases == 1 ? 0 : blockIdx.z);
  const int firstChannel = static_cast<int>(blockIdx.y) * kColumns;

  std::byte* const patch = sharedMemory();
  const int patchPitch = rowPitch<Math>(chunk);
  std::byte* const slabs = patch + gather.patchPixels() * patchPitch;
  auto* const output = reinterpret_cast<float*>(patch);  // once the patch and the slabs have been read

  PixelTile<Math, kColumns> tile(
      [&](int pixel) { return TilePixel(gather.tile, pixel).patchIndex(gather, rows, columns) * patchPitch; });
  ChannelSums sums;
  int left = 0;

  const int taps = rows.taps * columns.taps, chunks = layout.chunks(), steps = chunks * taps;
  const size_t slabSize = static_cast<size_t>(kColumns) * static_cast<size_t>(chunk * Math::kElementBytes);
  const std::byte* const weights =
      pass.weights + slabSize * static_cast<size_t>(chunks) * static_cast<size_t>(layout.taps()) * blockIdx.y;
  // Slab `step` of this phase goes to stage step % kStages. One group a step, even an empty one, so that they can be counted.
  const auto prefetch = [&](int step) {
    if (step < steps) {
      const int tap = step % taps, row = tap / columns.taps, column = tap % columns.taps;
      const int at = (rows.firstTap + row * rows.tapStep) * layout.kernel + columns.firstTap + column * columns.tapStep;
      copySlab<Math, kColumns>(slabs + step % kStages * slabBytes<Math>(chunk, kColumns),
                               weights + slabSize * static_cast<size_t>(step / taps * layout.taps() + at), chunk);
    }
    copyAsyncCommit();
  };

  const int tiles = gather.tiles(), blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  const int lastTile = static_cast<int>(static_cast<int64_t>(tiles) * (block + 1) / blocks);
  for (int index = static_cast<int>(static_cast<int64_t>(tiles) * block / blocks); index < lastTile; ++index) {
    const TilePlace place(gather, index);
    tile.clear();
    for (int step = 0; step < kStages - 1; ++step) prefetch(step);
    for (int step = 0, at = 0; at < chunks; ++at) {
      const int used = (min(chunk, layout.inputs - at * chunk) + Math::kStep - 1) / Math::kStep * Math::kStep;
      if (at > 0) syncBlock();  // the patch has been read
      fillPatch<Math>(patch, patchPitch, gather, rows, columns, place, pass.source, at * chunk, chunk, used);
      for (int row = 0; row < rows.taps; ++row) {
        for (int column = 0; column < columns.taps; ++column, ++step) {
          copyAsyncWait<kStages - 2>();
          syncBlock();  // this step's slab is there for all, and the slab of the step before has been read
          prefetch(step + kStages - 1);
          tile.accumulate(patch + (row * gather.patchW + column) * patchPitch,
                          slabs + step % kStages * slabBytes<Math>(chunk, kColumns), slabPitch<Math>(chunk, kColumns), used);
        }
      }
    }
    copyAsyncWait<0>();
    syncBlock();
    tile.store(output, outputPitch(kColumns));
    syncBlock();

    constexpr int kGroups = kColumns / 4;
    const int own = thread % kGroups * 4, channel = firstChannel + own, count = layout.outputs - channel;
    const bool whole = layout.outputs % 4 == 0 && pass.target.y.aligned && (!pass.target.base || pass.target.base.aligned);
    for (int pixel = thread / kGroups; count > 0 && pixel < kTilePixels; pixel += kThreads / kGroups) {
      const TilePixel at(gather.tile, pixel);
      const int n = place.image + at.image, i = place.row + at.row, j = place.column + at.column;
      if (n >= gather.n || i >= rows.outputs || j >= columns.outputs) continue;
      const int y = i * rows.outStep + rows.outOffset, x = j * columns.outStep + columns.outOffset;
      const int64_t to = ((static_cast<int64_t>(n) * gather.outH + y) * gather.outW + x) * layout.outputs + channel;
      const float4 sum = *reinterpret_cast<const float4*>(output + pixel * outputPitch(kColumns) + own);
      float v[4] = {sum.x, sum.y, sum.z, sum.w};
      if (pass.target.writing == Writing::Mask) {
        float standard[4];
        maskFour(pass.target, to, channel, v, standard, count, whole);
        sums.addPairs(v, standard);
      } else {
        left += addFour(pass.target, to, v, count, whole);
        sums.addValues(v);
      }
    }
    syncBlock();  // the output has been read
  }

  if (left > 0 && pass.target.outOfRange != nullptr) atomicAddCount(pass.target.outOfRange, left);
  const bool mask = pass.target.writing == Writing::Mask;
  if (!mask && pass.target.statistics.statistics == nullptr) return;
  const int partialBlocks = blocks * static_cast<int>(gridDim.z);
  const ChannelPartials partials{pass.partials.sums, partialBlocks, layout.outputs};
  float* const counts = pass.partials.counts + static_cast<int>(blockIdx.y) * partialBlocks;
  sums.leave<kColumns>(!mask, output, partials, counts, phase * blocks + block, firstChannel);
  const float values = static_cast<float>(gather.n) * static_cast<float>(gather.outH) * static_cast<float>(gather.outW);
  if (isLastBlock(pass.counters + blockIdx.y, static_cast<unsigned>(partialBlocks), reinterpret_cast<unsigned*>(output)))
    finish(pass.target, partials, counts, values, firstChannel, min(firstChannel + kColumns, layout.outputs));
}

#endif

// ---- Host ----------------------------------------------------------------------------------------------------------------------

template <class Math>
ConvolutionPlan planPass(const Gather& gather, const Convolution& conv, bool transposed) {
  const int tiles = gather.tiles() * gather.phases * gather.phases;
  WeightLayout layout{conv.kernel, gather.sourceChannels, gather.outputChannels, 64, 32, transposed};
  while (layout.columns > 16 && (layout.columns / 2 >= layout.outputs || tiles * layout.columnTiles() < kFewBlocks))
    layout.columns /= 2;
  const auto patchBytes = [&] {
    return static_cast<size_t>(gather.patchPixels()) * static_cast<size_t>(rowPitch<Math>(layout.chunk));
  };
  while (layout.chunk > Math::kStep && (layout.chunk / 2 >= layout.inputs || patchBytes() > kPatchBytes)) layout.chunk /= 2;
  const size_t reading = patchBytes() + static_cast<size_t>(kStages * slabBytes<Math>(layout.chunk, layout.columns));
  const size_t writing = static_cast<size_t>(kTilePixels) * static_cast<size_t>(outputPitch(layout.columns)) * sizeof(float);
  const size_t summing = static_cast<size_t>(kThreads) * 9 * sizeof(float);
  return {gather, layout, std::min(gather.tiles(), kMaxBlocks), std::max({reading, writing, summing})};
}

}  // namespace

ConvolutionPlan planForward(const Convolution& conv, Precision precision) {
  return withMath(precision, [&](auto math) { return planPass<decltype(math)>(forwardGather(conv, kTilePixels), conv, false); });
}
ConvolutionPlan planBackwardData(const Convolution& conv, Precision precision) {
  return withMath(precision, [&](auto math) { return planPass<decltype(math)>(backwardGather(conv, kTilePixels), conv, true); });
}

void convolve(const Context& context, const ConvolutionPlan& plan, const Source& source, const std::byte* weights,
              const Target& target, const PartialSums& partials) {
  const Pass pass{plan.gather, plan.layout, source, target, weights, partials, context.counters};
  const dim3 grid(static_cast<unsigned>(plan.blocks), static_cast<unsigned>(plan.layout.columnTiles()),
                  static_cast<unsigned>(plan.gather.phases * plan.gather.phases));
  withMath(context.precision, [&](auto math) {
    using Math = decltype(math);
    const auto kernel = plan.layout.columns == 64   ? convolveKernel<Math, 64>
                        : plan.layout.columns == 32 ? convolveKernel<Math, 32>
                                                    : convolveKernel<Math, 16>;
    launch(context.stream, kernel, grid, kThreads, plan.sharedBytes, pass);
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

size_t workspaceBytes(const ConvolutionForward& op, Precision precision) {
  Carver carver(nullptr);
  const ForwardLayout layout(op, precision, carver);
  return carver.used();
}
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

// The convolution kernel, forward and backward data.
//
// A block computes tiles of 256 pixels x 16 output channels, 128 x 32 or 64 x 64 with 8 warps, each 32 pixels x 16 channels:
//   for each chunk of input channels (128 bytes of operands at most)
//     the patch of source pixels that the tile sees, normalised and rounded, into shared memory (once for all taps)
//     for each tap: shifted rows of the patch x a slab of weights, in shared memory: all slabs are there from the start where they
//     have room (narrow layers), else cp.async brings those of some rows of taps while those before are used
//   the sums go from registers to memory: a lane has four neighbouring channels (math.cuh)
// Reading and multiplying overlap across the blocks of a multiprocessor, not within one.
//
// Bytes of a pass, in device memory: 4 n h w c x (patch pixels / tile pixels: 1.3 for 3x3 on 8x32) read (most of the overlap hits
// in L2), 4 n outH outW k written (Add: + 4 read; Mask: + 4 read); NormGradient reads 8 in place of 4.
// Flops: 2 n outH outW k c taps. Launch: about 264 blocks of 256 threads at most, over tiles, column tiles and phases.
#include "cuda/convolution.cuh"
#include "cuda/epilogue.cuh"
#include "cuda/patch.cuh"
#include "cuda/prepare.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

constexpr int kThreads = kConvolutionThreads;
// Blocks that have room on the 132 multiprocessors of an H100 at once, two on each. Whatever the device: plans, and with them the
// order of sums, depend on the shape alone.
constexpr int kBlocks = 264;
constexpr int kPairs = 1;  // of 8 output channels, for each warp: more do not fit into registers beside what is being loaded
constexpr size_t kPatchBytes = 40 << 10;
// Of a block, on the GPUs that have least: of compute capability 8.6 and, in float32, which runs there, 7.5.
template <class Math>
constexpr size_t kSharedBytes = Math::kTensorCores ? 99 << 10 : 64 << 10;
constexpr size_t kStreamedBytes = 64 << 10;  // so that more than one block has room where weights come and go
constexpr int kChunkBytes = 128;

struct Pass {
  Gather gather;
  Box read, written[4];  // around a tile, and of it in each phase
  WeightLayout layout;
  Source source;
  Target target;
  const std::byte* weights;
  PartialSums partials;
  unsigned* counters;
  bool resident;
  int rowsAtOnce;
  int pixelsAt;  // bytes, in shared memory: BoxPixels of the patch and of the tile
};

template <class Math>
constexpr int slabPitch(int chunk, int columns) {
  return Math::kTensorCores ? rowPitch<Math>(chunk) : columns * 4;
}
template <class Math>
constexpr int slabBytes(int chunk, int columns) {
  return slabPitch<Math>(chunk, columns) * (Math::kTensorCores ? columns : chunk);
}

#if REVNET_KERNEL_CODE

// Brings `count` slabs of weights that follow one another into shared memory.
template <class Math, int kColumns>
__device__ void copySlabs(std::byte* to, const std::byte* from, int chunk, int count) {
  const int rowBytes = Math::kTensorCores ? chunk * Math::kElementBytes : kColumns * 4,
            rows = Math::kTensorCores ? kColumns : chunk;
  const int logPieces = logOf(rowBytes / 16), pitch = slabPitch<Math>(chunk, kColumns);
#pragma unroll 1
  for (int i = opaque(static_cast<int>(threadIdx.x)); i < (count * rows) << logPieces; i += kThreads)
    copyAsync16(to + (i >> logPieces) * pitch + (i & ((1 << logPieces) - 1)) * 16, from + i * 16);
}

// The part of a tile's product that is computed at a time: some rows of taps of one chunk of input channels.
struct Group {
  int chunk = 0, row = 0;

  __device__ void advance(int rowsAtOnce, int chunks, int rowTaps) {
    row += rowsAtOnce;
    if (row < rowTaps) return;
    row = 0;
    chunk = chunk + 1 < chunks ? chunk + 1 : 0;
  }
};

template <class Math, int kColumnWarps, Writing kWriting, bool kAhead>
__global__ void __launch_bounds__(kThreads, kAhead ? 2 : 1) convolveKernel(const __grid_constant__ Pass pass) {
  constexpr int kColumns = BlockShape{kColumnWarps}.columns();
  waitForPrevious();
  const Gather& gather = pass.gather;
  const WeightLayout& layout = pass.layout;
  const int chunk = layout.chunk, chunks = layout.chunks();
  const int phase = static_cast<int>(gather.phases == 1 ? 0 : blockIdx.z);
  const int firstColumn = static_cast<int>(blockIdx.y) * kColumns;

  std::byte* const patch = sharedMemory();
  const int patchPitch = rowPitch<Math>(chunk);
  std::byte* const slabs = patch + gather.patchPixels() * patchPitch;
  const int slabStep = slabBytes<Math>(chunk, kColumns), weightPitch = slabPitch<Math>(chunk, kColumns);
  const size_t slabSize = static_cast<size_t>(kColumns) * static_cast<size_t>(chunk * Math::kElementBytes);
  const std::byte* const weights =
      pass.weights + slabSize * static_cast<size_t>(chunks) * static_cast<size_t>(layout.taps()) * blockIdx.y;
  // Where the slab of a tap is among those of its column tile.
  const auto slabIndex = [&](const Axis& rows, const Axis& columns, int at, int row, int column) {
    return (at * layout.kernel + rows.firstTap + row * rows.tapStep) * layout.kernel + columns.firstTap + column * columns.tapStep;
  };
  // Weights that do not all have room: those of the next group come while this one is multiplied, if there is room for both.
  Group next;
  int half = 0;
  const auto copyNext = [&](const Axis& rows, const Axis& columns) {
    std::byte* to = slabs + (kAhead ? half : 0) * pass.rowsAtOnce * layout.kernel * slabStep;
    for (int row = next.row; row < min(next.row + pass.rowsAtOnce, rows.taps); ++row)
      for (int column = 0; column < columns.taps; ++column, to += slabStep)
        copySlabs<Math, kColumns>(to, weights + slabSize * static_cast<size_t>(slabIndex(rows, columns, next.chunk, row, column)),
                                  chunk, 1);
    copyAsyncCommit();
    next.advance(pass.rowsAtOnce, chunks, rows.taps);
    half ^= 1;
  };
  if (pass.resident) {
    copySlabs<Math, kColumns>(slabs, weights, chunk, chunks * layout.taps());
    copyAsyncCommit();
  } else if (kAhead) {
    copyNext(gather.rows[phase / 2], gather.columns[phase % 2]);
  }

  const Axis &rows = gather.rows[phase / 2], &columns = gather.columns[phase % 2];
  const Box &read = pass.read, &written = pass.written[phase];
  auto* const readPixels = reinterpret_cast<BoxPixel*>(sharedMemory() + pass.pixelsAt);
  const int filled = filledPixels(read.pixels(), kThreads / (chunk / 4));
  BoxPixel* const writtenPixels = readPixels + filled;
  layPixels(readPixels, read, filled);
  layPixels(writtenPixels, written, written.pixels());

  const WarpPlace<kColumnWarps> warp(static_cast<int>(threadIdx.x));
  PixelTile<Math, kPairs> tile([&](int pixel) {
    return TilePixel(gather.tile, kWarpPixels * warp.pixel + pixel).patchIndex(gather, rows, columns) * patchPitch;
  });
  const int ownSlab = warp.column * 16 * kPairs * (Math::kTensorCores ? weightPitch : 4);  // of this warp's columns
  const TapSteps patchSteps{gather.patchW * patchPitch, patchPitch};
  const TapSteps weightSteps = pass.resident ? TapSteps{rows.tapStep * layout.kernel * slabStep, columns.tapStep * slabStep}
                                             : TapSteps{columns.taps * slabStep, slabStep};
  const StreamPointer& before = kWriting == Writing::Mask ? pass.target.x : pass.target.base;
  const bool whole = layout.outputs % 4 == 0 && pass.target.y.aligned && (!before || before.aligned);
  const int thread = static_cast<int>(threadIdx.x), channel = firstColumn + warp.column * 16 * kPairs + ownChannel(thread, 0);
  const BoxPixel* const ownPixels = writtenPixels + kWarpPixels * warp.pixel + ownPixel(thread, 0);
  ChannelSums<kPairs, kWriting> sums;
  int left = 0;

  const int tiles = gather.tiles(), blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  const int firstTile = static_cast<int>(static_cast<int64_t>(tiles) * block / blocks);
  const int lastTile = static_cast<int>(static_cast<int64_t>(tiles) * (block + 1) / blocks);
  TilePlace place(gather, firstTile);
  syncBlock();  // pixels are laid
#pragma unroll 1
  for (int index = firstTile; index < lastTile; ++index, place.advance(gather)) {
    const OwnPixels pixels(ownPixels, Inside(written, place.image, place.row, place.column),
                           written.elements(place.image, place.row * rows.outStep + rows.outOffset,
                                            place.column * columns.outStep + columns.outOffset));
    OwnWords stored[kPairs];
    tile.clear();
#pragma unroll 1
    for (int at = 0; at < chunks; ++at) {
      const int used = (min(chunk, layout.inputs - at * chunk) + Math::kStep - 1) / Math::kStep * Math::kStep;
      int begin = 0;
      do {  // once even where a phase has no taps
        if (begin == 0) {
          const int top = place.row * rows.step + rows.origin, first = place.column * columns.step + columns.origin;
          syncBlock();  // the patch before has been read
          fillRows<Math>(Rows{patch, patchPitch, readPixels, read.pixels(), at * chunk, chunk, used}, pass.source, layout.inputs,
                         Inside(read, place.image, top, first), read.elements(place.image, top, first));
          // They arrive while the products are made.
#pragma unroll
          for (int pair = 0; pair < kPairs; ++pair)
            stored[pair].load(before, pixels, channel + 16 * pair, layout.outputs, whole, before && at == chunks - 1);
        }
        if (!pass.resident && !kAhead) {
          if (begin > 0) syncBlock();  // the weights before have been read
          copyNext(rows, columns);
        }
        copyAsyncWait<0>();
        syncBlock();
        const std::byte* slab = slabs + ownSlab;
        if (pass.resident)
          slab += slabIndex(rows, columns, at, begin, 0) * slabStep;
        else if (kAhead) {
          slab += (half ^ 1) * pass.rowsAtOnce * layout.kernel * slabStep;
          copyNext(rows, columns);
        }
        tile.accumulate(patch + begin * patchSteps.row, patchSteps, slab, weightSteps, weightPitch,
                        min(pass.rowsAtOnce, rows.taps - begin), columns.taps, used);
        begin += pass.rowsAtOnce;
      } while (begin < rows.taps);
    }
    if constexpr (kWriting == Writing::Mask)
      maskTile(pass.target, tile, pixels, stored, channel, layout.outputs, whole, sums);
    else
      left += addTile(pass.target, tile, pixels, stored, channel, layout.outputs, whole, sums);
  }
  copyAsyncWait<0>();  // of weights that no tile has waited for

  if (left > 0 && pass.target.outOfRange != nullptr) atomicAddCount(pass.target.outOfRange, left);
  if (kWriting == Writing::Add && pass.target.statistics.statistics == nullptr) return;
  const int partialBlocks = blocks * static_cast<int>(gridDim.z);
  const ChannelPartials partials{pass.partials.sums, partialBlocks, layout.outputs};
  float* const counts = pass.partials.counts + static_cast<int>(blockIdx.y) * partialBlocks;
  auto* const word = reinterpret_cast<unsigned*>(sharedMemory());
  auto* const totals = reinterpret_cast<float4*>(sharedMemory()) + 1;  // past the word
  syncBlock();                                                         // the patch has been read
  sums.template leave<kColumnWarps>(reinterpret_cast<float*>(totals), partials, counts, phase * blocks + block, firstColumn,
                                    pass.target.y.step());
  const float values = static_cast<float>(gather.n) * static_cast<float>(gather.outH) * static_cast<float>(gather.outW);
  if (isLastBlock(pass.counters + blockIdx.y, static_cast<unsigned>(partialBlocks), word))
    finish<kWriting>(pass.target, partials, counts, values, firstColumn, min(firstColumn + kColumns, layout.outputs), totals);
}

#endif

// ---- Host ----------------------------------------------------------------------------------------------------------------------

// Of BoxPixels.
size_t pixelBytes(const Gather& gather, int chunk) {
  return static_cast<size_t>(filledPixels(gather.patchPixels(), kThreads / (chunk / 4)) + gather.tile.pixels()) * sizeof(BoxPixel);
}

// `layTiles` of a pass's gather for so many pixels.
template <class Math, class GatherFor>
ConvolutionPlan planPass(const Convolution& conv, bool transposed, const GatherFor& gatherFor) {
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
    return pixelBytes(plan.gather, Math::kStep) +
               static_cast<size_t>(patch +
                                   (plan.ahead ? 2 : 1) * plan.layout.kernel * slabBytes<Math>(Math::kStep, plan.layout.columns)) <=
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
  const auto withPixels = [&](size_t bytes) { return bytes + pixelBytes(plan.gather, layout.chunk); };
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
  plan.pixelsAt = static_cast<int>(reading - pixelBytes(plan.gather, layout.chunk));
  plan.sharedBytes = std::max(reading, summing);
  // As many tiles for each block.
  const int tiles = plan.gather.tiles(), beside = layout.columnTiles() * plan.gather.phases * plan.gather.phases;
  plan.blocks = ceilDiv(tiles, ceilDiv(tiles, std::max(1, kBlocks / beside)));
  return plan;
}

}  // namespace

ConvolutionPlan planForward(const Convolution& conv, Precision precision) {
  return withMath(precision, [&](auto math) {
    return planPass<decltype(math)>(conv, false, [&](int pixels) { return forwardGather(conv, pixels); });
  });
}
ConvolutionPlan planBackwardData(const Convolution& conv, Precision precision) {
  return withMath(precision, [&](auto math) {
    return planPass<decltype(math)>(conv, true, [&](int pixels) { return backwardGather(conv, pixels); });
  });
}

void convolve(const Context& context, const ConvolutionPlan& plan, const Source& source, const std::byte* weights,
              const Target& target, const PartialSums& partials) {
  Pass pass{plan.gather,   patchBox(plan.gather), {},           plan.layout, source, target, weights, partials, context.counters,
            plan.resident, plan.rowsAtOnce,       plan.pixelsAt};
  for (int phase = 0; phase < plan.gather.phases * plan.gather.phases; ++phase)
    pass.written[phase] = tileBox(plan.gather, phase / 2, phase % 2);
  const dim3 grid(static_cast<unsigned>(plan.blocks), static_cast<unsigned>(plan.layout.columnTiles()),
                  static_cast<unsigned>(plan.gather.phases * plan.gather.phases));
  withMath(context.precision, [&](auto math) {
    using Math = decltype(math);
    const auto run = [&](auto columnWarps, auto ahead) {
      constexpr int kColumnWarps = decltype(columnWarps)::value;
      constexpr bool kAhead = decltype(ahead)::value;
      const auto kernel = target.writing == Writing::Mask ? convolveKernel<Math, kColumnWarps, Writing::Mask, kAhead>
                                                          : convolveKernel<Math, kColumnWarps, Writing::Add, kAhead>;
      launch(context.stream, kernel, grid, kThreads, plan.sharedBytes, pass);
    };
    if (!plan.ahead) return run(std::integral_constant<int, 4>{}, std::false_type{});
    if (plan.shape.columnWarps == 1) return run(std::integral_constant<int, 1>{}, std::true_type{});
    if (plan.shape.columnWarps == 2) return run(std::integral_constant<int, 2>{}, std::true_type{});
    run(std::integral_constant<int, 4>{}, std::true_type{});
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

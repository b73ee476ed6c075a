// What a block of a convolution does, forward and backward data.
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
// in L2), 4 n outH outW k written (Add: + 4 read; Mask: + 4 read); NormGradient reads 8 in place of 4. In bfloat16 2 in place of 4
// for hidden tensors, what is masked, and gradients of streams. Flops: 2 n outH outW k c taps. Launch: at most kBlocks blocks of
// 256 threads, over tiles, column tiles and phases.
#pragma once

#include "cuda/convolution.cuh"
#include "cuda/epilogue.cuh"
#include "cuda/patch.cuh"
#include "cuda/prepare.cuh"

namespace revnet::cuda {

constexpr int kPairs = 1;  // of 8 output channels, for each warp: more do not fit into registers beside what is being loaded

// A pass, as a kernel gets it.
struct ConvolutionPass {
  Gather gather;
  Box read, written[4];  // around a tile, and of it in each phase
  WeightLayout layout;
  Source source;
  Target target;
  const std::byte* weights;
  PartialSums partials;
  unsigned* counters;
  bool weightsAreReady;  // see Context
  bool resident;
  int rowsAtOnce;
  int pixelsAt;  // bytes, in shared memory: BoxPixels of the patch and of the tile
  int blocks;    // that share the tiles of a column tile and phase

  constexpr int phases() const { return gather.phases * gather.phases; }
  constexpr int allBlocks() const { return blocks * layout.columnTiles() * phases(); }
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
  for (int i = opaque(static_cast<int>(threadIdx.x)); i < (count * rows) << logPieces; i += kConvolutionThreads)
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

// What one block does: its share of the tiles, of one column tile, in one phase. `index`: which block, of pass.allBlocks(). Waits
// for the launch before once it has done what depends on the shape alone.
// kSums: see addTile.
template <class Math, int kColumnWarps, Writing kWriting, bool kAhead, bool kSums = true>
__device__ void convolveTiles(const ConvolutionPass& pass, int index) {
  constexpr int kColumns = BlockShape{kColumnWarps}.columns();
  constexpr bool kNarrow = Math::kNarrowTensors;
  const int blocks = pass.blocks, block = index % blocks, columnTile = index / blocks % pass.layout.columnTiles();
  const Gather& gather = pass.gather;
  const WeightLayout& layout = pass.layout;
  const int chunk = layout.chunk, chunks = layout.chunks();
  const int phase = gather.phases == 1 ? 0 : index / blocks / layout.columnTiles();
  const int firstColumn = columnTile * kColumns;

  const Axis &rows = gather.rows[phase / 2], &columns = gather.columns[phase % 2];
  const Box &read = pass.read, &written = pass.written[phase];
  auto* const readPixels = reinterpret_cast<BoxPixel*>(sharedMemory() + pass.pixelsAt);
  BoxPixel* const writtenPixels = readPixels + read.pixels();
  layPixels(readPixels, read);
  layPixels(writtenPixels, written);

  std::byte* const patch = sharedMemory();
  const int patchPitch = rowPitch<Math>(chunk);
  std::byte* const slabs = patch + gather.patchPixels() * patchPitch;
  const int slabStep = slabBytes<Math>(chunk, kColumns), weightPitch = slabPitch<Math>(chunk, kColumns);
  const size_t slabSize = static_cast<size_t>(kColumns) * static_cast<size_t>(chunk * Math::kElementBytes);
  const std::byte* const weights =
      pass.weights + slabSize * static_cast<size_t>(chunks) * static_cast<size_t>(layout.taps() * columnTile);
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

  const int tiles = gather.tiles();
  const int firstTile = static_cast<int>(static_cast<int64_t>(tiles) * block / blocks);
  const int lastTile = static_cast<int>(static_cast<int64_t>(tiles) * (block + 1) / blocks);
  TilePlace place(gather, firstTile);
  if (!pass.weightsAreReady) waitForPrevious();
  if (pass.resident) {
    copySlabs<Math, kColumns>(slabs, weights, chunk, chunks * layout.taps());
    copyAsyncCommit();
  } else if (kAhead) {
    copyNext(gather.rows[phase / 2], gather.columns[phase % 2]);
  }
  waitForPrevious();
  syncBlock();  // pixels are laid
#pragma unroll 1
  for (int at = firstTile; at < lastTile; ++at, place.advance(gather)) {
    const OwnPixels pixels(ownPixels, Inside(written, place.image, place.row, place.column),
                           written.elements(place.image, place.row * rows.outStep + rows.outOffset,
                                            place.column * columns.outStep + columns.outOffset));
    OwnWords<kNarrow && kWriting == Writing::Mask> stored[kPairs];
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
      maskTile<kNarrow>(pass.target, tile, pixels, stored, channel, layout.outputs, whole, sums);
    else
      left += addTile<kNarrow, kSums>(pass.target, tile, pixels, stored, channel, layout.outputs, whole, sums);
  }
  copyAsyncWait<0>();  // of weights that no tile has waited for
  if constexpr (!kSums) return;

  if (left > 0 && pass.target.outOfRange != nullptr) atomicAddCount(pass.target.outOfRange, left);
  if (kWriting == Writing::Add && pass.target.statistics.statistics == nullptr) return;
  const int partialBlocks = blocks * pass.phases();
  const ChannelPartials partials{pass.partials.sums, partialBlocks, layout.outputs};
  float* const counts = pass.partials.counts + columnTile * partialBlocks;
  auto* const word = reinterpret_cast<unsigned*>(sharedMemory());
  auto* const totals = reinterpret_cast<float4*>(sharedMemory()) + 1;  // past the word
  syncBlock();                                                         // the patch has been read
  sums.template leave<kColumnWarps>(reinterpret_cast<float*>(totals), partials, counts, phase * blocks + block, firstColumn,
                                    pass.target.y.step());
  const float values = static_cast<float>(gather.n) * static_cast<float>(gather.outH) * static_cast<float>(gather.outW);
  if (isLastBlock(pass.counters + columnTile, static_cast<unsigned>(partialBlocks), word))
    finish<kWriting>(pass.target, partials, counts, values, firstColumn, min(firstColumn + kColumns, layout.outputs), totals);
}

#endif

// Calls body(columnWarps, ahead), constants, for a plan's.
template <class Body>
void withShape(const ConvolutionPlan& plan, const Body& body) {
  if (!plan.ahead) return body(std::integral_constant<int, 4>{}, std::false_type{});
  if (plan.shape.columnWarps == 1) return body(std::integral_constant<int, 1>{}, std::true_type{});
  if (plan.shape.columnWarps == 2) return body(std::integral_constant<int, 2>{}, std::true_type{});
  body(std::integral_constant<int, 4>{}, std::true_type{});
}

inline ConvolutionPass convolutionPass(const Context& context, const ConvolutionPlan& plan, const Source& source,
                                       const std::byte* weights, const Target& target, const PartialSums& partials) {
  ConvolutionPass pass{plan.gather,
                       patchBox(plan.gather),
                       {},
                       plan.layout,
                       source,
                       target,
                       weights,
                       partials,
                       context.counters,
                       context.weightsAreReady,
                       plan.resident,
                       plan.rowsAtOnce,
                       plan.pixelsAt,
                       plan.blocks};
  for (int phase = 0; phase < pass.phases(); ++phase) pass.written[phase] = tileBox(plan.gather, phase / 2, phase % 2);
  return pass;
}

}  // namespace revnet::cuda

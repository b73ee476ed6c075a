// The gradient of a convolution's weights, as a matrix product that sums over pixels: rows are (tap, input channel), columns
// output channels. A block owns some taps, `chunk` input channels and `columns` output channels, and sums over a fixed share of the
// pixels ("split"); sumSplits then adds the splits in order, so no result depends on which block comes first.
//
// For each tile of up to 256 pixels of dy, the patch of x that it sees and dy itself go to shared memory, both read through their
// norms. A unit of work is up to five tiles of 16 x 16 channels at their taps; where there are fewer units than warps, groups of
// warps share the tile's pixels, and their sums are added at the end. Two blocks of a multiprocessor take turns: the loads of one
// are under way while the other multiplies.
//
// Bytes, in device memory: 4 n h w c x column tiles + 4 n outH outW k x chunks x tap groups read (NormGradient: 8 in place of 4;
// half of that for hidden tensors and gradients in bfloat16), most of the repetitions and the borders of patches (a third of a tile
// of 8 x 32 pixels) from the L2 cache; 4 taps c k x splits written and read again. Flops: 2 n outH outW k c taps. In shared memory,
// bfloat16: 6 ldmatrix for 10 products of 16 x 16 x 8. Launch: splits x (tap groups x chunks x column tiles) blocks of 256 threads,
// at most kBlocks; the sums: 256 threads for each 1024 / shares elements.
#pragma once

#include "cuda/convolution.cuh"
#include "cuda/patch.cuh"
#include "cuda/prepare.cuh"

namespace revnet::cuda {

constexpr int kTileRows = 5;   // tiles of a unit: WeightTilesBase::kMost
constexpr int kTileEdge = 16;  // and their channels
constexpr int kUnitBytes = kTileRows * kTileEdge * kTileEdge * 4;
constexpr int kMostPixels = 256;  // of a tile
constexpr int kSumLoads = 8;      // of a thread, at a time
constexpr size_t kSumBytes =
    4 * kConvolutionThreads * 2 * sizeof(float);  // shared memory of a block that sums: a CompensatedSum each

// A pass, as a kernel gets it.
struct WeightsPass {
  Gather gather;
  Box patch, tile;
  Convolution convolution;
  Source x, dy;
  int chunk, columns, tapsPerBlock, rowGroups;
  int workAt;           // bytes, in shared memory: Work, then BoxPixels of the patch and of dy's tile
  float* to;            // [splits][taps][c][k] overwritten
  int64_t splitStride;  // elements from one split to the next; 0: there is one
  int splits, parts;

  constexpr int allBlocks() const { return splits * parts; }
};

struct Sum {
  PendingSum sum;
  int shares;  // of the splits, in different threads; a power of two
};
struct Sums {
  Sum list[kMaxPendingSums];
  int count, blocks;  // of each

  constexpr int allBlocks() const { return count * blocks; }
};

// What a warp multiplies.
struct Unit {
  int places[kTileRows];  // in the patch, in bytes
  int taps[kTileRows], channels[kTileRows];
  int used;    // tiles
  int column;  // the first, of the block's
  int firstPixel, pixelStep;
};

// What a block does with each tile, worked out once, in shared memory: registers are needed for sums, and loads that are under way.
struct Work {
  int firstInput, inputs, firstOutput;  // channels
  Unit units[kConvolutionWarps];
  int places[kMostPixels / WeightTilesBase::kPixels];  // in the patch, in bytes, of every kPixels pixels of a tile
};

#if REVNET_KERNEL_CODE

template <class Math>
__device__ void layWork(Work& work, const WeightsPass& pass, int part) {
  const Gather& gather = pass.gather;
  const Convolution& conv = pass.convolution;
  const Axis &rows = gather.rows[0], &columns = gather.columns[0];
  const int chunks = ceilDiv(conv.c, pass.chunk), columnTiles = ceilDiv(conv.k, pass.columns);
  const int firstK = part % columnTiles * pass.columns, firstC = part / columnTiles % chunks * pass.chunk;
  const int firstTap = part / columnTiles / chunks * pass.tapsPerBlock;
  const int taps = min(pass.tapsPerBlock, conv.taps() - firstTap);
  const int channels = min(pass.chunk, ceilDiv(conv.c - firstC, kTileEdge) * kTileEdge);
  const int patchPitch = columnPitch<Math>(pass.chunk);
  if (threadIdx.x == 0) work.firstInput = firstC, work.inputs = channels, work.firstOutput = firstK;
  const int step = static_cast<int>(threadIdx.x), pixel = step * WeightTilesBase::kPixels;
  if (pixel < gather.tile.pixels())
    work.places[step] = TilePixel(gather.tile, pixel).patchIndex(gather, rows, columns) * patchPitch;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  if (lane < kTileRows) {
    const int units = pass.rowGroups * (pass.columns / kTileEdge);
    const int all = channels / kTileEdge * taps, rowGroup = warp % units % pass.rowGroups, first = all * rowGroup / pass.rowGroups;
    const int tap = firstTap + (first + lane) % taps, channel = (first + lane) / taps * kTileEdge;
    Unit& unit = work.units[warp];
    unit.places[lane] =
        (tap / conv.kernel * gather.patchW + tap % conv.kernel) * patchPitch + channel * static_cast<int>(Math::kElementBytes);
    unit.taps[lane] = tap, unit.channels[lane] = firstC + channel;
    if (lane == 0) {
      unit.used = all * (rowGroup + 1) / pass.rowGroups - first;
      unit.column = warp % units / pass.rowGroups * kTileEdge;
      unit.firstPixel = warp / units * WeightTilesBase::kPixels;
      unit.pixelStep = kConvolutionWarps / units * WeightTilesBase::kPixels;
    }
  }
}

// What one block does: its split of the pixels, for its part of the gradient. `index`: which block, of pass.allBlocks(). Waits for
// the launch before once it has done what depends on the shape alone.
template <class Math>
__device__ void sumWeightsGradient(const WeightsPass& pass, int index) {
  // The parts of a split follow one another: they read the same pixels.
  const int splits = pass.splits, split = index / pass.parts;
  using Tiles = WeightTiles<Math>;
  static_assert(Tiles::kMost == kTileRows && Tiles::kEdge == kTileEdge && Tiles::kFloats * 4 == kUnitBytes);
  const Gather& gather = pass.gather;
  const Axis &rows = gather.rows[0], &columns = gather.columns[0];
  auto& work = *reinterpret_cast<Work*>(sharedMemory() + pass.workAt);
  layWork<Math>(work, pass, index % pass.parts);
  const Box &patch = pass.patch, &tile = pass.tile;
  auto* const patchPixels = reinterpret_cast<BoxPixel*>(sharedMemory() + pass.workAt + sizeof(Work));
  BoxPixel* const tilePixels = patchPixels + patch.pixels();
  layPixels(patchPixels, patch);
  layPixels(tilePixels, tile);
  const int patchPitch = columnPitch<Math>(pass.chunk), dyPitch = columnPitch<Math>(pass.columns);
  std::byte* const dyRows = sharedMemory() + patch.pixels() * patchPitch;
  syncBlock();
  const Unit& unit = work.units[threadIdx.x / kWarp];

  Tiles sums;
  sums.clear();
  const int tiles = gather.tiles();
  const int firstTile = static_cast<int>(static_cast<int64_t>(tiles) * split / splits);
  const int lastTile = static_cast<int>(static_cast<int64_t>(tiles) * (split + 1) / splits);
  TilePlace place(gather, firstTile);
  waitForPrevious();
#pragma unroll 1
  for (int at = firstTile; at < lastTile; ++at, place.advance(gather)) {
    const int top = place.row * rows.step + rows.origin, left = place.column * columns.step + columns.origin;
    fillRows<Math, false>(Rows{sharedMemory(), patchPitch, patchPixels, patch.pixels(), work.firstInput, pass.chunk, work.inputs},
                          pass.x, pass.convolution.c, Inside(patch, place.image, top, left),
                          patch.elements(place.image, top, left));
    fillRows<Math>(Rows{dyRows, dyPitch, tilePixels, tile.pixels(), work.firstOutput, pass.columns, pass.columns}, pass.dy,
                   pass.convolution.k, Inside(tile, place.image, place.row, place.column),
                   tile.elements(place.image, place.row, place.column));
    syncBlock();
    const std::byte* const dy = dyRows + unit.column * Math::kElementBytes;
    const int eighth = TilePixel(gather.tile, 8).patchIndex(gather, rows, columns) * patchPitch;
    const typename Tiles::Lane lane(columns.step * patchPitch, eighth, dyPitch);
    Tiles::withUsed(unit.used, [&](auto used) {
      int places[used];
#pragma unroll
      for (int i = 0; i < used; ++i) places[i] = unit.places[i];
#pragma unroll 1
      for (int pixel = unit.firstPixel; pixel < gather.tile.pixels(); pixel += unit.pixelStep)
        sums.accumulate(lane, sharedMemory() + work.places[pixel / Tiles::kPixels], places, dy + pixel * dyPitch);
    });
    syncBlock();
  }

  // The first group of warps adds the sums of the others to its own.
  const int warp = static_cast<int>(threadIdx.x) / kWarp, units = kConvolutionWarps / (unit.pixelStep / Tiles::kPixels);
  auto* const others = reinterpret_cast<float*>(sharedMemory()) + (warp % units - units) * Tiles::kFloats;
  if (warp >= units) sums.store(others + warp / units * units * Tiles::kFloats);
  syncBlock();
  if (warp >= units) return;
  for (int other = units; other < kConvolutionWarps; other += units) sums.addFrom(others + other * Tiles::kFloats);
  const int c = pass.convolution.c, k = pass.convolution.k;
  float* const to = pass.to + split * pass.splitStride;
#pragma unroll
  for (int i = 0; i < Tiles::kMost; ++i) {
    if (i >= unit.used) break;
    sums.forEach(i, [&](int input, int output, float sum) {
      const int channel = unit.channels[i] + input, column = work.firstOutput + unit.column + output;
      if (channel < c && column < k) to[(static_cast<int64_t>(unit.taps[i]) * c + channel) * k + column] = sum;
    });
  }
}

// A thread adds its share of the splits (every shares-th) for four elements; then one adds the shares of an element, in order.
// `index`: which block, of sums.allBlocks().
__device__ inline void sumSplits(const Sums& sums, int index) {
  const PendingSum& sum = sums.list[index / sums.blocks].sum;
  const int shares = sums.list[index / sums.blocks].shares, fours = kConvolutionThreads / shares,
            thread = static_cast<int>(threadIdx.x);
  const int64_t stride = partialStride(sum.elements), firstElement = int64_t{4} * fours * (index % sums.blocks);
  if (firstElement >= sum.elements) return;

  const int share = thread / fours, four = thread % fours;
  CompensatedSum totals[4];
  if (firstElement + 4 * four < sum.elements) {
    const float* from = sum.partials + firstElement + 4 * four + share * stride;
    for (int split = share; split < sum.splits; split += kSumLoads * shares, from += kSumLoads * shares * stride) {
      float4 loaded[kSumLoads];
#pragma unroll
      for (int i = 0; i < kSumLoads; ++i)
        if (split + i * shares < sum.splits) loaded[i] = *reinterpret_cast<const float4*>(from + i * shares * stride);
#pragma unroll
      for (int i = 0; i < kSumLoads; ++i) {
        if (split + i * shares >= sum.splits) break;
        totals[0].add(loaded[i].x), totals[1].add(loaded[i].y), totals[2].add(loaded[i].z), totals[3].add(loaded[i].w);
      }
    }
  }
  auto* const shared = reinterpret_cast<CompensatedSum*>(sharedMemory());  // [shares][4 fours]
#pragma unroll
  for (int i = 0; i < 4; ++i) shared[4 * thread + i] = totals[i];
  syncBlock();
  for (int element = thread; element < 4 * fours && firstElement + element < sum.elements; element += kConvolutionThreads) {
    CompensatedSum total = shared[element];
    for (int i = 1; i < shares; ++i) total.add(shared[i * 4 * fours + element]);
    sum.gradient[firstElement + element] = total.value();
  }
}

#endif

WeightsPass weightsPass(const WeightsGradientPlan& plan, const Source& x, const Source& dy, float* gradient, float* partials);
// Those of one split are left out: their gradients are written already.
Sums pendingSums(const PendingSum* sums, int count);

}  // namespace revnet::cuda

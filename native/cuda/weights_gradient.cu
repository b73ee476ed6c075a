// The gradient of a convolution's weights, as a matrix product that sums over pixels: rows are (tap, input channel), columns
// output channels. A block owns some taps, `chunk` input channels and `columns` output channels, and sums over a fixed share of the
// pixels ("split"); sumPartials then adds the splits in order, so no result depends on which block comes first.
//
// For each tile of up to 256 pixels of dy, the patch of x that it sees and dy itself go to shared memory, both read through their
// norms. A unit of work is up to five tiles of 16 x 16 channels at their taps; where there are fewer units than warps, groups of
// warps share the tile's pixels, and their sums are added at the end. Two blocks of a multiprocessor take turns: the loads of one
// are under way while the other multiplies.
//
// Bytes, in device memory: 4 n h w c x column tiles + 4 n outH outW k x chunks x tap groups read (NormGradient: 8 in place of 4),
// most of the repetitions and the borders of patches (a third of a tile of 8 x 32 pixels) from the L2 cache; 4 taps c k x splits
// written and read again. Flops: 2 n outH outW k c taps. In shared memory, bfloat16: 6 ldmatrix for 10 products of 16 x 16 x 8.
// Launch: splits x (tap groups x chunks x column tiles) blocks of 256 threads, at most 264 where there is work for as many; the
// sums: 256 threads for each 1024 / shares elements.
#include "cuda/convolution.cuh"
#include "cuda/patch.cuh"
#include "cuda/prepare.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kBlocksEach = 2;              // of a multiprocessor
constexpr int kBlocks = 132 * kBlocksEach;  // in all; the same on every device, as the order of sums depends on it
constexpr int kTileRows = 5;                // tiles of a unit: WeightTilesBase::kMost
constexpr int kTileEdge = 16;               // and their channels
constexpr int kUnitBytes = kTileRows * kTileEdge * kTileEdge * 4;
constexpr size_t kSharedBytes = 64 << 10;
constexpr int kMostPixels = 256;  // of a tile
constexpr int kSumThreads = 256;
constexpr int kSumLoads = 8;  // of a thread, at a time
constexpr int kMostShares = 32;

struct Pass {
  Gather gather;
  Box patch, tile;
  Convolution convolution;
  Source x, dy;
  int chunk, columns, tapsPerBlock, rowGroups;
  int workAt;           // bytes, in shared memory: Work, then BoxPixels of the patch and of dy's tile
  float* to;            // [splits][taps][c][k] overwritten
  int64_t splitStride;  // elements from one split to the next; 0: there is one
};

struct Sum {
  PendingSum sum;
  int shares;  // of the splits, in different threads; a power of two
};
struct Sums {
  Sum list[kMaxPendingSums];
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
  Unit units[kWarps];
  int places[kMostPixels / WeightTilesBase::kPixels];  // in the patch, in bytes, of every kPixels pixels of a tile
};

#if REVNET_KERNEL_CODE

template <class Math>
__device__ void layWork(Work& work, const Pass& pass) {
  const Gather& gather = pass.gather;
  const Convolution& conv = pass.convolution;
  const Axis &rows = gather.rows[0], &columns = gather.columns[0];
  const int chunks = ceilDiv(conv.c, pass.chunk), columnTiles = ceilDiv(conv.k, pass.columns), part = static_cast<int>(blockIdx.y);
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
      unit.pixelStep = kWarps / units * WeightTilesBase::kPixels;
    }
  }
}

template <class Math>
__global__ void __launch_bounds__(kThreads, kBlocksEach) weightsGradientKernel(const __grid_constant__ Pass pass) {
  waitForPrevious();
  using Tiles = WeightTiles<Math>;
  static_assert(Tiles::kMost == kTileRows && Tiles::kEdge == kTileEdge && Tiles::kFloats * 4 == kUnitBytes);
  const Gather& gather = pass.gather;
  const Axis &rows = gather.rows[0], &columns = gather.columns[0];
  auto& work = *reinterpret_cast<Work*>(sharedMemory() + pass.workAt);
  layWork<Math>(work, pass);
  const Box &patch = pass.patch, &tile = pass.tile;
  auto* const patchPixels = reinterpret_cast<BoxPixel*>(sharedMemory() + pass.workAt + sizeof(Work));
  const int patchFilled = filledPixels(patch.pixels(), kThreads / (pass.chunk / 4));
  BoxPixel* const tilePixels = patchPixels + patchFilled;
  layPixels(patchPixels, patch, patchFilled);
  layPixels(tilePixels, tile, filledPixels(tile.pixels(), kThreads / (pass.columns / 4)));
  const int patchPitch = columnPitch<Math>(pass.chunk), dyPitch = columnPitch<Math>(pass.columns);
  std::byte* const dyRows = sharedMemory() + patch.pixels() * patchPitch;
  syncBlock();
  const Unit& unit = work.units[threadIdx.x / kWarp];

  Tiles sums;
  sums.clear();
  const int tiles = gather.tiles(), splits = static_cast<int>(gridDim.x), split = static_cast<int>(blockIdx.x);
  const int firstTile = static_cast<int>(static_cast<int64_t>(tiles) * split / splits);
  const int lastTile = static_cast<int>(static_cast<int64_t>(tiles) * (split + 1) / splits);
  TilePlace place(gather, firstTile);
#pragma unroll 1
  for (int index = firstTile; index < lastTile; ++index, place.advance(gather)) {
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
    const typename Tiles::Lane at(columns.step * patchPitch, eighth, dyPitch);
    Tiles::withUsed(unit.used, [&](auto used) {
      int places[used];
#pragma unroll
      for (int i = 0; i < used; ++i) places[i] = unit.places[i];
#pragma unroll 1
      for (int pixel = unit.firstPixel; pixel < gather.tile.pixels(); pixel += unit.pixelStep)
        sums.accumulate(at, sharedMemory() + work.places[pixel / Tiles::kPixels], places, dy + pixel * dyPitch);
    });
    syncBlock();
  }

  // The first group of warps adds the sums of the others to its own.
  const int warp = static_cast<int>(threadIdx.x) / kWarp, units = kWarps / (unit.pixelStep / Tiles::kPixels);
  auto* const others = reinterpret_cast<float*>(sharedMemory()) + (warp % units - units) * Tiles::kFloats;
  if (warp >= units) sums.store(others + warp / units * units * Tiles::kFloats);
  syncBlock();
  if (warp >= units) return;
  for (int other = units; other < kWarps; other += units) sums.addFrom(others + other * Tiles::kFloats);
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
__global__ void __launch_bounds__(kSumThreads) sumPartialsKernel(const __grid_constant__ Sums sums) {
  waitForPrevious();
  const PendingSum& sum = sums.list[blockIdx.y].sum;
  const int shares = sums.list[blockIdx.y].shares, fours = kSumThreads / shares, thread = static_cast<int>(threadIdx.x);
  const int64_t stride = partialStride(sum.elements), firstElement = int64_t{4} * fours * blockIdx.x;
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
  for (int element = thread; element < 4 * fours && firstElement + element < sum.elements; element += kSumThreads) {
    CompensatedSum total = shared[element];
    for (int i = 1; i < shares; ++i) total.add(shared[i * 4 * fours + element]);
    sum.gradient[firstElement + element] = total.value();
  }
}

#endif

constexpr int powerFrom(int value) {
  int power = 1;
  while (power < value) power *= 2;
  return power;
}

// Of a block's Work, and the pixels behind it.
size_t workBytes(const WeightsGradientPlan& plan) {
  const int pixels = filledPixels(plan.gather.patchPixels(), kThreads / (plan.chunk / 4)) +
                     filledPixels(plan.gather.tile.pixels(), kThreads / (plan.columns / 4));
  return sizeof(Work) + static_cast<size_t>(pixels) * sizeof(BoxPixel);
}

// How a block's share of taps and channels is laid out, for the widths of the plan.
void layRows(WeightsGradientPlan& plan) {
  const int taps = plan.convolution.taps(), most = kTileRows * (kWarps / (plan.columns / kTileEdge));
  const int groups = ceilDiv(taps, std::max(1, most / (plan.chunk / kTileEdge)));
  plan.tapsPerBlock = ceilDiv(taps, groups);
  plan.rowGroups = powerFrom(ceilDiv(plan.chunk / kTileEdge * plan.tapsPerBlock, kTileRows));
}

template <class Math>
WeightsGradientPlan planPass(const Convolution& shape) {
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
    return std::max(tile, static_cast<size_t>(kWarps - units) * kUnitBytes) + workBytes(plan);
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
  while (2 * plan.gather.tiles() * plan.parts() <= kBlocks && (narrow() || shorten())) continue;
  plan.sharedBytes = sharedBytes();
  const int64_t tiles = plan.gather.tiles(), tilesPerBlock = (tiles * plan.parts() + kBlocks - 1) / kBlocks;
  plan.splits = static_cast<int>((tiles + tilesPerBlock - 1) / tilesPerBlock);
  return plan;
}

}  // namespace

WeightsGradientPlan planBackwardWeights(const Convolution& conv, Precision precision) {
  return withMath(precision, [&](auto math) { return planPass<decltype(math)>(conv); });
}

void convolveBackwardWeights(const Context& context, const WeightsGradientPlan& plan, const Source& x, const Source& dy,
                             float* gradient, float* partials) {
  const Pass pass{plan.gather,
                  patchBox(plan.gather),
                  tileBox(plan.gather, 0, 0),
                  plan.convolution,
                  x,
                  dy,
                  plan.chunk,
                  plan.columns,
                  plan.tapsPerBlock,
                  plan.rowGroups,
                  static_cast<int>(plan.sharedBytes - workBytes(plan)),
                  plan.splits > 1 ? partials : gradient,
                  plan.splits > 1 ? partialStride(plan.elements()) : 0};
  const dim3 grid(static_cast<unsigned>(plan.splits), static_cast<unsigned>(plan.parts()));
  withMath(context.precision, [&](auto math) {
    launch(context.stream, weightsGradientKernel<decltype(math)>, grid, kThreads, plan.sharedBytes, pass);
  });
}

void sumPartials(const Context& context, const PendingSum* sums, int count) {
  Sums pending{};
  int used = 0;
  int64_t blocks = 0;
  for (int i = 0; i < count; ++i) {
    if (sums[i].splits <= 1) continue;
    const int shares = std::min(kMostShares, powerFrom(ceilDiv(sums[i].splits, kSumLoads)));
    pending.list[used++] = {sums[i], shares};
    const int64_t elements = 4 * kSumThreads / shares;  // of a block
    blocks = std::max(blocks, (sums[i].elements + elements - 1) / elements);
  }
  if (used == 0) return;
  constexpr size_t kScratch = 4 * kSumThreads * 2 * sizeof(float);  // a CompensatedSum each
  launch(context.stream, sumPartialsKernel, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(used)), kSumThreads, kScratch,
         pending);
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
  Carver carver(nullptr);
  const BackwardWeightsLayout layout(op, precision, carver);
  return carver.used();
}
void run(const ConvolutionBackwardWeights& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const BackwardWeightsLayout at(op, context.precision, carver);
  auto* const gradient = context.at<float>(op.weightGradient);
  convolveBackwardWeights(context, at.plan, normSource(streamAt(context.memory, op.x), context.memory.program.norm(op.norm, op.x)),
                          plainSource(streamAt(context.memory, op.dy)), gradient, at.partials);
  const PendingSum sum{at.partials, gradient, at.plan.splits, at.plan.elements()};
  sumPartials(context, &sum, 1);
}

}  // namespace revnet::cuda

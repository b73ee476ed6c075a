// The gradient of a convolution's weights, as a matrix product that sums over pixels: rows are (tap, input channel), columns
// output channels. A block owns some taps, `chunk` input channels and `columns` output channels, and sums over a fixed share of the
// pixels ("split"); sumPartials then adds the splits in order, so no result depends on which block comes first.
//
// For each tile of 64 pixels of dy, the patch of x that it sees and dy itself go to shared memory, both read through their norms;
// each of 9 warps multiplies up to four items of 16 input channels x kItemColumns output channels at one tap. With 3x3 taps, 32
// input and 64 output channels those are 36 items.
//
// Bytes, in device memory: 4 n h w c x (patch / tile: 1.6 for 3x3) x column tiles + 4 n outH outW k x chunks x tap groups read
// (NormGradient: 8 in place of 4), 4 taps c k x splits written and read again. Flops: 2 n outH outW k c taps. Launch: splits x
// (tap groups x chunks x column tiles) blocks of 288 threads; the sums: 1 thread an element.
#include "cuda/convolution.cuh"
#include "cuda/prepare.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

constexpr int kWarps = 9;
constexpr int kThreads = kWarps * kWarp;
constexpr int kItems = 4;  // of a warp
constexpr int kTilePixels = 64;
constexpr int kBlocks = 128;  // aimed at; more splits would only make more partial sums
constexpr int kTilesPerSplit = 2;
constexpr size_t kSharedBytes = 64 << 10;
constexpr int kSumThreads = 256;

struct Pass {
  Gather gather;
  Convolution convolution;
  Source x, dy;
  int chunk, columns, tapsPerBlock;
  float* to;            // [splits][taps][c][k] overwritten
  int64_t splitStride;  // elements from one split to the next; 0: there is one
};

struct Sums {
  PendingSum list[kMaxPendingSums];
};

#if REVNET_KERNEL_CODE

// The tile's pixels of dy, channels [channel, channel + columns), as rows of `pitch` bytes; zero where there is no pixel.
template <class Math>
__device__ void fillGradient(std::byte* to, int pitch, const Pass& pass, const TilePlace& place, int channel) {
  const int groups = pass.columns / 4, group = static_cast<int>(threadIdx.x) % groups, each = kThreads / groups;
  const Axis &rows = pass.gather.rows[0], &columns = pass.gather.columns[0];
  const int k = pass.convolution.k;
  const ChannelReader reader(pass.dy, channel + 4 * group, k);
  for (int pixel = static_cast<int>(threadIdx.x) / groups; pixel < kTilePixels; pixel += each) {
    const TilePixel at(pass.gather.tile, pixel);
    const int n = place.image + at.image, y = place.row + at.row, x = place.column + at.column;
    float v[4] = {};
    if (channel + 4 * group < k && n < pass.gather.n && y < rows.outputs && x < columns.outputs)
      reader.convert(reader.load(((static_cast<int64_t>(n) * rows.outputs + y) * columns.outputs + x) * k), v);
    Math::store4(to + pixel * pitch + 4 * group * Math::kElementBytes, v);
  }
}

template <class Math, int kItemColumns>
__global__ void __launch_bounds__(kThreads, 1) weightsGradientKernel(const __grid_constant__ Pass pass) {
  waitForPrevious();
  const Gather& gather = pass.gather;
  const Convolution& conv = pass.convolution;
  const Axis &rows = gather.rows[0], &columns = gather.columns[0];
  const int chunks = ceilDiv(conv.c, pass.chunk), columnTiles = ceilDiv(conv.k, pass.columns);
  const int part = static_cast<int>(blockIdx.y);
  const int firstK = part % columnTiles * pass.columns, firstC = part / columnTiles % chunks * pass.chunk;
  const int firstTap = part / columnTiles / chunks * pass.tapsPerBlock;

  const int patchPitch = columnPitch<Math>(pass.chunk), dyPitch = columnPitch<Math>(pass.columns);
  std::byte* const patch = sharedMemory();
  std::byte* const dy = patch + gather.patchPixels() * patchPitch;

  // Item i: tap i / (channel tiles * column items), and so on.
  const int used = min(pass.chunk, ceilDiv(conv.c - firstC, 16) * 16), channelTiles = used / 16;
  const int columnItems = pass.columns / kItemColumns;
  const int items = min(pass.tapsPerBlock, conv.taps() - firstTap) * channelTiles * columnItems;
  struct Item {
    int tap, channel, column;
  };
  const auto itemAt = [&](int i) {
    return Item{firstTap + i / columnItems / channelTiles, i / columnItems % channelTiles * 16, i % columnItems * kItemColumns};
  };
  const int warp = static_cast<int>(threadIdx.x) / kWarp;

  WeightTile<Math, kItemColumns> sums[kItems];
#pragma unroll
  for (auto& tile : sums) tile.clear();

  const int tiles = gather.tiles(), splits = static_cast<int>(gridDim.x), split = static_cast<int>(blockIdx.x);
  const int lastTile = static_cast<int>(static_cast<int64_t>(tiles) * (split + 1) / splits);
  for (int index = static_cast<int>(static_cast<int64_t>(tiles) * split / splits); index < lastTile; ++index) {
    const TilePlace place(gather, index);
    fillPatch<Math>(patch, patchPitch, gather, rows, columns, place, pass.x, firstC, pass.chunk, used);
    fillGradient<Math>(dy, dyPitch, pass, place, firstK);
    syncBlock();
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      if (warp + i * kWarps >= items) break;
      const Item item = itemAt(warp + i * kWarps);
      const int tapAt = item.tap / conv.kernel * gather.patchW + item.tap % conv.kernel;
      const std::byte* const from = patch + tapAt * patchPitch + item.channel * Math::kElementBytes;
      sums[i].accumulate(
          [&](int pixel) { return from + TilePixel(gather.tile, pixel).patchIndex(gather, rows, columns) * patchPitch; },
          dy + item.column * Math::kElementBytes, dyPitch, kTilePixels);
    }
    syncBlock();
  }

  float* const to = pass.to + split * pass.splitStride;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    if (warp + i * kWarps >= items) break;
    const Item item = itemAt(warp + i * kWarps);
    sums[i].forEach([&](int channel, int column, float sum) {
      const int c = firstC + item.channel + channel, k = firstK + item.column + column;
      if (c < conv.c && k < conv.k) to[(static_cast<int64_t>(item.tap) * conv.c + c) * conv.k + k] = sum;
    });
  }
}

__global__ void __launch_bounds__(kSumThreads) sumPartialsKernel(const __grid_constant__ Sums sums) {
  waitForPrevious();
  const PendingSum& sum = sums.list[blockIdx.y];
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x; i < sum.elements;
       i += static_cast<int64_t>(gridDim.x) * kSumThreads) {
    CompensatedSum total;
#pragma unroll 4
    for (int split = 0; split < sum.splits; ++split) total.add(sum.partials[split * sum.elements + i]);
    sum.gradient[i] = total.value();
  }
}

#endif

template <class Math>
WeightsGradientPlan planPass(const Convolution& shape) {
  const Convolution conv = flattened(shape);
  const Gather gather = forwardGather(conv, kTilePixels);
  WeightsGradientPlan plan{conv, gather, conv.kernel == 1 ? 64 : 32, 64, 32, 0, 1, 0};
  while (plan.columns > 16 && plan.columns / 2 >= conv.k) plan.columns /= 2;
  const auto sharedBytes = [&] {
    return static_cast<size_t>(gather.patchPixels()) * static_cast<size_t>(columnPitch<Math>(plan.chunk)) +
           static_cast<size_t>(kTilePixels) * static_cast<size_t>(columnPitch<Math>(plan.columns));
  };
  while (plan.chunk > 16 && (plan.chunk / 2 >= conv.c || sharedBytes() > kSharedBytes)) plan.chunk /= 2;
  while (plan.columns > 16 && sharedBytes() > kSharedBytes) plan.columns /= 2;
  plan.itemColumns = std::min(plan.columns, 32);
  plan.sharedBytes = sharedBytes();

  const int itemsPerTap = plan.chunk / 16 * (plan.columns / plan.itemColumns);
  const int groups = ceilDiv(conv.taps(), kItems * kWarps / itemsPerTap);
  plan.tapsPerBlock = ceilDiv(conv.taps(), groups);
  const int parts = groups * ceilDiv(conv.c, plan.chunk) * ceilDiv(conv.k, plan.columns);
  plan.splits = std::max(1, std::min(ceilDiv(kBlocks, parts), ceilDiv(gather.tiles(), kTilesPerSplit)));
  return plan;
}

}  // namespace

WeightsGradientPlan planBackwardWeights(const Convolution& conv, Precision precision) {
  return withMath(precision, [&](auto math) { return planPass<decltype(math)>(conv); });
}

void convolveBackwardWeights(const Context& context, const WeightsGradientPlan& plan, const Source& x, const Source& dy,
                             float* gradient, float* partials) {
  const Convolution& conv = plan.convolution;
  const Pass pass{plan.gather,
                  conv,
                  x,
                  dy,
                  plan.chunk,
                  plan.columns,
                  plan.tapsPerBlock,
                  plan.splits > 1 ? partials : gradient,
                  plan.splits > 1 ? plan.elements() : 0};
  const int parts = ceilDiv(conv.taps(), plan.tapsPerBlock) * ceilDiv(conv.c, plan.chunk) * ceilDiv(conv.k, plan.columns);
  const dim3 grid(static_cast<unsigned>(plan.splits), static_cast<unsigned>(parts));
  withMath(context.precision, [&](auto math) {
    using Math = decltype(math);
    const auto kernel = plan.itemColumns == 32 ? weightsGradientKernel<Math, 32> : weightsGradientKernel<Math, 16>;
    launch(context.stream, kernel, grid, kThreads, plan.sharedBytes, pass);
  });
}

void sumPartials(const Context& context, const PendingSum* sums, int count) {
  Sums pending{};
  int used = 0;
  int64_t most = 0;
  for (int i = 0; i < count; ++i) {
    if (sums[i].splits <= 1) continue;
    pending.list[used++] = sums[i];
    most = std::max(most, sums[i].elements);
  }
  if (used == 0) return;
  const auto blocks = static_cast<unsigned>(std::clamp<int64_t>((most + kSumThreads - 1) / kSumThreads, 1, 4096));
  launch(context.stream, sumPartialsKernel, dim3(blocks, static_cast<unsigned>(used)), kSumThreads, 0, pending);
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

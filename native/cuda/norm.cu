// Batch norm outside convolutions: the stem's, which splits into the two streams, and running statistics.
//
//   kernel                    computes                          bytes an element    flops   blocks of 256 threads
//   batchNormReluForward      y = relu(x * scale + shift)       4 (x) + 4 (y)       2       pixels / (4 rows) x channel groups
//   normGradientSums, Apply   see norm_gradient.cuh             8 + 12              13      (4 of each: 2 where gradients are
//   narrow) updateRunningStatistics   running, two vectors a norm       12                  3       2 c / 256 x norms, up to 64
#include "cuda/norm_gradient.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

constexpr int kPixels = 4;  // of a thread, all loaded before the first is used

// x [pixels][c]; y: overwritten; outOfRange [1]: accumulated into, or null.
template <int width>
__global__ void batchNormReluForward(StreamPointer x, NormArguments norm, Halves y, Tiling tiling, int* outOfRange) {
  waitForPrevious();
  const Place at(tiling, width);
  int left = 0;
  if (at.active) {
    const int64_t first = static_cast<int64_t>(blockIdx.x) * tiling.rows * kPixels + at.row;
    Vector<width> v[kPixels];
#pragma unroll
    for (int p = 0; p < kPixels; ++p) {
      const int64_t pixel = first + p * tiling.rows;
      if (pixel >= tiling.pixels) break;
      v[p] = load<width>(x, pixel * tiling.c + at.channel);
    }
    Affine affine[width];
    for (int i = 0; i < width; ++i) affine[i] = normAffine(norm, at.channel + i, 1.0f);
    const Half half(y, at.channel);
#pragma unroll
    for (int p = 0; p < kPixels; ++p) {
      const int64_t pixel = first + p * tiling.rows;
      if (pixel >= tiling.pixels) break;
      for (int i = 0; i < width; ++i) v[p].v[i] = relu(affine[i](v[p].v[i]));
      store(half.stream, half.at(pixel), v[p], left);
    }
  }
  countLeft(outOfRange, left);
}

// dy as the op gives it: one tensor, or two halves.
template <bool kNarrow>
struct DenseGradient {
  Halves dy;
  template <int width>
  __device__ Vector<width> at(int64_t pixel, int channel) const {
    const Half half(dy, channel);
    return loadReal<width, kNarrow>(half.stream.data, half.at(pixel));
  }
};

// statistics, running: [2][c]; running is updated. `bessel`: from biased to unbiased variance.
struct RunningUpdate {
  const float* statistics;  // [2][c]
  float* running;           // [2][c] updated
  int* notFinite;           // [1] set where an element of running is not finite; or null
  int c;
  float momentum, kept, bessel;
};
// Those of a whole network follow one another: one launch for many costs what one for each would cost many times.
constexpr size_t kMaxRunningUpdates = 64;
struct RunningUpdates {
  RunningUpdate list[kMaxRunningUpdates];
};

__global__ void updateRunningStatistics(const __grid_constant__ RunningUpdates updates) {
  waitForPrevious();
  const RunningUpdate& update = updates.list[blockIdx.y];
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= 2 * update.c) return;
  const float value = i < update.c ? update.statistics[i] : update.statistics[i] * update.bessel;
  const float running = fmaf(update.momentum, value, update.kept * update.running[i]);
  update.running[i] = running;
  checkFinite(running, update.notFinite);
}

}  // namespace

void run(const BatchNormReluForward& op, const Context& context) {
  const int c = op.extent.c;
  const StreamPointer x = streamAt(context.memory, op.x);
  const Halves y = halvesAt(context.memory, op.y, c);
  withWidth(y.takesVectors() && x.aligned, [&](auto constant) {
    constexpr int width = decltype(constant)::value;
    const Tiling tiling(op.extent.pixels(), c, width);
    launch(context.stream, batchNormReluForward<width>, tiling.grid(int64_t{kPixels} * tiling.rows), kThreads, 0, x,
           normArguments(op.norm, context.memory, c), y, tiling, context.at<int>(op.outOfRange));
  });
}

size_t workspaceBytes(const BatchNormReluBackward& op, Precision) {
  return carvedBytes<NormGradientLayout>(op.extent.pixels(), op.extent.c, 1);
}

void run(const BatchNormReluBackward& op, const Context& context) {
  const int c = op.extent.c;
  Carver carver(context.memory.workspace);
  const NormGradientLayout layout(op.extent.pixels(), c, 1, carver);
  const Halves dy = halvesAt(context.memory, op.dy, c);
  withNarrow(dy.first.narrow, [&](auto narrow) {
    NormGradientParts<DenseGradient<narrow>> parts{};
    parts.list[parts.count++] = {streamAt(context.memory, op.x),
                                 normArguments(op.norm, context.memory, c),
                                 context.at<float>(op.gradient.gamma),
                                 context.at<float>(op.gradient.beta),
                                 streamAt(context.memory, op.dx),
                                 {dy},
                                 {},
                                 {}};
    enqueueNormGradient(context, parts, dy.takesVectors(), op.extent.pixels(), c, layout);
  });
}

void run(std::span<const UpdateRunningStatistics* const> ops, const Context& context) {
  for (size_t first = 0; first < ops.size(); first += kMaxRunningUpdates) {
    const auto some = ops.subspan(first, std::min(kMaxRunningUpdates, ops.size() - first));
    RunningUpdates updates{};
    int widest = 0;
    for (size_t i = 0; i < some.size(); ++i) {
      const UpdateRunningStatistics& op = *some[i];
      // A single value has no unbiased variance; its biased one, zero, is used.
      const double bessel = op.count > 1 ? static_cast<double>(op.count) / static_cast<double>(op.count - 1) : 1;
      updates.list[i] = {
          context.at<const float>(op.statistics), context.at<float>(op.running),       context.at<int>(op.notFinite), op.c,
          static_cast<float>(op.momentum),        static_cast<float>(1 - op.momentum), static_cast<float>(bessel)};
      widest = std::max(widest, op.c);
    }
    const dim3 grid(static_cast<unsigned>(blocksFor(2 * widest, kThreads)), static_cast<unsigned>(some.size()));
    launch(context.stream, updateRunningStatistics, grid, kThreads, 0, updates);
  }
}

}  // namespace revnet::cuda

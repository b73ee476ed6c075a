// Average-pool shortcuts, the ImageNet stem's max pool, and global average pooling.
//
//   kernel                 computes                                    bytes an element of x                   flops
//   shortcutForward        y = average, zeros beside it                4 (x) + 4 k / (c stride^2) (y)          1
//   shortcutBackward       dx = dy / stride^2                          4 / stride^2 (dy) + 4 (dx)              1
//   maxPoolForward         y = largest of norm(x), argmax              4 (x) + 1 (y) + 1/4 (argmax)            7
//   maxPoolBackward        dx = sum of the dy whose argmax it is       1 (dy) + 1/4 (argmax) + 4 (dx)          1
//   averageForward         y = mean of norm(x)                         4 (x)                                   3
//   normGradientSums,      of averages; dy stays in L2                 4 + 8                                   13
//   normGradientApply
// Gradients of streams (of averages, dx) take 2 bytes where they are narrow.
//
// The pools over windows are in gather form: a thread owns `width` neighbouring channels of a pixel that is written, and reads what
// reaches it; blocks of 256 threads, (pixels written / rows) x channel groups. What windows share is read from L1.
#include "cuda/norm_gradient.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

// A pixel of images h x w.
struct Position {
  int64_t image;
  int row, column;
  __device__ Position(int64_t pixel, int h, int w) : image(pixel / (h * w)) {
    const int inside = static_cast<int>(pixel - image * (h * w));  // edges are at most kMaxEdge: h * w fits
    row = inside / w;
    column = inside % w;
  }
};

// The pixel that this thread writes; outside the tensor if it is not below tiling.pixels.
__device__ inline int64_t ownPixel(const Tiling& tiling, const Place& at) {
  return static_cast<int64_t>(blockIdx.x) * tiling.rows + at.row;
}

// ---- Shortcut ---------------------------------------------------------------------------------------------------------------

// The shortcuts of a block's two streams, one launch: gridDim.z of them.
struct ShortcutStreams {
  StreamPointer from[2], to[2];
};

// from: x [n][h][w][c]; to: y [n][h / stride][w / stride][k] overwritten; tiling: of y.
template <int width>
__global__ void shortcutForward(const __grid_constant__ ShortcutStreams streams, PoolShortcut shortcut, Tiling tiling) {
  waitForPrevious();
  const StreamPointer &x = streams.from[blockIdx.z], &y = streams.to[blockIdx.z];
  const Place at(tiling, width);
  const int64_t pixel = ownPixel(tiling, at);
  if (!at.active || pixel >= tiling.pixels) return;
  const int stride = shortcut.stride, h = shortcut.extent.h, w = shortcut.extent.w, c = shortcut.extent.c;
  const Position out(pixel, h / stride, w / stride);
  const int channel = at.channel - (shortcut.k - c) / 2;  // of x
  Vector<width> sum{};
  if (channel >= 0 && channel < c) {
    for (int i = 0; i < stride; ++i)
      for (int j = 0; j < stride; ++j) {
        const int64_t from = (out.image * h + out.row * stride + i) * w + out.column * stride + j;
        const Vector<width> v = load<width>(x, from * c + channel);
        for (int l = 0; l < width; ++l) sum.v[l] += v.v[l];
      }
    const float share = x.step() / (static_cast<float>(stride) * static_cast<float>(stride));
    for (int l = 0; l < width; ++l) sum.v[l] *= share;
  }
  int left = 0;  // an average is never out of range
  store(y, pixel * shortcut.k + at.channel, sum, left);
}

// from: dy [n][h / stride][w / stride][k]; to: dx [n][h][w][c] overwritten; tiling: of dx.
template <int width>
__global__ void shortcutBackward(const __grid_constant__ ShortcutStreams streams, PoolShortcut shortcut, Tiling tiling) {
  waitForPrevious();
  const StreamPointer &dy = streams.from[blockIdx.z], &dx = streams.to[blockIdx.z];
  const Place at(tiling, width);
  const int64_t pixel = ownPixel(tiling, at);
  if (!at.active || pixel >= tiling.pixels) return;
  const int stride = shortcut.stride, h = shortcut.extent.h, w = shortcut.extent.w, c = shortcut.extent.c;
  const Position in(pixel, h, w);
  const int64_t from = (in.image * (h / stride) + in.row / stride) * (w / stride) + in.column / stride;
  const int64_t index = from * shortcut.k + (shortcut.k - c) / 2 + at.channel;
  Vector<width> v = dy.narrow ? loadReal<width, true>(dy.data, index) : loadReal<width, false>(dy.data, index);
  const float share = 1.0f / (static_cast<float>(stride) * static_cast<float>(stride));
  for (int l = 0; l < width; ++l) v.v[l] *= share;
  storeReal(dx, pixel * c + at.channel, v);
}

bool takesVectors(const PoolShortcut& shortcut) {
  return shortcut.extent.c % 4 == 0 && shortcut.k % 4 == 0 && (shortcut.k - shortcut.extent.c) / 2 % 4 == 0;
}

// ---- Max pool ---------------------------------------------------------------------------------------------------------------

// Taps of neighbouring channels, a byte each.
template <int width>
struct alignas(width) Taps {
  uint8_t v[width];
};

// x [n][h][w][c]; y, argmax [n][outH][outW][c]: overwritten; outOfRange [1]: accumulated into, or null; tiling: of y.
template <int width, bool kNarrow>
__global__ void maxPoolForward(StreamPointer x, NormArguments norm, Halves y, uint8_t* argmax, Extent extent, Tiling tiling,
                               int* outOfRange) {
  waitForPrevious();
  const Place at(tiling, width);
  const int64_t pixel = ownPixel(tiling, at);
  int left = 0;
  if (at.active && pixel < tiling.pixels) {
    const int h = extent.h, w = extent.w;
    const Position out(pixel, (h - 1) / 2 + 1, (w - 1) / 2 + 1);
    const int row = 2 * out.row - 1, column = 2 * out.column - 1;  // where the window starts
    const auto inside = [&](int tap) {
      return row + tap / 3 >= 0 && row + tap / 3 < h && column + tap % 3 >= 0 && column + tap % 3 < w;
    };
    Vector<width> v[9];
#pragma unroll
    for (int tap = 0; tap < 9; ++tap)
      if (inside(tap))
        v[tap] = loadReal<width, kNarrow>(x.data, ((out.image * h + row + tap / 3) * w + column + tap % 3) * extent.c + at.channel);

    Vector<width> best;
    Taps<width> which{};
    for (int i = 0; i < width; ++i) {
      const Affine affine = normAffine(norm, at.channel + i, 1.0f);
      best.v[i] = -1.0f;  // below every value that ReLU lets through
#pragma unroll
      for (int tap = 0; tap < 9; ++tap) {
        if (!inside(tap)) continue;
        const float value = relu(affine(v[tap].v[i]));
        if (!(value > best.v[i] || value != value)) continue;  // NaN wins over all
        best.v[i] = value;
        which.v[i] = static_cast<uint8_t>(tap);
      }
    }
    const Half half(y, at.channel);
    store(half.stream, half.at(pixel), best, left);
    *reinterpret_cast<Taps<width>*>(argmax + pixel * extent.c + at.channel) = which;
  }
  countLeft(outOfRange, left);
}

// dy, argmax [n][outH][outW][c]; dx [n][h][w][c] overwritten; tiling: of dx.
template <int width, bool kNarrow>
__global__ void maxPoolBackward(Halves dy, const uint8_t* argmax, StreamPointer dx, Extent extent, Tiling tiling) {
  waitForPrevious();
  const Place at(tiling, width);
  const int64_t pixel = ownPixel(tiling, at);
  if (!at.active || pixel >= tiling.pixels) return;
  const Position in(pixel, extent.h, extent.w);
  const int outH = (extent.h - 1) / 2 + 1, outW = (extent.w - 1) / 2 + 1;
  const Half half(dy, at.channel);
  Vector<width> sum{};
  // Window r covers rows 2 r - 1 to 2 r + 1: an even row is in one window, an odd one in two; so are columns.
  for (int r = in.row / 2; r <= (in.row + 1) / 2 && r < outH; ++r)
    for (int s = in.column / 2; s <= (in.column + 1) / 2 && s < outW; ++s) {
      const int64_t out = (in.image * outH + r) * outW + s;
      const int tap = 3 * (in.row - 2 * r + 1) + in.column - 2 * s + 1;
      const auto which = *reinterpret_cast<const Taps<width>*>(argmax + out * extent.c + at.channel);
      const Vector<width> d = loadReal<width, kNarrow>(half.stream.data, half.at(out));
      for (int i = 0; i < width; ++i)
        if (which.v[i] == tap) sum.v[i] += d.v[i];
    }
  storeReal(dx, pixel * extent.c + at.channel, sum);
}

// ---- Global average pool ----------------------------------------------------------------------------------------------------

// A block averages one image of a part.
struct AveragePart {
  StreamPointer x;  // [n][area][c]
  NormArguments norm;
};
struct AverageParts {
  AveragePart list[kMostParts];
};

// y [n][stride], each part's channels behind those of the one before: overwritten. tiling: of one image. Part blockIdx.z.
template <int width>
__global__ void averageForward(const __grid_constant__ AverageParts parts, float* y, int stride, Tiling tiling) {
  waitForPrevious();
  const auto& [x, norm] = parts.list[blockIdx.z];
  const Place at(tiling, width);
  const int channels = tiling.lanes * width, begin = static_cast<int>(blockIdx.y) * channels;
  float* sums = reinterpret_cast<float*>(sharedMemory());  // [rows][channels]
  if (at.row < tiling.rows) {
    float sum[width] = {};
    if (at.active) {
      Affine affine[width];
      for (int i = 0; i < width; ++i) affine[i] = normAffine(norm, at.channel + i, x.step());
#pragma unroll 4
      for (int64_t pixel = at.row; pixel < tiling.pixels; pixel += tiling.rows) {
        const Vector<width> v = load<width>(x, (blockIdx.x * tiling.pixels + pixel) * tiling.c + at.channel);
        for (int i = 0; i < width; ++i) sum[i] += relu(affine[i](v.v[i]));
      }
    }
    for (int i = 0; i < width; ++i) sums[at.row * channels + at.channel - begin + i] = sum[i];
  }
  sumRows(sums, tiling.rows, channels);
  float* const to = y + static_cast<int64_t>(blockIdx.x) * stride + static_cast<int>(blockIdx.z) * tiling.c + begin;
  for (int i = static_cast<int>(threadIdx.x); i < channels && begin + i < tiling.c; i += kThreads)
    to[i] = sums[i] / static_cast<float>(tiling.pixels);
}

// Each pixel of an image gets an equal share of the gradient of its average: dy [n][stride] from `offset` on.
struct AverageGradient {
  const float* dy;
  int64_t area;
  int stride, offset;

  template <int width>
  __device__ Vector<width> at(int64_t pixel, int channel) const {
    Vector<width> d = load<width>(dy + pixel / area * stride + offset + channel);
    for (int i = 0; i < width; ++i) d.v[i] /= static_cast<float>(area);
    return d;
  }
};

}  // namespace

namespace {

// `from` and `to` of one or two ops.
template <class Record>
ShortcutStreams streamsOf(std::span<const Record* const> ops, const Context& context, Operand Record::*from, Operand Record::*to) {
  ShortcutStreams streams;
  for (size_t i = 0; i < ops.size(); ++i) {
    streams.from[i] = streamAt(context.memory, ops[i]->*from);
    streams.to[i] = streamAt(context.memory, ops[i]->*to);
  }
  return streams;
}

// `pixels`, `channels`: of what is written.
template <class Kernels>
void enqueueShortcuts(const Context& context, const Kernels& kernels, const PoolShortcut& shortcut, const ShortcutStreams& streams,
                      size_t count, int64_t pixels, int channels) {
  bool vectors = takesVectors(shortcut);
  for (size_t i = 0; i < count; ++i) vectors = vectors && streams.from[i].aligned && streams.to[i].aligned;
  withWidth(vectors, [&](auto constant) {
    const Tiling tiling(pixels, channels, decltype(constant)::value);
    dim3 grid = tiling.grid(tiling.rows);
    grid.z = static_cast<unsigned>(count);
    launch(context.stream, kernels(constant), grid, kThreads, 0, streams, shortcut, tiling);
  });
}

}  // namespace

void run(std::span<const ShortcutForward* const> ops, const Context& context) {
  const PoolShortcut& shortcut = ops[0]->shortcut;
  const auto kernels = [](auto width) { return shortcutForward<decltype(width)::value>; };
  enqueueShortcuts(context, kernels, shortcut, streamsOf(ops, context, &ShortcutForward::x, &ShortcutForward::y), ops.size(),
                   shortcut.outputElements() / shortcut.k, shortcut.k);
}

void run(std::span<const ShortcutBackward* const> ops, const Context& context) {
  const PoolShortcut& shortcut = ops[0]->shortcut;
  const auto kernels = [](auto width) { return shortcutBackward<decltype(width)::value>; };
  enqueueShortcuts(context, kernels, shortcut, streamsOf(ops, context, &ShortcutBackward::dy, &ShortcutBackward::dx), ops.size(),
                   shortcut.extent.pixels(), shortcut.extent.c);
}

void run(const MaxPoolForward& op, const Context& context) {
  const int c = op.extent.c;
  const StreamPointer x = streamAt(context.memory, op.x);
  const Halves y = halvesAt(context.memory, op.y, c);
  auto* argmax = context.at<uint8_t>(op.argmax);
  withNarrow(x.narrow, [&](auto narrow) {
    withWidth(y.takesVectors() && x.aligned && isAligned(argmax), [&](auto constant) {
      constexpr int width = decltype(constant)::value;
      const Tiling tiling(op.outputElements() / c, c, width);
      launch(context.stream, maxPoolForward<width, narrow>, tiling.grid(tiling.rows), kThreads, 0, x,
             normArguments(op.norm, context.memory, c), y, argmax, op.extent, tiling, context.at<int>(op.outOfRange));
    });
  });
}

void run(const MaxPoolBackward& op, const Context& context) {
  const Halves dy = halvesAt(context.memory, op.dy, op.extent.c);
  const auto* argmax = context.at<const uint8_t>(op.argmax);
  const StreamPointer dx = streamAt(context.memory, op.dx);
  withNarrow(dy.first.narrow, [&](auto narrow) {
    withWidth(dy.takesVectors() && isAligned(argmax) && dx.aligned, [&](auto constant) {
      constexpr int width = decltype(constant)::value;
      const Tiling tiling(op.extent.pixels(), op.extent.c, width);
      launch(context.stream, maxPoolBackward<width, narrow>, tiling.grid(tiling.rows), kThreads, 0, dy, argmax, dx, op.extent,
             tiling);
    });
  });
}

void run(const GlobalAveragePoolForward& op, const Context& context) {
  const int c = op.extent.c, count = static_cast<int>(op.parts.size());
  AverageParts parts{};
  bool four = c % 4 == 0;
  for (size_t i = 0; i < op.parts.size(); ++i) {
    parts.list[i] = {streamAt(context.memory, op.parts[i].x), normArguments(op.parts[i].norm, context.memory, c)};
    four = four && parts.list[i].x.aligned;
  }
  withWidth(four, [&](auto constant) {
    constexpr int width = decltype(constant)::value;
    const Tiling tiling(int64_t{op.extent.h} * op.extent.w, c, width);
    const dim3 grid(static_cast<unsigned>(op.extent.n), static_cast<unsigned>(tiling.groups), static_cast<unsigned>(count));
    launch(context.stream, averageForward<width>, grid, kThreads,
           sizeof(float) * static_cast<size_t>(tiling.rows * tiling.lanes * width), parts, context.at<float>(op.y), count * c,
           tiling);
  });
}

size_t workspaceBytes(const GlobalAveragePoolBackward& op, Precision) {
  return carvedBytes<NormGradientLayout>(op.extent.pixels(), op.extent.c, static_cast<int>(op.parts.size()));
}

void run(const GlobalAveragePoolBackward& op, const Context& context) {
  const int c = op.extent.c, count = static_cast<int>(op.parts.size());
  Carver carver(context.memory.workspace);
  const NormGradientLayout layout(op.extent.pixels(), c, count, carver);
  const auto* const dy = context.at<const float>(op.dy);
  NormGradientParts<AverageGradient> parts{};
  for (const auto& part : op.parts) {
    parts.list[parts.count] = {streamAt(context.memory, part.x),
                               normArguments(part.norm, context.memory, c),
                               context.at<float>(part.gradient.gamma),
                               context.at<float>(part.gradient.beta),
                               streamAt(context.memory, part.dx),
                               {dy, int64_t{op.extent.h} * op.extent.w, count * c, parts.count * c},
                               {},
                               {}};
    ++parts.count;
  }
  enqueueNormGradient(context, parts, c % 4 == 0 && isAligned(dy), op.extent.pixels(), c, layout);
}

}  // namespace revnet::cuda

// Backward weights: dw[tap][ci][co] = sum over pixels of x[pixel * stride + tap][ci] * dy[pixel][co], from padded images of
// both; or, by Winograd, the same sum over transformed tiles for each of 16 points. The inner loop keeps I input channels x V
// vectors of output channels in registers and walks over pixels, a chunk of rows at a time so that both images' rows stay in L1
// while all taps pass over them.
//
// Partial sums are kept per chunk of images, not per thread, and added up in chunk order: the result does not depend on the
// number of threads.
#pragma once

#include "cpu/kernels/convolution.h"

namespace revnet::REVNET_ISA {

// At most this many partial sums of a weight gradient: enough to share out among threads, few enough to add up cheaply.
constexpr int kMaxChunks = 20;
// Images of one chunk, for n images.
inline int chunkImages(int n) { return ceilDiv(n, kMaxChunks); }
inline int chunkCount(int n) { return ceilDiv(n, chunkImages(n)); }

struct PixelWalk {
  int rows, columns;
  size_t xRowStride, dyRowStride, dyBlockStride;  // floats
};

template <int I, int V, int S>
[[gnu::noinline]] void accumulateTile(const float* x, const float* dy, const PixelWalk& walk, float* dw, size_t dwRowStride) {
  Vec sum[I][V];
  unrolled<I>([&](auto i) REVNET_INLINE {
    unrolled<V>([&](auto v) REVNET_INLINE { sum[i][v] = load(dw + static_cast<size_t>(i) * dwRowStride + v * kLanes); });
  });
  for (int row = 0; row < walk.rows; ++row) {
    const float* xPixel = x + static_cast<size_t>(row) * walk.xRowStride;
    const float* dyPixel = dy + static_cast<size_t>(row) * walk.dyRowStride;
    for (int column = 0; column < walk.columns; ++column, xPixel += S * kLanes, dyPixel += kLanes) {
      Vec g[V];
      unrolled<V>([&](auto v) REVNET_INLINE { g[v] = load(dyPixel + static_cast<size_t>(v) * walk.dyBlockStride); });
      accumulateOuterProduct(sum, xPixel, g);
    }
  }
  storeTile(sum, dw, dwRowStride);
}

// Tiles of I input channels, then of I / 2, ... down to 1.
template <int I, int V, int S>
inline void accumulateTiles(const float* x, const float* dy, const PixelWalk& walk, float* dw, size_t dwRowStride, int channels) {
  for (; channels >= I; channels -= I, x += I, dw += I * dwRowStride) accumulateTile<I, V, S>(x, dy, walk, dw, dwRowStride);
  if constexpr (I > 1) {
    if (channels > 0) accumulateTiles<I / 2, V, S>(x, dy, walk, dw, dwRowStride, channels);
  }
}

// dw[channels][whole vectors] += over the walk's pixels, for all blocks of x and vectors of dy.
template <int S>
inline void accumulateChannels(const float* x, size_t xBlockStride, const float* dy, const PixelWalk& walk, float* dw, int channels,
                               int vectors) {
  const size_t dwRowStride = static_cast<size_t>(vectors) * kLanes;
  for (; channels > 0; channels -= kLanes, x += xBlockStride, dw += kLanes * dwRowStride) {
    const int count = minOf(kLanes, channels);
    forEachVectorGroup(vectors, [&](int vector, auto width) {
      accumulateTiles<tileChannels<width>(), width, S>(x, dy + static_cast<size_t>(vector) * walk.dyBlockStride, walk,
                                                       dw + vector * kLanes, dwRowStride, count);
    });
  }
}

// By the direct sum: partial [taps][c][whole vectors of k].
template <int S>
inline void accumulateDirect(const Convolution& conv, const float* x, const float* dy, float* partial) {
  const PaddedImage xImage = inputImage(conv), dyImage = gradientImage(conv);
  const size_t tapFloats = static_cast<size_t>(conv.c) * static_cast<size_t>(roundUp(conv.k, kLanes));
  // A third to a half of L1 (32 or 48 KiB) for each chunk of rows.
  const size_t rowBytes = (static_cast<size_t>(xImage.blocks() * S) * xImage.rowStride() +
                           static_cast<size_t>(dyImage.blocks()) * dyImage.rowStride()) *
                          sizeof(float);
  const int chunkRows = maxOf(1, static_cast<int>(size_t{16384} / rowBytes));
  for (int row = 0; row < conv.outH(); row += chunkRows) {
    const PixelWalk walk{minOf(chunkRows, conv.outH() - row), conv.outW(), xImage.rowStride() * S, dyImage.rowStride(),
                         dyImage.blockStride()};
    const float* dyRows = dy + dyImage.origin() + static_cast<size_t>(row) * dyImage.rowStride();
    for (int tap = 0; tap < conv.taps(); ++tap) {
      const float* xTap = x + static_cast<size_t>(row * S + tap / conv.kernel) * xImage.rowStride() +
                          static_cast<size_t>(tap % conv.kernel) * kLanes;
      accumulateChannels<S>(xTap, xImage.blockStride(), dyRows, walk, partial + static_cast<size_t>(tap) * tapFloats, conv.c,
                            dyImage.blocks());
    }
  }
}

// By Winograd's tiles: partial [16 points][c][whole vectors of k].
inline void accumulateWinograd(const Convolution& conv, const Scratch& scratch, float* partial) {
  const PaddedImage xImage = inputImage(conv), dyImage = gradientImage(conv);
  const TileStrips strips(conv.h, conv.w);
  const size_t pointFloats = static_cast<size_t>(conv.c) * static_cast<size_t>(roundUp(conv.k, kLanes));
  for (int strip = 0; strip < strips.strips(); ++strip) {
    const int rows = strips.rows(strip), tiles = rows * strips.tileColumns;
    const size_t blockStride = static_cast<size_t>(tiles) * kLanes;
    const size_t uStride = pointStride(tiles, xImage.blocks()), vStride = pointStride(tiles, dyImage.blocks());
    float *u = scratch.transform, *v = u + kPoints * uStride;
    transformInput(scratch.image, xImage, strips, strips.firstRow(strip), rows, u);
    transformGradient(scratch.gradient, dyImage, strips, strips.firstRow(strip), rows, v);
    const PixelWalk walk{1, tiles, 0, 0, blockStride};
    for (size_t point = 0; point < kPoints; ++point)
      accumulateChannels<1>(u + point * uStride, blockStride, v + point * vStride, walk, partial + point * pointFloats, conv.c,
                            dyImage.blocks());
  }
}

// Floats of a partial sum.
inline size_t partialFloats(const Convolution& conv) {
  return static_cast<size_t>(usesWinograd(conv) ? kPoints : conv.taps()) * static_cast<size_t>(conv.c) *
         static_cast<size_t>(roundUp(conv.k, kLanes));
}

// partial += the gradient of one image, from scratch.image and scratch.gradient.
inline void accumulateWeightsGradient(const Convolution& conv, const Scratch& scratch, float* partial) {
  if (usesWinograd(conv)) return accumulateWinograd(conv, scratch, partial);
  conv.stride == 1 ? accumulateDirect<1>(conv, scratch.image, scratch.gradient, partial)
                   : accumulateDirect<2>(conv, scratch.image, scratch.gradient, partial);
}

// gradient[taps][c][k] = the sum of the partial sums, in order.
inline void sumPartials(ThreadPool& pool, const Convolution& conv, const float* partials, int count, float* gradient) {
  const size_t stride = partialFloats(conv), width = static_cast<size_t>(roundUp(conv.k, kLanes));
  const size_t planeFloats = static_cast<size_t>(conv.c) * width,
               tapElements = static_cast<size_t>(conv.c) * static_cast<size_t>(conv.k);
  const auto total = [&](const float* from) {
    Vec sum = load(from);
    for (int i = 1; i < count; ++i) sum += load(from + static_cast<size_t>(i) * stride);
    return sum;
  };
  pool.parallelFor(conv.c, [&](int channel, int) {
    const float* from = partials + static_cast<size_t>(channel) * width;
    float* to = gradient + static_cast<size_t>(channel) * static_cast<size_t>(conv.k);
    forEachBlock(conv.k, [&](int block, int lanes, auto kind) {
      const int at = block * kLanes;
      if (!usesWinograd(conv)) {
        for (size_t tap = 0; tap < static_cast<size_t>(conv.taps()); ++tap)
          kind.store(to + tap * tapElements + at, total(from + tap * planeFloats + at), lanes);
        return;
      }
      Vec points[kPoints], taps[9];
      for (size_t point = 0; point < kPoints; ++point) points[point] = total(from + point * planeFloats + at);
      transformKernelGradient(points, taps);
      for (size_t tap = 0; tap < 9; ++tap) kind.store(to + tap * tapElements + at, taps[tap], lanes);
    });
  });
}

}  // namespace revnet::REVNET_ISA

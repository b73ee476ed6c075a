// Backward weights: dw[tap][ci][co] = sum over pixels of x[pixel * stride + tap][ci] * dy[pixel][co], from padded images of
// both. The inner loop keeps I input channels x V vectors of output channels in registers and walks over pixels, a chunk of
// rows at a time so that both images' rows stay in L1 while all taps pass over them.
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

// A partial sum: [taps][c][whole vectors of k].
inline size_t partialFloats(const Convolution& conv) {
  return static_cast<size_t>(conv.taps()) * static_cast<size_t>(conv.c) * static_cast<size_t>(roundUp(conv.k, kLanes));
}

struct PixelWalk {
  int rows, columns;
  size_t xRowStride, dyRowStride, dyBlockStride;  // floats
};

template <int I, int V, int S>
[[gnu::noinline]] void accumulateTile(const float* x, const float* dy, const PixelWalk& walk, float* dw, size_t dwRowStride) {
  Vec sum[I][V];
#pragma GCC unroll 16
  for (int i = 0; i < I; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v] = load(dw + static_cast<size_t>(i) * dwRowStride + v * kLanes);
  for (int row = 0; row < walk.rows; ++row) {
    const float* xPixel = x + static_cast<size_t>(row) * walk.xRowStride;
    const float* dyPixel = dy + static_cast<size_t>(row) * walk.dyRowStride;
    for (int column = 0; column < walk.columns; ++column, xPixel += S * kLanes, dyPixel += kLanes) {
      Vec g[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) g[v] = load(dyPixel + static_cast<size_t>(v) * walk.dyBlockStride);
#pragma GCC unroll 16
      for (int i = 0; i < I; ++i) {
        const float a = xPixel[i];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[i][v] += a * g[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < I; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(dw + static_cast<size_t>(i) * dwRowStride + v * kLanes, sum[i][v]);
}

// Tiles of I input channels, then of I / 2, ... down to 1.
template <int I, int V, int S>
inline void accumulateTiles(const float* x, const float* dy, const PixelWalk& walk, float* dw, size_t dwRowStride, int channels) {
  for (; channels >= I; channels -= I, x += I, dw += I * dwRowStride) accumulateTile<I, V, S>(x, dy, walk, dw, dwRowStride);
  if constexpr (I > 1) {
    if (channels > 0) accumulateTiles<I / 2, V, S>(x, dy, walk, dw, dwRowStride, channels);
  }
}

template <int S>
inline void accumulateChunk(const Convolution& conv, const float* x, const float* dy, const PixelWalk& walk, float* partial) {
  const PaddedImage xImage = inputImage(conv), dyImage = gradientImage(conv);
  const size_t dwRowStride = static_cast<size_t>(roundUp(conv.k, kLanes));
  const int vectors = dyImage.blocks();
  for (int tap = 0; tap < conv.taps(); ++tap) {
    const float* xTap = x + static_cast<size_t>(tap / conv.kernel) * xImage.rowStride() + static_cast<size_t>(tap % conv.kernel) * kLanes;
    float* dw = partial + static_cast<size_t>(tap) * static_cast<size_t>(conv.c) * dwRowStride;
    for (int done = 0; done < conv.c; done += kLanes, xTap += xImage.blockStride(), dw += kLanes * dwRowStride) {
      const int channels = minOf(kLanes, conv.c - done);
      int vector = 0;
      for (; vector + 2 <= vectors; vector += 2)
        accumulateTiles<tilePixels<2>(), 2, S>(xTap, dy + static_cast<size_t>(vector) * walk.dyBlockStride, walk, dw + vector * kLanes,
                                               dwRowStride, channels);
      if (vector < vectors)
        accumulateTiles<tilePixels<1>(), 1, S>(xTap, dy + static_cast<size_t>(vector) * walk.dyBlockStride, walk, dw + vector * kLanes,
                                               dwRowStride, channels);
    }
  }
}

// partial += the gradient of one image. x, dy: padded images (inputImage, gradientImage).
inline void accumulateWeightsGradient(const Convolution& conv, const float* x, const float* dy, float* partial) {
  const PaddedImage xImage = inputImage(conv), dyImage = gradientImage(conv);
  // A quarter of L1 (48 KiB or 32 KiB) for each row chunk.
  const size_t rowBytes = (static_cast<size_t>(xImage.blocks()) * xImage.rowStride() * static_cast<size_t>(conv.stride) +
                           static_cast<size_t>(dyImage.blocks()) * dyImage.rowStride()) *
                          sizeof(float);
  const int chunkRows = maxOf(1, static_cast<int>(size_t{16384} / rowBytes));
  for (int row = 0; row < conv.outH(); row += chunkRows) {
    const PixelWalk walk{minOf(chunkRows, conv.outH() - row), conv.outW(), xImage.rowStride() * static_cast<size_t>(conv.stride),
                         dyImage.rowStride(), dyImage.blockStride()};
    const float* xRows = x + static_cast<size_t>(row * conv.stride) * xImage.rowStride();
    const float* dyRows = dy + dyImage.origin() + static_cast<size_t>(row) * dyImage.rowStride();
    if (conv.stride == 1) {
      accumulateChunk<1>(conv, xRows, dyRows, walk, partial);
    } else {
      accumulateChunk<2>(conv, xRows, dyRows, walk, partial);
    }
  }
}

// gradient[taps][c][k] = the sum of the partial sums, in order.
inline void sumPartials(ThreadPool& pool, const Convolution& conv, const float* partials, int count, float* gradient) {
  const size_t stride = partialFloats(conv), width = static_cast<size_t>(roundUp(conv.k, kLanes));
  const int rows = conv.taps() * conv.c;
  constexpr int kRows = 64;  // of one task
  pool.parallelFor(ceilDiv(rows, kRows), [&](int task, int) {
    for (int row = task * kRows; row < minOf(rows, (task + 1) * kRows); ++row) {
      const float* from = partials + static_cast<size_t>(row) * width;
      float* to = gradient + static_cast<size_t>(row) * static_cast<size_t>(conv.k);
      forEachBlock(conv.k, [&](int block, int lanes, auto kind) {
        Vec sum = load(from + block * kLanes);
        for (int i = 1; i < count; ++i) sum += load(from + static_cast<size_t>(i) * stride + block * kLanes);
        kind.store(to + block * kLanes, sum, lanes);
      });
    }
  });
}

}  // namespace revnet::REVNET_ISA

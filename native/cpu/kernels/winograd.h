// 3x3 convolution at stride 1 by Winograd's minimal filtering F(2x2, 3x3): four multiplications where the direct sum takes
// nine. (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.)
//
// The output falls into 2x2 tiles; the tile at (i, j) depends on the 4x4 input d around it and the kernel g:
//   forward           y = A^T [ (G g G^T) . (B^T d B) ] A
//   backward data     the same, from dy with the kernel turned around
//   backward weights  dg = G^T [ sum over tiles (A dy A^T) . (B^T d B) ] G
// where "." multiplies the 16 points of the transformed tiles, which makes one small matrix product over channels a point.
// Images are worked on in strips of tile rows, so that a strip's transformed tiles stay in cache:
//   transformed tiles [16 points][block][tile][kLanes]      products [16 points][tile][whole vectors of output channels]
// with one vector of padding after each point: sixteen stores at a power-of-two distance would fall into one set of L1.
#pragma once

#include "core/carver.h"
#include "core/convolution.h"
#include "cpu/kernels/image.h"
#include "cpu/kernels/tile.h"
#include "cpu/thread_pool.h"

namespace revnet::REVNET_ISA {

constexpr int kPoints = 16;

// Below a vector of channels the transforms cost more than they save; odd sizes would need partial tiles.
inline bool usesWinograd(const Convolution& conv) {
  return conv.kernel == 3 && conv.stride == 1 && conv.h % 2 == 0 && conv.w % 2 == 0 && conv.c >= 16 && conv.k >= 16;
}

// Tiles of one image, in strips of whole tile rows.
struct TileStrips {
  int tileRows, tileColumns, rowsPerStrip;

  TileStrips(int h, int w)
      : tileRows(h / 2), tileColumns(w / 2), rowsPerStrip(minOf(tileRows, ceilDiv(kStripTiles, tileColumns))) {}
  int stripTiles() const { return rowsPerStrip * tileColumns; }  // of a full strip
  int strips() const { return ceilDiv(tileRows, rowsPerStrip); }
  int firstRow(int strip) const { return strip * rowsPerStrip; }
  int rows(int strip) const { return minOf(rowsPerStrip, tileRows - firstRow(strip)); }

  static constexpr int kStripTiles = 32;
};

// Floats from one point to the next, for `tiles` tiles of `vectors` vectors each.
inline size_t pointStride(int tiles, int vectors) {
  return (static_cast<size_t>(tiles) * static_cast<size_t>(vectors) + 1) * kLanes;
}

// One column of B^T d, and one row of (...) B: the same four combinations.
inline void transformFour(Vec a, Vec b, Vec c, Vec d, Vec out[4]) {
  out[0] = a - c;
  out[1] = b + c;
  out[2] = c - b;
  out[3] = b - d;
}

// u = B^T d B for the tile rows [firstRow, firstRow + rows). image: padded by one (image.h).
inline void transformInput(const float* image, const PaddedImage& g, const TileStrips& strips, int firstRow, int rows, float* u) {
  const int tiles = rows * strips.tileColumns;
  const size_t uStride = pointStride(tiles, g.blocks()), rowStride = g.rowStride();
  for (int block = 0; block < g.blocks(); ++block) {
    float* to = u + static_cast<size_t>(block * tiles) * kLanes;
    for (int row = 0; row < rows; ++row) {
      const float* from =
          image + static_cast<size_t>(block) * g.blockStride() + static_cast<size_t>(2 * (firstRow + row)) * rowStride;
      const auto column = [&](Vec out[4]) {
        transformFour(load(from), load(from + rowStride), load(from + 2 * rowStride), load(from + 3 * rowStride), out);
        from += kLanes;
      };
      Vec c[4][4];  // four neighbouring columns of B^T d; the next tile shares two of them
      column(c[0]);
      column(c[1]);
      for (int tile = 0; tile < strips.tileColumns; ++tile, to += kLanes) {
        column(c[2]);
        column(c[3]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          Vec out[4];
          transformFour(c[0][i], c[1][i], c[2][i], c[3][i], out);
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) store(to + static_cast<size_t>(4 * i + j) * uStride, out[j]);
          c[0][i] = c[2][i];
          c[1][i] = c[3][i];
        }
      }
    }
  }
}

// The two output rows of tile row `row` of a strip: y = A^T m A. to: [2][2 * tileColumns][pixelStride].
inline void transformOutput(const float* products, int tiles, int row, int tileColumns, int vectors, float* to) {
  const size_t pixelStride = static_cast<size_t>(vectors) * kLanes, productStride = pointStride(tiles, vectors);
  const size_t rowStride = static_cast<size_t>(2 * tileColumns) * pixelStride;
  for (int tile = 0; tile < tileColumns; ++tile) {
    const float* tileProducts = products + static_cast<size_t>(row * tileColumns + tile) * pixelStride;
    float* out = to + static_cast<size_t>(2 * tile) * pixelStride;
    for (int vector = 0; vector < vectors; ++vector, tileProducts += kLanes, out += kLanes) {
      Vec top[4], bottom[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const Vec m0 = load(tileProducts + static_cast<size_t>(j) * productStride),
                  m1 = load(tileProducts + static_cast<size_t>(4 + j) * productStride);
        const Vec m2 = load(tileProducts + static_cast<size_t>(8 + j) * productStride),
                  m3 = load(tileProducts + static_cast<size_t>(12 + j) * productStride);
        top[j] = m0 + m1 + m2;
        bottom[j] = m1 - m2 - m3;
      }
      store(out, top[0] + top[1] + top[2]);
      store(out + pixelStride, top[1] - top[2] - top[3]);
      store(out + rowStride, bottom[0] + bottom[1] + bottom[2]);
      store(out + rowStride + pixelStride, bottom[1] - bottom[2] - bottom[3]);
    }
  }
}

// v = A dy A^T for the tile rows [firstRow, firstRow + rows), as transformInput lays them out.
inline void transformGradient(const float* image, const PaddedImage& g, const TileStrips& strips, int firstRow, int rows,
                              float* v) {
  const int tiles = rows * strips.tileColumns;
  const size_t vStride = pointStride(tiles, g.blocks()), rowStride = g.rowStride();
  for (int block = 0; block < g.blocks(); ++block) {
    float* to = v + static_cast<size_t>(block * tiles) * kLanes;
    for (int row = 0; row < rows; ++row) {
      const float* from =
          image + g.origin() + static_cast<size_t>(block) * g.blockStride() + static_cast<size_t>(2 * (firstRow + row)) * rowStride;
      for (int tile = 0; tile < strips.tileColumns; ++tile, to += kLanes, from += 2 * kLanes) {
        const Vec a = load(from), b = load(from + kLanes), c = load(from + rowStride), d = load(from + rowStride + kLanes);
        const Vec left[4] = {a, a + c, a - c, -c}, right[4] = {b, b + d, b - d, -d};
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          float* point = to + static_cast<size_t>(4 * i) * vStride;
          store(point, left[i]);
          store(point + vStride, left[i] + right[i]);
          store(point + 2 * vStride, left[i] - right[i]);
          store(point + 3 * vStride, -right[i]);
        }
      }
    }
  }
}

// ---- Kernel transforms --------------------------------------------------------------------------------------------------

// G g G^T, on vectors of output channels.
inline void transformKernel(const Vec g[9], Vec out[kPoints]) {
  Vec half[4][3];
  for (int j = 0; j < 3; ++j) {
    const Vec sum = g[j] + g[6 + j];
    half[0][j] = g[j];
    half[1][j] = 0.5f * (sum + g[3 + j]);
    half[2][j] = 0.5f * (sum - g[3 + j]);
    half[3][j] = g[6 + j];
  }
  for (int i = 0; i < 4; ++i) {
    const Vec sum = half[i][0] + half[i][2];
    out[4 * i] = half[i][0];
    out[4 * i + 1] = 0.5f * (sum + half[i][1]);
    out[4 * i + 2] = 0.5f * (sum - half[i][1]);
    out[4 * i + 3] = half[i][2];
  }
}

// dg[tap] = G^T m G, on vectors of output channels.
inline void transformKernelGradient(const Vec m[kPoints], Vec out[9]) {
  Vec half[3][4];
  for (int j = 0; j < 4; ++j) {
    const Vec sum = 0.5f * (m[4 + j] + m[8 + j]);
    half[0][j] = m[j] + sum;
    half[1][j] = 0.5f * (m[4 + j] - m[8 + j]);
    half[2][j] = sum + m[12 + j];
  }
  for (int i = 0; i < 3; ++i) {
    const Vec sum = 0.5f * (half[i][1] + half[i][2]);
    out[3 * i] = half[i][0] + sum;
    out[3 * i + 1] = 0.5f * (half[i][1] - half[i][2]);
    out[3 * i + 2] = sum + half[i][3];
  }
}

// ---- Matrix products of one point ---------------------------------------------------------------------------------------

// out[P tiles][V vectors] = u[tiles][channels] * weights[channels][V vectors].
template <int P, int V>
[[gnu::noinline]] void multiplyTile(const float* u, size_t blockStride, int channels, const float* weights, float* out,
                                    size_t outStride) {
  Vec sum[P][V] = {};
  for (; channels > 0; channels -= kLanes, u += blockStride, weights += V * kLanes * kLanes)
    accumulateProducts<P, V, kLanes>(sum, u, weights, minOf(kLanes, channels));
  storeTile(sum, out, outStride);
}

// Tiles of P, then of P / 2, ... down to 1.
template <int P, int V>
inline void multiplyTiles(const float* u, size_t blockStride, int channels, const float* weights, float* out, size_t outStride,
                          int tiles) {
  for (; tiles >= P; tiles -= P, u += P * kLanes, out += P * outStride)
    multiplyTile<P, V>(u, blockStride, channels, weights, out, outStride);
  if constexpr (P > 1) {
    if (tiles > 0) multiplyTiles<fewerRows(P), V>(u, blockStride, channels, weights, out, outStride, tiles);
  }
}

// ---- One image ----------------------------------------------------------------------------------------------------------

// A convolution forward, or backward to its data: `in` channels of the padded image that is read, `out` of the result.
// Transformed kernels: [16 points][group of output vectors (tile.h)][input channel][group's vectors].
struct WinogradPass {
  int in, out;
  bool backward;
  TileStrips strips;
  float* packed;

  WinogradPass(const Convolution& conv, bool backwardData, Carver& carver)
      : in(backwardData ? conv.k : conv.c),
        out(backwardData ? conv.c : conv.k),
        backward(backwardData),
        strips(conv.h, conv.w),
        packed(carver.take<float>(kPoints * pointFloats())) {}

  int vectors() const { return ceilDiv(out, kLanes); }
  size_t pointFloats() const { return static_cast<size_t>(vectors()) * kLanes * static_cast<size_t>(in); }

  // weights: [9][c][k].
  void pack(ThreadPool& pool, const float* weights) const {
    pool.parallelFor(vectors(), [&](int vector, int) {
      const int count = minOf(kLanes, out - vector * kLanes), inGroup = vector % kTileVectors;
      const int width = groupVectors(vector - inGroup, vectors()) * kLanes;
      float* to = packed + static_cast<size_t>(vector - inGroup) * kLanes * static_cast<size_t>(in) + inGroup * kLanes;
      const size_t tap = static_cast<size_t>(in) * static_cast<size_t>(out);
      for (int i = 0; i < in; ++i, to += width) {
        Vec g[9], points[kPoints];
        for (int t = 0; t < 9; ++t)
          g[t] = backward ? turned(weights + static_cast<size_t>(8 - t) * tap, i, vector, count)
                          : straight(weights + static_cast<size_t>(t) * tap, i, vector, count);
        transformKernel(g, points);
        for (int point = 0; point < kPoints; ++point) store(to + static_cast<size_t>(point) * pointFloats(), points[point]);
      }
    });
  }

 private:
  // A vector of output channels of one tap for input channel i: contiguous forward, strided backward.
  Vec straight(const float* tap, int i, int vector, int count) const {
    const float* from = tap + static_cast<size_t>(i) * static_cast<size_t>(out) + static_cast<size_t>(vector * kLanes);
    return count == kLanes ? load(from) : loadPartial(from, count);
  }
  Vec turned(const float* tap, int i, int vector, int count) const {
    Vec v{};
    for (int o = 0; o < count; ++o)
      v.set(o, tap[static_cast<size_t>(vector * kLanes + o) * static_cast<size_t>(in) + static_cast<size_t>(i)]);
    return v;
  }
};

// Floats that one image's strip takes: transformed tiles of both sides of the convolution.
inline size_t winogradScratchFloats(const Convolution& conv) {
  const int tiles = TileStrips(conv.h, conv.w).stripTiles();
  return kPoints * (pointStride(tiles, ceilDiv(conv.c, kLanes)) + pointStride(tiles, ceilDiv(conv.k, kLanes)));
}

// Calls each(y, row) for the rows of the result, top to bottom; row: [w][whole vectors of out]. rowBuffer holds two rows.
template <class Each>
inline void winogradImage(const WinogradPass& pass, const float* image, const PaddedImage& g, float* scratch, float* rowBuffer,
                          const Each& each) {
  const TileStrips& strips = pass.strips;
  const size_t pixelStride = static_cast<size_t>(pass.vectors()) * kLanes;
  for (int strip = 0; strip < strips.strips(); ++strip) {
    const int rows = strips.rows(strip), tiles = rows * strips.tileColumns;
    const size_t blockStride = static_cast<size_t>(tiles) * kLanes, uStride = pointStride(tiles, g.blocks());
    const size_t productStride = pointStride(tiles, pass.vectors());
    float *u = scratch, *products = scratch + kPoints * uStride;
    transformInput(image, g, strips, strips.firstRow(strip), rows, u);
    for (int point = 0; point < kPoints; ++point) {
      const float *from = u + static_cast<size_t>(point) * uStride,
                  *weights = pass.packed + static_cast<size_t>(point) * pass.pointFloats();
      float* to = products + static_cast<size_t>(point) * productStride;
      forEachVectorGroup(pass.vectors(), [&](int vector, auto width) {
        multiplyTiles<tileRows<width>(), width>(from, blockStride, pass.in, weights, to + vector * kLanes, pixelStride, tiles);
        weights += width * kLanes * pass.in;
      });
    }
    for (int row = 0; row < rows; ++row) {
      transformOutput(products, tiles, row, strips.tileColumns, pass.vectors(), rowBuffer);
      const int y = 2 * (strips.firstRow(strip) + row);
      each(y, rowBuffer);
      each(y + 1, rowBuffer + static_cast<size_t>(2 * strips.tileColumns) * pixelStride);
    }
  }
}

}  // namespace revnet::REVNET_ISA

// One image as the convolution kernels read it: channels in blocks of kLanes, with a border of zeros,
//   [block][height + 2 border][width + 2 border][kLanes],
// so that every kernel tap is a fixed distance away and the next pixel is one vector further, whatever the channel count.
// Channels beyond the last are 0. It is filled from a tensor while batch norm and ReLU are applied, so neither the
// normalised nor the rounded-to-float tensor ever exists in memory.
#pragma once

#include <cstring>

#include "cpu/kernels/vector.h"

namespace revnet::REVNET_ISA {

struct PaddedImage {
  int h, w, c, border;

  int blocks() const { return ceilDiv(c, kLanes); }
  size_t rowStride() const { return static_cast<size_t>(w + 2 * border) * kLanes; }
  size_t blockStride() const { return static_cast<size_t>(h + 2 * border) * rowStride(); }
  size_t floats() const { return static_cast<size_t>(blocks()) * blockStride(); }
  // Where pixel (0, 0) of block 0 starts.
  size_t origin() const { return static_cast<size_t>(border) * (rowStride() + kLanes); }
};

// Sources: what a tensor's values become as they are read. `at` is the element index of a pixel's first channel.

// The tensor as it is.
template <class T>
struct Plain {
  const T* x;
  template <class Block>
  Vec read(size_t at, int block, int count, Block) const {
    return toFloat(Block::load(x + at + block * kLanes, count)) * streamScale(x);
  }
};

// relu(x * scale + shift): batch norm and ReLU. scale and shift are padded to whole vectors with zeros.
template <class T>
struct NormRelu {
  const T* x;
  const float *scale, *shift;
  template <class Block>
  Vec read(size_t at, int block, int count, Block) const {
    const Vec value = toFloat(Block::load(x + at + block * kLanes, count));
    return maxZero(fma(value, load(scale + block * kLanes), load(shift + block * kLanes)));
  }
};

// slope * dz + tilt * x + offset: the gradient of batch norm's input, from the gradient dz of its output (masked by ReLU).
template <class T>
struct NormGradientOf {
  const float* dz;
  size_t dzShift;  // dz's element index is that of x plus dzShift (modulo 2^64)
  const T* x;
  const float *slope, *tilt, *offset;
  template <class Block>
  Vec read(size_t at, int block, int count, Block) const {
    const int c = block * kLanes;
    const Vec fromStatistics = fma(load(tilt + c), toFloat(Block::load(x + at + c, count)), load(offset + c));
    return fma(load(slope + c), Block::load(dz + (at + dzShift) + c, count), fromStatistics);
  }
};

// Fills `image` (geometry g) from pixels [first, first + h * w) of the source.
template <class Source>
inline void fillImage(float* image, const PaddedImage& g, const Source& source, size_t firstPixel) {
  const size_t rowStride = g.rowStride(), blockStride = g.blockStride();
  const auto clearSide = [&](float* to) {
    for (int i = 0; i < g.border; ++i) store(to + i * kLanes, Vec{});
  };
  forEachBlock(g.c, [&](int block, int count, auto kind) {
    float* plane = image + static_cast<size_t>(block) * blockStride;
    const size_t edge = static_cast<size_t>(g.border) * rowStride;
    std::memset(plane, 0, edge * sizeof(float));
    std::memset(plane + blockStride - edge, 0, edge * sizeof(float));
    for (int row = 0; row < g.h; ++row) {
      float* to = plane + static_cast<size_t>(row + g.border) * rowStride;
      clearSide(to);
      to += g.border * kLanes;
      size_t at = (firstPixel + static_cast<size_t>(row) * static_cast<size_t>(g.w)) * static_cast<size_t>(g.c);
      for (int column = 0; column < g.w; ++column, to += kLanes, at += static_cast<size_t>(g.c))
        store(to, source.read(at, block, count, kind));
      clearSide(to);
    }
  });
}

}  // namespace revnet::REVNET_ISA

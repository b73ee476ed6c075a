// Direct convolution of one padded image (image.h). The inner loop keeps P pixels x V vectors of output channels in
// registers and walks over taps and input channels: each step loads V weight vectors and broadcasts P inputs for P * V
// multiply-adds. P * V = 16 on AVX-512: twice what two pipes of four cycles need, and 10 loads for 16 multiply-adds.
//
// Backward data is the same walk over dy with other weights: dx's pixels fall into stride x stride phases, and each phase is
// a stride-1 correlation of dy with its own subset of the taps.
#pragma once

#include "core/convolution.h"
#include "cpu/kernels/image.h"
#include "cpu/kernels/workspace.h"
#include "cpu/thread_pool.h"

namespace revnet::REVNET_ISA {

constexpr int kMaxTaps = kMaxKernel * kMaxKernel;

// Pixels that one tile of V vectors of output channels holds.
template <int V>
constexpr int tilePixels() {
  return (kLanes == 16 ? 16 : 8) / V;
}

// A correlation: output channel vectors from taps at fixed distances. Weights are packed as
//   [group of 2 (the last of 1 or 2) output vectors][input block][tap][input channel][group's vectors].
struct Correlation {
  int inputChannels;
  int outputChannels;
  int taps;
  int step;                  // input pixels from one output pixel to the next: 1 or 2
  size_t offsets[kMaxTaps];  // of each tap from the image's first float (the border included), for output pixel (0, 0)
  int weightTaps[kMaxTaps];  // which tap of the weight tensor this is, for packing

  int outputVectors() const { return ceilDiv(outputChannels, kLanes); }
  size_t groupFloats() const { return static_cast<size_t>(2) * kLanes * static_cast<size_t>(taps * inputChannels); }
  size_t packedFloats() const { return static_cast<size_t>(outputVectors()) * kLanes * static_cast<size_t>(taps * inputChannels); }
};

template <int P, int V, int S>
[[gnu::noinline]] void correlateTile(const float* in, size_t blockStride, const Correlation& c, const float* weights, float* out,
                                     size_t outPixelStride) {
  Vec sum[P][V] = {};
  for (int done = 0; done < c.inputChannels; done += kLanes, in += blockStride) {
    const int channels = minOf(kLanes, c.inputChannels - done);
    for (int tap = 0; tap < c.taps; ++tap) {
      const float* pixel = in + c.offsets[tap];
      for (int i = 0; i < channels; ++i, weights += V * kLanes) {
        Vec w[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) w[v] = load(weights + v * kLanes);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
          const float x = pixel[p * S * kLanes + i];
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) sum[p][v] += x * w[v];
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(out + static_cast<size_t>(p) * outPixelStride + v * kLanes, sum[p][v]);
}

// Tiles of P pixels, then of P / 2, ... down to 1, over `pixels` pixels of a row.
template <int P, int V, int S>
inline void correlateTiles(const float* in, size_t blockStride, const Correlation& c, const float* weights, float* out,
                           size_t outPixelStride, int pixels) {
  for (; pixels >= P; pixels -= P) {
    correlateTile<P, V, S>(in, blockStride, c, weights, out, outPixelStride);
    in += P * S * kLanes;
    out += P * outPixelStride;
  }
  if constexpr (P > 1) {
    if (pixels > 0) correlateTiles<P / 2, V, S>(in, blockStride, c, weights, out, outPixelStride, pixels);
  }
}

template <int S>
inline void correlateRowAtStep(const float* in, size_t blockStride, const Correlation& c, const float* weights, float* out,
                               size_t outPixelStride, int pixels) {
  const int vectors = c.outputVectors();
  int vector = 0;
  for (; vector + 2 <= vectors; vector += 2, weights += c.groupFloats())
    correlateTiles<tilePixels<2>(), 2, S>(in, blockStride, c, weights, out + vector * kLanes, outPixelStride, pixels);
  if (vector < vectors)
    correlateTiles<tilePixels<1>(), 1, S>(in, blockStride, c, weights, out + vector * kLanes, outPixelStride, pixels);
}

// One row of output: `pixels` pixels of whole vectors, `outPixelStride` floats apart. `in`: the first pixel's input position.
inline void correlateRow(const float* in, size_t blockStride, const Correlation& c, const float* weights, float* out,
                         size_t outPixelStride, int pixels) {
  if (c.step == 1) return correlateRowAtStep<1>(in, blockStride, c, weights, out, outPixelStride, pixels);
  correlateRowAtStep<2>(in, blockStride, c, weights, out, outPixelStride, pixels);
}

// Where an image of x, and one of dy, lie for these kernels. dy's border is what backward data's taps reach.
inline PaddedImage inputImage(const Convolution& c) { return {c.h, c.w, c.c, c.padding()}; }
inline PaddedImage gradientImage(const Convolution& c) { return {c.outH(), c.outW(), c.k, c.padding()}; }

inline Correlation forwardCorrelation(const Convolution& conv) {
  const PaddedImage image = inputImage(conv);
  Correlation c{conv.c, conv.k, conv.taps(), conv.stride, {}, {}};
  for (int row = 0; row < conv.kernel; ++row)
    for (int column = 0; column < conv.kernel; ++column) {
      const int tap = row * conv.kernel + column;
      c.offsets[tap] = static_cast<size_t>(row) * image.rowStride() + static_cast<size_t>(column) * kLanes;
      c.weightTaps[tap] = tap;
    }
  return c;
}

// dx pixels (stride * i + rowPhase, stride * j + columnPhase) from dy around (i, j): tap (row, column) of the kernel took
// part in dy at i + (rowPhase + padding - row) / stride, where that is whole.
inline Correlation backwardCorrelation(const Convolution& conv, int rowPhase, int columnPhase) {
  const PaddedImage image = gradientImage(conv);
  Correlation c{conv.k, conv.c, 0, 1, {}, {}};
  for (int row = 0; row < conv.kernel; ++row)
    for (int column = 0; column < conv.kernel; ++column) {
      const int down = rowPhase + conv.padding() - row, right = columnPhase + conv.padding() - column;
      if (down % conv.stride != 0 || right % conv.stride != 0) continue;
      c.offsets[c.taps] = static_cast<size_t>(image.border + down / conv.stride) * image.rowStride() +
                          static_cast<size_t>(image.border + right / conv.stride) * kLanes;
      c.weightTaps[c.taps] = row * conv.kernel + column;
      ++c.taps;
    }
  return c;
}

// Packs the group that starts at output vector `vector` from weights [tap][c][k]. Output channels beyond the last get 0.
// `transposed`: input channels are k and output channels c, as backward data needs them.
inline void packGroup(const Correlation& c, int vector, bool transposed, const float* weights, float* packed) {
  const int width = minOf(2, c.outputVectors() - vector) * kLanes;
  const int first = vector * kLanes, count = minOf(width, c.outputChannels - first);
  float* to = packed + static_cast<size_t>(vector) * kLanes * static_cast<size_t>(c.taps * c.inputChannels);
  const size_t tapFloats = static_cast<size_t>(c.inputChannels) * static_cast<size_t>(c.outputChannels);
  const size_t inStride = transposed ? 1 : static_cast<size_t>(c.outputChannels);
  const size_t outStride = transposed ? static_cast<size_t>(c.inputChannels) : 1;
  for (int done = 0; done < c.inputChannels; done += kLanes) {
    const int channels = minOf(kLanes, c.inputChannels - done);
    for (int tap = 0; tap < c.taps; ++tap) {
      const float* from = weights + static_cast<size_t>(c.weightTaps[tap]) * tapFloats + static_cast<size_t>(first) * outStride;
      for (int i = 0; i < channels; ++i, to += width) {
        const float* row = from + static_cast<size_t>(done + i) * inStride;
        for (int o = 0; o < count; ++o) to[o] = row[static_cast<size_t>(o) * outStride];
        for (int o = count; o < width; ++o) to[o] = 0;
      }
    }
  }
}

inline void packCorrelation(ThreadPool& pool, const Correlation& c, bool transposed, const float* weights, float* packed) {
  pool.parallelFor(ceilDiv(c.outputVectors(), 2), [&](int group, int) { packGroup(c, 2 * group, transposed, weights, packed); });
}

// A convolution made ready for one op: its correlations (one forward, stride^2 backward) and their packed weights.
struct ForwardPass {
  Correlation correlation;
  float* packed;

  ForwardPass(const Convolution& conv, Carver& carver)
      : correlation(forwardCorrelation(conv)), packed(carver.take<float>(correlation.packedFloats())) {}
  void pack(ThreadPool& pool, const float* weights) { packCorrelation(pool, correlation, false, weights, packed); }
};

struct BackwardPass {
  int phases;  // stride^2, by row phase, then column phase
  Correlation correlation[kMaxStride * kMaxStride];
  float* packed[kMaxStride * kMaxStride];

  BackwardPass(const Convolution& conv, Carver& carver) : phases(conv.stride * conv.stride) {
    for (int i = 0; i < phases; ++i) {
      correlation[i] = backwardCorrelation(conv, i / conv.stride, i % conv.stride);
      packed[i] = carver.take<float>(correlation[i].packedFloats());
    }
  }
  void pack(ThreadPool& pool, const float* weights) {
    for (int i = 0; i < phases; ++i) packCorrelation(pool, correlation[i], true, weights, packed[i]);
  }
};

// Floats of a row buffer: one row of x or y in whole vectors.
inline size_t rowFloats(const Convolution& conv) {
  const int forward = conv.outW() * roundUp(conv.k, kLanes), backward = conv.w * roundUp(conv.c, kLanes);
  return static_cast<size_t>(maxOf(forward, backward));
}

// Calls each(y, row) for the rows of the output, top to bottom; row: [outW][whole vectors of k], which is `rowBuffer`.
template <class Each>
inline void forwardImage(const Convolution& conv, const ForwardPass& pass, const float* image, float* rowBuffer, const Each& each) {
  const PaddedImage g = inputImage(conv);
  const size_t pixelStride = static_cast<size_t>(roundUp(conv.k, kLanes));
  for (int y = 0; y < conv.outH(); ++y) {
    const float* in = image + static_cast<size_t>(y * conv.stride) * g.rowStride();
    correlateRow(in, g.blockStride(), pass.correlation, pass.packed, rowBuffer, pixelStride, conv.outW());
    each(y, rowBuffer);
  }
}

// Calls each(y, row) for the rows of dx, top to bottom; row: [w][whole vectors of c], which is `rowBuffer`.
template <class Each>
inline void backwardImage(const Convolution& conv, const BackwardPass& pass, const float* image, float* rowBuffer, const Each& each) {
  const PaddedImage g = gradientImage(conv);
  const size_t pixelStride = static_cast<size_t>(roundUp(conv.c, kLanes));
  for (int y = 0; y < conv.h; ++y) {
    const float* in = image + static_cast<size_t>(y / conv.stride) * g.rowStride();
    for (int phase = 0; phase < conv.stride; ++phase) {
      const int i = y % conv.stride * conv.stride + phase;
      correlateRow(in, g.blockStride(), pass.correlation[i], pass.packed[i], rowBuffer + static_cast<size_t>(phase) * pixelStride,
                   pixelStride * static_cast<size_t>(conv.stride), ceilDiv(conv.w - phase, conv.stride));
    }
    each(y, rowBuffer);
  }
}

}  // namespace revnet::REVNET_ISA

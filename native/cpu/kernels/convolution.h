// Direct convolution of one padded image (image.h). A register tile (tile.h) of P pixels x V vectors of output channels walks over
// taps and input channels: each step loads V weight vectors and broadcasts P inputs for P * V multiply-adds (10 loads for 16 of
// them on AVX-512). 3x3 kernels at stride 1 use Winograd's algorithm instead (winograd.h).
//
// Backward data is the same walk over dy with other weights: dx's pixels fall into stride x stride phases, and each phase is
// a stride-1 correlation of dy with its own subset of the taps.
#pragma once

#include <optional>

#include "core/convolution.h"
#include "cpu/kernels/winograd.h"

namespace revnet::REVNET_ISA {

constexpr int kMaxTaps = kMaxKernel * kMaxKernel;

// A correlation: output channel vectors from taps at fixed distances. Weights are packed as
//   [group of output vectors (tile.h)][input block][tap][input channel][group's vectors].
struct Correlation {
  int inputChannels;
  int outputChannels;
  int taps;
  int step;                  // input pixels from one output pixel to the next: 1 or 2
  size_t offsets[kMaxTaps];  // of each tap from the image's first float (the border included), for output pixel (0, 0)
  int weightTaps[kMaxTaps];  // which tap of the weight tensor this is, for packing

  int outputVectors() const { return ceilDiv(outputChannels, kLanes); }
  size_t groupFloats(int vectors) const {
    return static_cast<size_t>(vectors * kLanes) * static_cast<size_t>(taps * inputChannels);
  }
  size_t packedFloats() const { return groupFloats(outputVectors()); }
};

template <int P, int V, int S>
[[gnu::noinline]] void correlateTile(const float* in, size_t blockStride, const Correlation& c, const float* weights, float* out,
                                     size_t outPixelStride) {
  Vec sum[P][V] = {};
  for (int done = 0; done < c.inputChannels; done += kLanes, in += blockStride) {
    const int channels = minOf(kLanes, c.inputChannels - done);
    for (int tap = 0; tap < c.taps; ++tap, weights += channels * V * kLanes)
      accumulateProducts<P, V, S * kLanes>(sum, in + c.offsets[tap], weights, channels);
  }
  storeTile(sum, out, outPixelStride);
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
    if (pixels > 0) correlateTiles<fewerRows(P), V, S>(in, blockStride, c, weights, out, outPixelStride, pixels);
  }
}

template <int S>
inline void correlateRowAtStep(const float* in, size_t blockStride, const Correlation& c, const float* weights, float* out,
                               size_t outPixelStride, int pixels) {
  forEachVectorGroup(c.outputVectors(), [&](int vector, auto width) {
    correlateTiles<tileRows<width>(), width, S>(in, blockStride, c, weights, out + vector * kLanes, outPixelStride, pixels);
    weights += c.groupFloats(width);
  });
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
  const int width = groupVectors(vector, c.outputVectors()) * kLanes;
  const int first = vector * kLanes, count = minOf(width, c.outputChannels - first);
  float* to = packed + c.groupFloats(vector);
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
  pool.parallelFor(ceilDiv(c.outputVectors(), kTileVectors),
                   [&](int group, int) { packGroup(c, kTileVectors * group, transposed, weights, packed); });
}

// ---- A convolution made ready for one op: packed weights, and the way chosen --------------------------------------------

// What one thread works in.
struct Scratch {
  float* image;      // a padded image of a layer's input (inputImage)
  float* gradient;   // a padded image of its output's gradient (gradientImage)
  float* row;        // rows of a result, in whole vectors (rowFloats)
  float* transform;  // Winograd's tiles (transformFloats)
};

inline size_t rowFloats(const Convolution& conv) {
  const int forward = conv.outW() * roundUp(conv.k, kLanes), backward = conv.w * roundUp(conv.c, kLanes);
  return static_cast<size_t>(maxOf(forward, backward)) * (usesWinograd(conv) ? 2 : 1);
}
inline size_t transformFloats(const Convolution& conv) { return usesWinograd(conv) ? winogradScratchFloats(conv) : 0; }

class ForwardPass {
 public:
  ForwardPass(const Convolution& conv, Carver& carver) : conv_(conv) {
    if (usesWinograd(conv)) {
      winograd_.emplace(conv, false, carver);
    } else {
      direct_ = forwardCorrelation(conv);
      packed_ = carver.take<float>(direct_.packedFloats());
    }
  }

  void pack(ThreadPool& pool, const float* weights) const {
    winograd_ ? winograd_->pack(pool, weights) : packCorrelation(pool, direct_, false, weights, packed_);
  }

  // Reads scratch.image. Calls each(y, row) for the rows of the output, top to bottom; row: [outW][whole vectors of k].
  template <class Each>
  void run(const Scratch& scratch, const Each& each) const {
    const PaddedImage g = inputImage(conv_);
    if (winograd_) return winogradImage(*winograd_, scratch.image, g, scratch.transform, scratch.row, each);
    const size_t pixelStride = static_cast<size_t>(roundUp(conv_.k, kLanes));
    for (int y = 0; y < conv_.outH(); ++y) {
      const float* in = scratch.image + static_cast<size_t>(y * conv_.stride) * g.rowStride();
      correlateRow(in, g.blockStride(), direct_, packed_, scratch.row, pixelStride, conv_.outW());
      each(y, scratch.row);
    }
  }

 private:
  Convolution conv_;
  std::optional<WinogradPass> winograd_;
  Correlation direct_{};
  float* packed_ = nullptr;
};

class BackwardPass {
 public:
  BackwardPass(const Convolution& conv, Carver& carver) : conv_(conv) {
    if (usesWinograd(conv)) {
      winograd_.emplace(conv, true, carver);
      return;
    }
    for (int i = 0; i < conv.stride * conv.stride; ++i) {
      phases_[i] = backwardCorrelation(conv, i / conv.stride, i % conv.stride);
      packed_[i] = carver.take<float>(phases_[i].packedFloats());
    }
  }

  void pack(ThreadPool& pool, const float* weights) const {
    if (winograd_) return winograd_->pack(pool, weights);
    for (int i = 0; i < conv_.stride * conv_.stride; ++i) packCorrelation(pool, phases_[i], true, weights, packed_[i]);
  }

  // Reads scratch.gradient. Calls each(y, row) for the rows of dx, top to bottom; row: [w][whole vectors of c].
  template <class Each>
  void run(const Scratch& scratch, const Each& each) const {
    const PaddedImage g = gradientImage(conv_);
    if (winograd_) return winogradImage(*winograd_, scratch.gradient, g, scratch.transform, scratch.row, each);
    const size_t pixelStride = static_cast<size_t>(roundUp(conv_.c, kLanes));
    for (int y = 0; y < conv_.h; ++y) {
      const float* in = scratch.gradient + static_cast<size_t>(y / conv_.stride) * g.rowStride();
      for (int phase = 0; phase < conv_.stride; ++phase) {
        const int i = y % conv_.stride * conv_.stride + phase;
        correlateRow(in, g.blockStride(), phases_[i], packed_[i], scratch.row + static_cast<size_t>(phase) * pixelStride,
                     pixelStride * static_cast<size_t>(conv_.stride), ceilDiv(conv_.w - phase, conv_.stride));
      }
      each(y, scratch.row);
    }
  }

 private:
  Convolution conv_;
  std::optional<WinogradPass> winograd_;
  Correlation phases_[kMaxStride * kMaxStride]{};  // by row phase, then column phase
  float* packed_[kMaxStride * kMaxStride]{};
};

}  // namespace revnet::REVNET_ISA

// One convolution layer with its norm, over a batch: the parts that convolution ops and residual blocks are made of.
#pragma once

#include <algorithm>
#include <atomic>
#include <type_traits>

#include "cpu/kernels/convolution.h"
#include "cpu/kernels/norm.h"
#include "cpu/kernels/weights_gradient.h"

namespace revnet::REVNET_ISA {

// Every thread's Scratch, large enough for the convolutions it covers.
class ThreadScratch {
 public:
  void cover(const Convolution& conv) {
    image_ = std::max(image_, inputImage(conv).floats());
    gradient_ = std::max(gradient_, gradientImage(conv).floats());
    row_ = std::max(row_, rowFloats(conv));
    transform_ = std::max(transform_, transformFloats(conv));
  }
  void carve(Carver& carver, int threads) {
    for (size_t* floats : {&image_, &gradient_, &row_, &transform_}) *floats = alignUp(*floats * sizeof(float)) / sizeof(float);
    base_ = carver.take<float>(perThread() * static_cast<size_t>(threads));
  }
  Scratch of(int thread) const {
    float* image = base_ + perThread() * static_cast<size_t>(thread);
    return {image, image + image_, image + image_ + gradient_, image + image_ + gradient_ + row_};
  }

 private:
  size_t perThread() const { return image_ + gradient_ + row_ + transform_; }
  size_t image_ = 0, gradient_ = 0, row_ = 0, transform_ = 0;
  float* base_ = nullptr;
};

inline size_t inputPixels(const Convolution& conv) { return static_cast<size_t>(conv.h) * static_cast<size_t>(conv.w); }
inline size_t outputPixels(const Convolution& conv) { return static_cast<size_t>(conv.outH()) * static_cast<size_t>(conv.outW()); }
// Element index of row y of image n of the output.
inline size_t outputRow(const Convolution& conv, int n, int y) {
  return (static_cast<size_t>(n) * outputPixels(conv) + static_cast<size_t>(y) * static_cast<size_t>(conv.outW())) *
         static_cast<size_t>(conv.k);
}
inline size_t inputRow(const Convolution& conv, int n, int y) {
  return (static_cast<size_t>(n) * inputPixels(conv) + static_cast<size_t>(y) * static_cast<size_t>(conv.w)) *
         static_cast<size_t>(conv.c);
}

// Calls body(x) with x as a pointer to its elements' type.
template <class Body>
inline void withStream(const Memory& memory, Operand x, const Body& body) {
  memory.isFixed(x) ? body(memory.at<const int32_t>(x)) : body(memory.at<const float>(x));
}

// Fills a padded image with a layer's input: norm(x), or x where the layer has no norm. One copy of it, not inlined: forward pass
// and recompute must round alike.
[[gnu::noinline]] inline void fillInput(float* image, const Convolution& conv, const Memory& memory, Operand x,
                                        const ChannelNorm* norm, int n) {
  const size_t first = static_cast<size_t>(n) * inputPixels(conv);
  const auto fill = [&](const auto* values) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(values)>>;
    if (norm) {
      fillImage(image, inputImage(conv), NormRelu<T>{values, norm->scale, norm->shift}, first);
    } else {
      fillImage(image, inputImage(conv), Plain<T>{values}, first);
    }
  };
  withStream(memory, x, fill);
}

inline float stepOf(const Memory& memory, Operand x) { return memory.isFixed(x) ? kFixedStep : 1.0f; }

// dz = dOutput masked by ReLU for one row of a layer's input, written, and summed with x^ for the norm's gradient.
// `image`: the padded input (positive exactly where ReLU let the value through).
template <class T>
inline void maskRow(const float* row, const float* image, const PaddedImage& g, int y, const T* x, const ChannelNorm& norm,
                    float* dz, const ImageSums& sums, int n) {
  const size_t stride = static_cast<size_t>(norm.padded);
  forEachBlock(g.c, [&](int block, int count, auto kind) {
    const float* from = row + block * kLanes;
    const float* active =
        image + static_cast<size_t>(block) * g.blockStride() + g.origin() + static_cast<size_t>(y) * g.rowStride();
    const Vec inverse = load(norm.inverse + block * kLanes), center = load(norm.center + block * kLanes);
    Vec sum{}, products{};
    for (int p = 0; p < g.w; ++p, from += stride, active += kLanes) {
      const size_t at = static_cast<size_t>(p) * static_cast<size_t>(g.c) + static_cast<size_t>(block * kLanes);
      const Vec masked = select(load(active) > Vec{}, load(from), Vec{});
      kind.store(dz + at, masked, count);
      sum += masked;
      products = fma(masked, fma(toFloat(kind.load(x + at, count)), inverse, center), products);
    }
    sums.add(n, block * kLanes, count, sum, products);
  });
}

// Counters are int32: a run that leaves the range everywhere must not overflow them.
inline void addOutOfRange(int32_t* counter, int64_t count) {
  *counter = static_cast<int32_t>(std::min<int64_t>(*counter + count, INT32_MAX));
}

// Calls each(n, thread, partial) for all images, a chunk's images one after the other; `partial` is the chunk's, cleared.
template <class Each>
inline void forEachChunk(ThreadPool& pool, const Convolution& conv, float* partials, const Each& each) {
  const size_t floats = partialFloats(conv);
  const int images = chunkImages(conv.n);
  pool.parallelFor(chunkCount(conv.n), [&](int chunk, int thread) {
    float* partial = partials + static_cast<size_t>(chunk) * floats;
    std::memset(partial, 0, floats * sizeof(float));
    for (int n = chunk * images; n < minOf(conv.n, (chunk + 1) * images); ++n) each(n, thread, partial);
  });
}

// to += row
inline void accumulateRow(const float* row, int pixels, int c, float* to) {
  const size_t stride = static_cast<size_t>(roundUp(c, kLanes));
  forEachBlock(c, [&](int block, int count, auto kind) {
    const float* from = row + block * kLanes;
    float* out = to + block * kLanes;
    for (int p = 0; p < pixels; ++p, from += stride, out += c) kind.store(out, kind.load(out, count) + load(from), count);
  });
}

}  // namespace revnet::REVNET_ISA

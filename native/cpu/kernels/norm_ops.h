// Batch norm and ReLU outside convolutions: the stem's (which splits into the two streams), and the head's, with global
// average pooling behind it. Both backward passes are one: they differ in where the gradient of norm(x) comes from.
#pragma once

#include "cpu/kernels/finite.h"
#include "cpu/kernels/layer.h"

namespace revnet::REVNET_ISA {

// Rounds to the stream's step where the stream is fixed point, and returns how many values are outside its range.
template <class Block>
inline int storeStream(Block, float* to, Vec v, int count) {
  Block::store(to, v, count);
  return 0;
}
template <class Block>
inline int storeStream(Block, int32_t* to, Vec v, int count) {
  const IntVec q = roundToInt(v * kFixedScale);
  Block::store(to, q, count);
  return -sumLanes(q == broadcast(INT32_MIN), count);
}

// Calls body(pointer) with the pointer's element type, for a stream that is written.
template <class Body>
inline void withWritableStream(const Memory& memory, Operand y, const Body& body) {
  memory.isFixed(y) ? body(memory.at<int32_t>(y)) : body(memory.at<float>(y));
}

// ---- batchNormRelu ------------------------------------------------------------------------------------------------------

struct BatchNormReluForwardLayout {
  ChannelNorm norm;
  BatchNormReluForwardLayout(const BatchNormReluForward& op, int, Carver& carver) : norm(op.extent.c, carver) {}
};

inline void run(const BatchNormReluForward& op, const Memory& memory, ThreadPool& pool, BatchNormReluForwardLayout& at) {
  const int parts = static_cast<int>(op.y.size()), width = op.extent.c / parts;
  const size_t pixels = static_cast<size_t>(op.extent.h) * static_cast<size_t>(op.extent.w), c = static_cast<size_t>(op.extent.c);
  at.norm.set(op.norm, memory, 1.0f);
  std::atomic<int64_t> outOfRange{0};
  pool.parallelFor(op.extent.n, [&](int n, int) {
    const size_t first = static_cast<size_t>(n) * pixels;
    int64_t left = 0;
    for (int part = 0; part < parts; ++part) {
      const int channel = part * width;
      const NormRelu<float> source{memory.at<const float>(op.x) + channel, at.norm.scale + channel, at.norm.shift + channel};
      withWritableStream(memory, op.y[static_cast<size_t>(part)], [&](auto* y) {
        forEachBlock(width, [&](int block, int count, auto kind) {
          for (size_t p = first; p < first + pixels; ++p)
            left += storeStream(kind, y + p * static_cast<size_t>(width) + block * kLanes, source.read(p * c, block, count, kind),
                                count);
        });
      });
    }
    if (left != 0) outOfRange += left;
  });
  if (op.outOfRange) addOutOfRange(memory.at<int32_t>(op.outOfRange), outOfRange);
}

// The gradient through norm and ReLU of channels [channel, channel + width) of x, in two passes over one image at a time:
// first the sums for gamma, beta and the batch statistics, then dx. dyAt(n, pixel, block, count, kind): gradient of norm(x).
template <class T>
struct NormReluGradient {
  const T* x;  // [n][pixels][c]
  float* dx;   // as x, overwritten
  size_t pixels, c;
  int channel, width;
  const ChannelNorm& norm;

  template <class Block, class DyAt>
  Vec masked(int n, size_t pixel, int block, int count, Block kind, const DyAt& dyAt) const {
    const NormRelu<T> output{x + channel, norm.scale + channel, norm.shift + channel};
    const Vec active = output.read((static_cast<size_t>(n) * pixels + pixel) * c, block, count, kind);
    return select(active > Vec{}, dyAt(n, pixel, block, count, kind), Vec{});
  }

  template <class DyAt>
  void sum(const ImageSums& sums, int n, const DyAt& dyAt) const {
    forEachBlock(width, [&](int block, int count, auto kind) {
      const int at = channel + block * kLanes;
      const Vec inverse = load(norm.inverse + at), center = load(norm.center + at);
      Vec total{}, products{};
      for (size_t p = 0; p < pixels; ++p) {
        const Vec dz = masked(n, p, block, count, kind, dyAt);
        total += dz;
        const Vec normalised = fma(toFloat(kind.load(x + (static_cast<size_t>(n) * pixels + p) * c + at, count)), inverse, center);
        products = fma(dz, normalised, products);
      }
      sums.add(n, at, count, total, products);
    });
  }

  template <class DyAt>
  void apply(const NormGradientVectors& vectors, int n, const DyAt& dyAt) const {
    forEachBlock(width, [&](int block, int count, auto kind) {
      const int at = channel + block * kLanes;
      const Vec slope = load(vectors.slope + at), tilt = load(vectors.tilt + at), offset = load(vectors.offset + at);
      for (size_t p = 0; p < pixels; ++p) {
        const size_t element = (static_cast<size_t>(n) * pixels + p) * c + static_cast<size_t>(at);
        const Vec dz = masked(n, p, block, count, kind, dyAt);
        kind.store(dx + element, fma(slope, dz, fma(tilt, toFloat(kind.load(x + element, count)), offset)), count);
      }
    });
  }
};

struct BatchNormReluBackwardLayout {
  ChannelNorm norm;
  ImageSums sums;
  NormGradientVectors vectors;
  BatchNormReluBackwardLayout(const BatchNormReluBackward& op, int, Carver& carver)
      : norm(op.extent.c, carver), sums(op.extent.n, op.extent.c, carver), vectors(op.extent.c, carver) {}
};

inline void run(const BatchNormReluBackward& op, const Memory& memory, ThreadPool& pool, BatchNormReluBackwardLayout& at) {
  const Extent& extent = op.extent;
  const int parts = static_cast<int>(op.dy.size()), width = extent.c / parts;
  const size_t pixels = static_cast<size_t>(extent.h) * static_cast<size_t>(extent.w);
  at.norm.set(op.norm, memory, 1.0f);
  const auto forEachPart = [&](int n, const auto& body) {
    for (int part = 0; part < parts; ++part) {
      const NormReluGradient<float> gradient{memory.at<const float>(op.x),
                                             memory.at<float>(op.dx),
                                             pixels,
                                             static_cast<size_t>(extent.c),
                                             part * width,
                                             width,
                                             at.norm};
      const float* dy =
          memory.at<const float>(op.dy[static_cast<size_t>(part)]) + static_cast<size_t>(n) * pixels * static_cast<size_t>(width);
      body(gradient, [=](int, size_t pixel, int block, int count, auto kind) {
        return kind.load(dy + pixel * static_cast<size_t>(width) + block * kLanes, count);
      });
    }
  };
  pool.parallelFor(extent.n, [&](int n, int) {
    at.sums.clear(n);
    forEachPart(n, [&](const auto& gradient, const auto& dyAt) { gradient.sum(at.sums, n, dyAt); });
  });
  at.vectors.set(at.sums, extent.n, static_cast<double>(extent.pixels()), op.norm, op.gradient, memory, 1.0f);
  pool.parallelFor(extent.n, [&](int n, int) {
    forEachPart(n, [&](const auto& gradient, const auto& dyAt) { gradient.apply(at.vectors, n, dyAt); });
  });
}

inline void run(const UpdateRunningStatistics& op, const Memory& memory, ThreadPool&) {
  const float* batch = memory.at<const float>(op.statistics);
  float* running = memory.at<float>(op.running);
  const auto momentum = static_cast<float>(op.momentum);
  // The biased variance of `count` values becomes the unbiased one; a single value has none, and keeps its 0.
  const auto unbias = op.count > 1 ? static_cast<float>(static_cast<double>(op.count) / static_cast<double>(op.count - 1)) : 1.0f;
  for (int i = 0; i < op.c; ++i) running[i] = std::fma(momentum, batch[i] - running[i], running[i]);
  for (int i = op.c; i < 2 * op.c; ++i) running[i] = std::fma(momentum, std::fma(batch[i], unbias, -running[i]), running[i]);
  NotFinite notFinite;
  notFinite.note(std::all_of(running, running + 2 * op.c, isFinite));
  notFinite.write(memory, op.notFinite);
}

// ---- globalAveragePool --------------------------------------------------------------------------------------------------

struct GlobalAveragePoolForwardLayout {
  ChannelNorm norm;
  GlobalAveragePoolForwardLayout(const GlobalAveragePoolForward& op, int, Carver& carver) : norm(op.extent.c, carver) {}
};

inline void run(const GlobalAveragePoolForward& op, const Memory& memory, ThreadPool& pool, GlobalAveragePoolForwardLayout& at) {
  const Extent& extent = op.extent;
  const size_t pixels = static_cast<size_t>(extent.h) * static_cast<size_t>(extent.w), c = static_cast<size_t>(extent.c);
  const float share = 1.0f / static_cast<float>(pixels);
  for (size_t part = 0; part < op.parts.size(); ++part) {
    const auto& record = op.parts[part];
    at.norm.set(record.norm, memory, stepOf(memory, record.x));
    withStream(memory, record.x, [&](const auto* x) {
      using T = std::remove_cv_t<std::remove_pointer_t<decltype(x)>>;
      const NormRelu<T> source{x, at.norm.scale, at.norm.shift};
      pool.parallelFor(extent.n, [&](int n, int) {
        float* y = memory.at<float>(op.y) + (static_cast<size_t>(n) * op.parts.size() + part) * c;
        forEachBlock(extent.c, [&](int block, int count, auto kind) {
          Vec sum{};
          for (size_t p = 0; p < pixels; ++p) sum += source.read((static_cast<size_t>(n) * pixels + p) * c, block, count, kind);
          kind.store(y + block * kLanes, sum * share, count);
        });
      });
    });
  }
}

struct GlobalAveragePoolBackwardLayout {
  ChannelNorm norm;
  ImageSums sums;
  NormGradientVectors vectors;
  GlobalAveragePoolBackwardLayout(const GlobalAveragePoolBackward& op, int, Carver& carver)
      : norm(op.extent.c, carver), sums(op.extent.n, op.extent.c, carver), vectors(op.extent.c, carver) {}
};

inline void run(const GlobalAveragePoolBackward& op, const Memory& memory, ThreadPool& pool, GlobalAveragePoolBackwardLayout& at) {
  const Extent& extent = op.extent;
  const size_t pixels = static_cast<size_t>(extent.h) * static_cast<size_t>(extent.w), c = static_cast<size_t>(extent.c);
  const float share = 1.0f / static_cast<float>(pixels);
  for (size_t part = 0; part < op.parts.size(); ++part) {
    const auto& record = op.parts[part];
    const float step = stepOf(memory, record.x);
    at.norm.set(record.norm, memory, step);
    const float* dy = memory.at<const float>(op.dy) + part * c;
    const auto dyAt = [&](int n, size_t, int block, int count, auto kind) {
      return kind.load(dy + static_cast<size_t>(n) * op.parts.size() * c + block * kLanes, count) * share;
    };
    withStream(memory, record.x, [&](const auto* x) {
      using T = std::remove_cv_t<std::remove_pointer_t<decltype(x)>>;
      const NormReluGradient<T> gradient{x, memory.at<float>(record.dx), pixels, c, 0, extent.c, at.norm};
      pool.parallelFor(extent.n, [&](int n, int) {
        at.sums.clear(n);
        gradient.sum(at.sums, n, dyAt);
      });
      at.vectors.set(at.sums, extent.n, static_cast<double>(extent.pixels()), record.norm, record.gradient, memory, step);
      pool.parallelFor(extent.n, [&](int n, int) { gradient.apply(at.vectors, n, dyAt); });
    });
  }
}

}  // namespace revnet::REVNET_ISA

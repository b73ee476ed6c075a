// Average-pool shortcuts and the ImageNet stem's max pool.
#pragma once

#include "cpu/kernels/norm_ops.h"

namespace revnet::REVNET_ISA {

inline void run(const ShortcutForward& op, const Memory& memory, ThreadPool& pool) {
  const Extent& extent = op.shortcut.extent;
  const int stride = op.shortcut.stride, outH = extent.h / stride, outW = extent.w / stride, side = (op.shortcut.k - extent.c) / 2;
  const auto c = static_cast<size_t>(extent.c), k = static_cast<size_t>(op.shortcut.k);
  withWritableStream(memory, op.y, [&](auto* y) {
    using T = std::remove_pointer_t<decltype(y)>;
    const T* x = memory.at<const T>(op.x);
    const float share = streamScale(x) / static_cast<float>(stride * stride);
    pool.parallelFor(extent.n, [&](int n, int) {
      for (int row = 0; row < outH; ++row) {
        T* to = y + (static_cast<size_t>(n) * static_cast<size_t>(outH) + static_cast<size_t>(row)) * static_cast<size_t>(outW) * k;
        std::memset(to, 0, static_cast<size_t>(outW) * k * sizeof(T));
        for (int column = 0; column < outW; ++column, to += k) {
          forEachBlock(extent.c, [&](int block, int count, auto kind) {
            Vec sum{};
            for (int i = 0; i < stride; ++i)
              for (int j = 0; j < stride; ++j) {
                const size_t pixel =
                    (static_cast<size_t>(n) * static_cast<size_t>(extent.h) + static_cast<size_t>(row * stride + i)) *
                        static_cast<size_t>(extent.w) +
                    static_cast<size_t>(column * stride + j);
                sum += toFloat(kind.load(x + pixel * c + block * kLanes, count));
              }
            storeStream(kind, to + side + block * kLanes, sum * share, count);
          });
        }
      }
    });
  });
}

inline void run(const ShortcutBackward& op, const Memory& memory, ThreadPool& pool) {
  const Extent& extent = op.shortcut.extent;
  const int stride = op.shortcut.stride, outH = extent.h / stride, outW = extent.w / stride, side = (op.shortcut.k - extent.c) / 2;
  const auto c = static_cast<size_t>(extent.c), k = static_cast<size_t>(op.shortcut.k);
  const float share = 1.0f / static_cast<float>(stride * stride);
  const float* dy = memory.at<const float>(op.dy);
  float* dx = memory.at<float>(op.dx);
  pool.parallelFor(extent.n, [&](int n, int) {
    for (int row = 0; row < extent.h; ++row)
      for (int column = 0; column < extent.w; ++column) {
        const size_t pixel =
            (static_cast<size_t>(n) * static_cast<size_t>(extent.h) + static_cast<size_t>(row)) * static_cast<size_t>(extent.w) +
            static_cast<size_t>(column);
        const size_t out =
            (static_cast<size_t>(n) * static_cast<size_t>(outH) + static_cast<size_t>(row / stride)) * static_cast<size_t>(outW) +
            static_cast<size_t>(column / stride);
        forEachBlock(extent.c, [&](int block, int count, auto kind) {
          kind.store(dx + pixel * c + block * kLanes,
                     kind.load(dy + out * k + static_cast<size_t>(side + block * kLanes), count) * share, count);
        });
      }
  });
}

struct MaxPoolForwardLayout {
  ChannelNorm norm;
  MaxPoolForwardLayout(const MaxPoolForward& op, int, Carver& carver) : norm(op.extent.c, carver) {}
};

inline void run(const MaxPoolForward& op, const Memory& memory, ThreadPool& pool, MaxPoolForwardLayout& at) {
  const Extent& extent = op.extent;
  const int parts = static_cast<int>(op.y.size()), width = extent.c / parts;
  const int outH = MaxPoolForward::out(extent.h), outW = MaxPoolForward::out(extent.w);
  const auto c = static_cast<size_t>(extent.c), w = static_cast<size_t>(extent.w);
  at.norm.set(op.norm, memory, 1.0f);
  std::atomic<int64_t> outOfRange{0};

  // One window of a block of channels. NaN wins over all, and the last of several NaN.
  const auto largest = [&](const NormRelu<float>& source, int n, int row, int column, int block, int count, auto kind,
                           IntVec& which) {
    Vec best = broadcast(-1.0f);  // below every value that ReLU lets through
    for (int tap = 0; tap < 9; ++tap) {
      const int inRow = 2 * row - 1 + tap / 3, inColumn = 2 * column - 1 + tap % 3;
      if (inRow < 0 || inRow >= extent.h || inColumn < 0 || inColumn >= extent.w) continue;
      const size_t pixel =
          (static_cast<size_t>(n) * static_cast<size_t>(extent.h) + static_cast<size_t>(inRow)) * w + static_cast<size_t>(inColumn);
      const Vec value = source.read(pixel * c, block, count, kind);
      const IntVec taken = (value > best) | (value != value);
      which = select(taken, broadcast(tap), which);
      best = select(taken, value, best);
    }
    return best;
  };

  pool.parallelFor(extent.n, [&](int n, int) {
    int64_t left = 0;
    for (int part = 0; part < parts; ++part) {
      const int channel = part * width;
      const NormRelu<float> source{memory.at<const float>(op.x) + channel, at.norm.scale + channel, at.norm.shift + channel};
      withWritableStream(memory, op.y[static_cast<size_t>(part)], [&](auto* y) {
        for (int row = 0; row < outH; ++row)
          for (int column = 0; column < outW; ++column) {
            const size_t out =
                (static_cast<size_t>(n) * static_cast<size_t>(outH) + static_cast<size_t>(row)) * static_cast<size_t>(outW) +
                static_cast<size_t>(column);
            forEachBlock(width, [&](int block, int count, auto kind) {
              IntVec which{};
              const Vec best = largest(source, n, row, column, block, count, kind, which);
              left += storeStream(kind, y + out * static_cast<size_t>(width) + block * kLanes, best, count);
              uint8_t* to = memory.at<uint8_t>(op.argmax) + out * c + static_cast<size_t>(channel + block * kLanes);
              for (int i = 0; i < count; ++i) to[i] = static_cast<uint8_t>(which[i]);
            });
          }
      });
    }
    if (left != 0) outOfRange += left;
  });
  if (op.outOfRange) addOutOfRange(memory.at<int32_t>(op.outOfRange), outOfRange);
}

inline void run(const MaxPoolBackward& op, const Memory& memory, ThreadPool& pool) {
  const Extent& extent = op.extent;
  const int parts = static_cast<int>(op.dy.size()), width = extent.c / parts;
  const int outH = MaxPoolForward::out(extent.h), outW = MaxPoolForward::out(extent.w);
  const auto c = static_cast<size_t>(extent.c);
  const uint8_t* argmax = memory.at<const uint8_t>(op.argmax);
  float* dx = memory.at<float>(op.dx);
  pool.parallelFor(extent.n, [&](int n, int) {
    float* image = dx + static_cast<size_t>(n) * static_cast<size_t>(extent.h) * static_cast<size_t>(extent.w) * c;
    std::memset(image, 0, static_cast<size_t>(extent.h) * static_cast<size_t>(extent.w) * c * sizeof(float));
    for (int row = 0; row < outH; ++row)
      for (int column = 0; column < outW; ++column) {
        const size_t out =
            (static_cast<size_t>(n) * static_cast<size_t>(outH) + static_cast<size_t>(row)) * static_cast<size_t>(outW) +
            static_cast<size_t>(column);
        for (int channel = 0; channel < extent.c; ++channel) {
          const int tap = argmax[out * c + static_cast<size_t>(channel)];
          const int inRow = 2 * row - 1 + tap / 3, inColumn = 2 * column - 1 + tap % 3;
          if (tap > 8 || inRow < 0 || inRow >= extent.h || inColumn < 0 || inColumn >= extent.w) continue;
          const float* dy = memory.at<const float>(op.dy[static_cast<size_t>(channel / width)]);
          image[(static_cast<size_t>(inRow) * static_cast<size_t>(extent.w) + static_cast<size_t>(inColumn)) * c +
                static_cast<size_t>(channel)] += dy[out * static_cast<size_t>(width) + static_cast<size_t>(channel % width)];
        }
      }
  });
}

}  // namespace revnet::REVNET_ISA

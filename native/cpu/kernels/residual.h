// Residual functions and the reversible blocks made of them (the paper's equations 6 to 8 and its Algorithm 1).
//
// Forward in training, each layer is one pass over the batch, because its output's statistics must be known before the next
// layer reads it. Where statistics are saved (recompute) or running (inference), nothing ties images together: all layers of
// one image run back to back, its hidden tensors still in cache. The reversible step goes further: the recompute of an image
// runs straight into the backward pass of its last layer, whose padded input is then already in place.
#pragma once

#include <vector>

#include "cpu/kernels/layer.h"

namespace revnet::REVNET_ISA {

// A residual function made ready: packed weights and norm vectors of every layer.
class ForwardFunction {
 public:
  ForwardFunction(const ResidualFunction& function, Operand x, const Hidden& hidden, Carver& carver) : x_(x), hidden_(hidden) {
    layers_.reserve(function.layers.size());
    for (const auto& layer : function.layers)
      layers_.push_back({layer, ForwardPass(layer.convolution, carver), ChannelNorm(layer.convolution.c, carver),
                         ImageSums(layer.convolution.n, layer.convolution.k, carver)});
  }

  size_t depth() const { return layers_.size(); }
  const Convolution& convolution(size_t i) const { return layers_[i].record.convolution; }
  const ImageSums& outputSums() const { return layers_.back().outputSums; }
  Operand input(size_t i) const { return i == 0 ? x_ : hidden_[i - 1]; }
  const ChannelNorm* norm(size_t i) const { return layers_[i].record.norm ? &layers_[i].norm : nullptr; }

  void setNorm(size_t i, const Memory& memory) {
    if (layers_[i].record.norm) layers_[i].norm.set(layers_[i].record.norm, memory, stepOf(memory, input(i)));
  }
  void packWeights(const Memory& memory, ThreadPool& pool) {
    for (Layer& layer : layers_) layer.pass.pack(pool, memory.at<float>(layer.record.weight));
  }
  void setNorms(const Memory& memory) {
    for (size_t i = 0; i < depth(); ++i) setNorm(i, memory);
  }

  void fill(size_t i, const Memory& memory, float* image, int n) const {
    fillInput(image, convolution(i), memory, input(i), norm(i), n);
  }

  // One layer of one image, from its filled input. The last layer's rows go to lastRow(y, row), the others' to their hidden
  // tensor (and, if asked, their sums to outputSums).
  template <class LastRow>
  void computeLayer(size_t i, const Memory& memory, const Scratch& scratch, int n, bool withSums, const LastRow& lastRow) const {
    const Layer& layer = layers_[i];
    const Convolution& conv = layer.record.convolution;
    if (withSums) layer.outputSums.clear(n);
    if (i + 1 == depth()) return layer.pass.run(scratch, lastRow);
    float* hidden = memory.at<float>(hidden_[i]);
    layer.pass.run(scratch, [&](int y, const float* row) {
      storeRow(row, conv.outW(), conv.k, hidden + outputRow(conv, n, y), withSums ? &layer.outputSums : nullptr, n);
    });
  }

  // All layers of one image, with given statistics. scratch.image is left holding the last layer's input.
  template <class LastRow>
  void computeImage(const Memory& memory, const Scratch& scratch, int n, bool sumsOfLast, const LastRow& lastRow) const {
    for (size_t i = 0; i < depth(); ++i) {
      fill(i, memory, scratch.image, n);
      computeLayer(i, memory, scratch, n, sumsOfLast && i + 1 == depth(), lastRow);
    }
  }

  // All layers of the batch, computing the statistics of the hidden tensors on the way. lastRow(n, y, row).
  template <class LastRow>
  void computeBatch(const Memory& memory, ThreadPool& pool, const ThreadScratch& threads, bool sumsOfLast, const LastRow& lastRow) {
    for (size_t i = 0; i < depth(); ++i) {
      const Convolution& conv = convolution(i);
      const bool last = i + 1 == depth();
      setNorm(i, memory);
      pool.parallelFor(conv.n, [&](int n, int thread) {
        const Scratch scratch = threads.of(thread);
        fill(i, memory, scratch.image, n);
        computeLayer(i, memory, scratch, n, sumsOfLast || !last, [&](int y, const float* row) { lastRow(n, y, row); });
      });
      if (!last)
        layers_[i].outputSums.writeStatistics(conv.n, static_cast<double>(conv.n) * static_cast<double>(outputPixels(conv)),
                                              memory.at<float>(layers_[i + 1].record.norm.statistics));
    }
  }

 private:
  struct Layer {
    const ResidualFunction::Layer& record;
    ForwardPass pass;
    ChannelNorm norm;
    ImageSums outputSums;
  };
  std::vector<Layer> layers_;
  Operand x_;
  const Hidden& hidden_;
};

// y = base + sign * q(row) for one row of a residual function's output. Returns the elements that left the range.
inline int64_t addToStream(const Memory& memory, const Convolution& conv, Operand base, Operand y, float sign, const float* row,
                           int n, int rowIndex, const ImageSums* sums) {
  const StreamSum sum{row, conv.outW(), conv.k, sign};
  const size_t at = outputRow(conv, n, rowIndex);
  if (memory.isFixed(y)) return sum.apply(memory.at<const int32_t>(base) + at, memory.at<int32_t>(y) + at, sums, n);
  return sum.apply(memory.at<const float>(base) + at, memory.at<float>(y) + at, sums, n);
}

// ---- Forward and inverse ------------------------------------------------------------------------------------------------

// What one residual function takes part in: y = base + sign * q(F(x)).
struct ResidualTask {
  const ResidualFunction& function;
  Operand x, base, y;
  const Hidden& hidden;
  bool computeStatistics;
  Operand statistics;  // of y; optional
  Operand outOfRange;  // optional
};

struct ResidualForwardLayout {
  ForwardFunction forward;
  ThreadScratch scratch;
  ResidualForwardLayout(const ResidualFunction& function, Operand x, const Hidden& hidden, int threads, Carver& carver)
      : forward(function, x, hidden, carver) {
    for (const auto& layer : function.layers) scratch.cover(layer.convolution);
    scratch.carve(carver, threads);
  }
};

inline void runResidual(const ResidualTask& task, float sign, const Memory& memory, ThreadPool& pool) {
  Carver carver(memory.workspace);
  ResidualForwardLayout at(task.function, task.x, task.hidden, pool.threads(), carver);
  const Convolution& last = task.function.last();
  const ImageSums* sums = task.statistics ? &at.forward.outputSums() : nullptr;
  std::atomic<int64_t> outOfRange{0};
  const auto finishRow = [&](int n, int y, const float* row) {
    const int64_t left = addToStream(memory, last, task.base, task.y, sign, row, n, y, sums);
    if (left != 0) outOfRange += left;
  };

  at.forward.packWeights(memory, pool);
  if (task.computeStatistics) {
    at.forward.computeBatch(memory, pool, at.scratch, sums != nullptr, finishRow);
  } else {
    at.forward.setNorms(memory);
    pool.parallelFor(last.n, [&](int n, int thread) {
      at.forward.computeImage(memory, at.scratch.of(thread), n, sums != nullptr,
                              [&](int y, const float* row) { finishRow(n, y, row); });
    });
  }
  if (task.outOfRange) addOutOfRange(memory.at<int32_t>(task.outOfRange), outOfRange);
  if (sums) sums->writeStatistics(last.n, static_cast<double>(last.outputElements() / last.k), memory.at<float>(task.statistics));
}

inline void run(const ResidualForward& op, const Memory& memory, ThreadPool& pool) {
  runResidual({op.function, op.x, op.base, op.y, op.hidden, op.computeStatistics, op.statistics, op.outOfRange}, 1, memory, pool);
}

// y1 = x1 + q(F(x2));  y2 = x2 + q(G(y1))
inline void run(const ReversibleForward& op, const Memory& memory, ThreadPool& pool) {
  const bool training = op.computeStatistics;
  runResidual({op.f, op.stream2, op.stream1, op.stream1, op.hidden, training, op.statistics1, op.outOfRange}, 1, memory, pool);
  runResidual({op.g, op.stream1, op.stream2, op.stream2, op.hidden, training, op.statistics2, op.outOfRange}, 1, memory, pool);
}

// x2 = y2 - q(G(y1));  x1 = y1 - q(F(x2))
inline void run(const ReversibleInverse& op, const Memory& memory, ThreadPool& pool) {
  runResidual({op.g, op.stream1, op.stream2, op.stream2, op.hidden, false, {}, {}}, -1, memory, pool);
  runResidual({op.f, op.stream2, op.stream1, op.stream1, op.hidden, false, {}, {}}, -1, memory, pool);
}

// ---- Backward -----------------------------------------------------------------------------------------------------------

struct ResidualGradientTask {
  const ResidualFunction& function;
  const ResidualGradient& gradient;
  Operand x;
  const Hidden& hidden;
  Operand dy, dx;
  Operand
      reconstruct;  // a stream: recompute the hidden tensors and subtract q(F(x)) from it. Absent: hidden is as forward left it.
};

struct ResidualBackwardLayout {
  struct Layer {
    BackwardPass pass;
    ImageSums sums;  // of dz and dz * x^, by input channel
    NormGradientVectors vectors;
  };
  ForwardFunction forward;  // for the norms, and the recompute
  std::vector<Layer> layers;
  ThreadScratch scratch;
  float* partials;  // of one layer's weight gradient
  float* dz;        // [n][dzStride]: gradient of a layer's norm output; the layer below reads an image's before it writes its own
  size_t dzStride = 0;

  ResidualBackwardLayout(const ResidualFunction& function, Operand x, const Hidden& hidden, int threads, Carver& carver)
      : forward(function, x, hidden, carver) {
    size_t partial = 0;
    layers.reserve(function.layers.size());
    for (const auto& layer : function.layers) {
      const Convolution& conv = layer.convolution;
      layers.push_back({BackwardPass(conv, carver), ImageSums(conv.n, conv.c, carver), NormGradientVectors(conv.c, carver)});
      scratch.cover(conv);
      partial = std::max(partial, partialFloats(conv));
      dzStride = std::max(dzStride, inputPixels(conv) * static_cast<size_t>(conv.c));
    }
    const int n = function.first().n;
    scratch.carve(carver, threads);
    partials = carver.take<float>(partial * static_cast<size_t>(chunkCount(n)));
    dz = carver.take<float>(dzStride * static_cast<size_t>(n));
  }
};

// dx += slope * dz + tilt * x + offset: the last step through the first layer's norm.
inline void addNormGradient(const ResidualGradientTask& task, const ResidualBackwardLayout& at, const Memory& memory,
                            ThreadPool& pool) {
  const Convolution& conv = task.function.first();
  const NormGradientVectors& vectors = at.layers.front().vectors;
  const size_t image = inputPixels(conv) * static_cast<size_t>(conv.c);
  withStream(memory, task.x, [&](const auto* x) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(x)>>;
    pool.parallelFor(conv.n, [&](int n, int) {
      const size_t first = static_cast<size_t>(n) * image;
      const NormGradientOf<T> source{at.dz,         static_cast<size_t>(n) * at.dzStride - first, x, vectors.slope, vectors.tilt,
                                     vectors.offset};
      float* dx = memory.at<float>(task.dx);
      forEachBlock(conv.c, [&](int block, int count, auto kind) {
        for (size_t p = first; p < first + image; p += static_cast<size_t>(conv.c)) {
          float* to = dx + p + block * kLanes;
          kind.store(to, kind.load(to, count) + source.read(p, block, count, kind), count);
        }
      });
    });
  });
}

inline void runResidualGradient(const ResidualGradientTask& task, const Memory& memory, ThreadPool& pool) {
  Carver carver(memory.workspace);
  ResidualBackwardLayout at(task.function, task.x, task.hidden, pool.threads(), carver);
  const size_t depth = task.function.layers.size();
  at.forward.setNorms(memory);
  if (task.reconstruct) at.forward.packWeights(memory, pool);

  for (size_t i = depth; i-- > 0;) {
    const ResidualFunction::Layer& record = task.function.layers[i];
    const Convolution& conv = record.convolution;
    ResidualBackwardLayout::Layer& layer = at.layers[i];
    layer.pass.pack(pool, memory.at<float>(record.weight));

    forEachChunk(pool, conv, at.partials, [&](int n, int thread, float* partial) {
      const Scratch scratch = at.scratch.of(thread);
      const size_t firstOutput = static_cast<size_t>(n) * outputPixels(conv);

      if (i + 1 == depth && task.reconstruct) {
        at.forward.computeImage(memory, scratch, n, false, [&](int y, const float* row) {
          addToStream(memory, conv, task.reconstruct, task.reconstruct, -1, row, n, y, nullptr);
        });
      } else {
        at.forward.fill(i, memory, scratch.image, n);
      }

      if (i + 1 == depth) {
        fillImage(scratch.gradient, gradientImage(conv), Plain<float>{memory.at<const float>(task.dy)}, firstOutput);
      } else {
        const NormGradientVectors& above = at.layers[i + 1].vectors;
        const size_t dzShift = static_cast<size_t>(n) * at.dzStride - firstOutput * static_cast<size_t>(conv.k);
        fillImage(
            scratch.gradient, gradientImage(conv),
            NormGradientOf<float>{at.dz, dzShift, memory.at<const float>(task.hidden[i]), above.slope, above.tilt, above.offset},
            firstOutput);
      }

      accumulateWeightsGradient(conv, scratch, partial);

      if (!record.norm) {
        layer.pass.run(scratch, [&](int y, const float* row) {
          accumulateRow(row, conv.w, conv.c, memory.at<float>(task.dx) + inputRow(conv, n, y));
        });
        return;
      }
      layer.sums.clear(n);
      withStream(memory, at.forward.input(i), [&](const auto* x) {
        float* dz = at.dz + static_cast<size_t>(n) * at.dzStride;
        layer.pass.run(scratch, [&](int y, const float* row) {
          const size_t rowAt = static_cast<size_t>(y) * static_cast<size_t>(conv.w) * static_cast<size_t>(conv.c);
          maskRow(row, scratch.image, inputImage(conv), y, x + inputRow(conv, n, y), *at.forward.norm(i), dz + rowAt, layer.sums,
                  n);
        });
      });
    });

    sumPartials(pool, conv, at.partials, chunkCount(conv.n), memory.at<float>(task.gradient.layers[i].weight));
    if (record.norm)
      layer.vectors.set(layer.sums, conv.n, static_cast<double>(conv.n) * static_cast<double>(inputPixels(conv)), record.norm,
                        task.gradient.layers[i].norm, memory, stepOf(memory, at.forward.input(i)));
  }
  if (task.function.layers.front().norm) addNormGradient(task, at, memory, pool);
}

inline void run(const ResidualBackward& op, const Memory& memory, ThreadPool& pool) {
  runResidualGradient({op.function, op.gradient, op.x, op.hidden, op.dy, op.dx, {}}, memory, pool);
}

// Algorithm 1: x2 = y2 - q(G(y1)), dy1 += (dG/dy1)^T dy2;  x1 = y1 - q(F(x2)), dx2 = dy2 + (dF/dx2)^T dy1;  dx1 = dy1.
inline void run(const ReversibleBackward& op, const Memory& memory, ThreadPool& pool) {
  runResidualGradient({op.g, op.gGradient, op.stream1, op.hidden, op.gradient2, op.gradient1, op.stream2}, memory, pool);
  runResidualGradient({op.f, op.fGradient, op.stream2, op.hidden, op.gradient1, op.gradient2, op.stream1}, memory, pool);
}

}  // namespace revnet::REVNET_ISA

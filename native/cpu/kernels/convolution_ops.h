// The standalone convolutions: stem and projection shortcuts.
#pragma once

#include "cpu/kernels/layer.h"

namespace revnet::REVNET_ISA {

struct ConvolutionForwardLayout {
  ForwardPass pass;
  ChannelNorm norm;
  ImageSums sums;
  ThreadScratch scratch;
  ConvolutionForwardLayout(const ConvolutionForward& op, int threads, Carver& carver)
      : pass(op.convolution, carver), norm(op.convolution.c, carver), sums(op.convolution.n, op.convolution.k, carver) {
    scratch.cover(op.convolution);
    scratch.carve(carver, threads);
  }
};

inline void run(const ConvolutionForward& op, const Memory& memory, ThreadPool& pool, ConvolutionForwardLayout& at) {
  const Convolution& conv = op.convolution;
  at.pass.pack(pool, memory.at<float>(op.weight));
  if (op.norm) at.norm.set(op.norm, memory, stepOf(memory, op.x));
  const ImageSums* sums = op.statistics ? &at.sums : nullptr;
  std::atomic<int64_t> outOfRange{0};

  pool.parallelFor(conv.n, [&](int n, int thread) {
    const Scratch scratch = at.scratch.of(thread);
    fillInput(scratch.image, conv, memory, op.x, op.norm ? &at.norm : nullptr, n);
    if (sums) sums->clear(n);
    int64_t left = 0;
    at.pass.run(scratch, [&](int y, const float* row) {
      const StreamSum sum{row, conv.outW(), conv.k, 1.0f};
      const size_t to = outputRow(conv, n, y);
      if (memory.isFixed(op.y)) {
        left += sum.apply(static_cast<const int32_t*>(nullptr), memory.at<int32_t>(op.y) + to, sums, n);
      } else {
        storeRow(row, conv.outW(), conv.k, memory.at<float>(op.y) + to, sums, n);
      }
    });
    if (left != 0) outOfRange += left;
  });

  if (op.outOfRange) addOutOfRange(memory.at<int32_t>(op.outOfRange), outOfRange);
  if (sums) sums->writeStatistics(conv.n, static_cast<double>(conv.outputElements() / conv.k), memory.at<float>(op.statistics));
}

struct ConvolutionBackwardDataLayout {
  BackwardPass pass;
  ThreadScratch scratch;
  ConvolutionBackwardDataLayout(const ConvolutionBackwardData& op, int threads, Carver& carver) : pass(op.convolution, carver) {
    scratch.cover(op.convolution);
    scratch.carve(carver, threads);
  }
};

inline void run(const ConvolutionBackwardData& op, const Memory& memory, ThreadPool& pool, ConvolutionBackwardDataLayout& at) {
  const Convolution& conv = op.convolution;
  at.pass.pack(pool, memory.at<float>(op.weight));
  pool.parallelFor(conv.n, [&](int n, int thread) {
    const Scratch scratch = at.scratch.of(thread);
    fillImage(scratch.gradient, gradientImage(conv), Plain<float>{memory.at<float>(op.dy)},
              static_cast<size_t>(n) * outputPixels(conv));
    at.pass.run(scratch, [&](int y, const float* row) {
      storeRow(row, conv.w, conv.c, memory.at<float>(op.dx) + inputRow(conv, n, y), nullptr, n);
    });
  });
}

struct ConvolutionBackwardWeightsLayout {
  ChannelNorm norm;
  ThreadScratch scratch;
  float* partials;
  ConvolutionBackwardWeightsLayout(const ConvolutionBackwardWeights& op, int threads, Carver& carver)
      : norm(op.convolution.c, carver) {
    scratch.cover(op.convolution);
    scratch.carve(carver, threads);
    partials = carver.take<float>(partialFloats(op.convolution) * static_cast<size_t>(chunkCount(op.convolution.n)));
  }
};

inline void run(const ConvolutionBackwardWeights& op, const Memory& memory, ThreadPool& pool,
                ConvolutionBackwardWeightsLayout& at) {
  const Convolution& conv = op.convolution;
  if (op.norm) at.norm.set(op.norm, memory, stepOf(memory, op.x));
  forEachChunk(pool, conv, at.partials, [&](int n, int thread, float* partial) {
    const Scratch scratch = at.scratch.of(thread);
    fillInput(scratch.image, conv, memory, op.x, op.norm ? &at.norm : nullptr, n);
    fillImage(scratch.gradient, gradientImage(conv), Plain<float>{memory.at<float>(op.dy)},
              static_cast<size_t>(n) * outputPixels(conv));
    accumulateWeightsGradient(conv, scratch, partial);
  });
  sumPartials(pool, conv, at.partials, chunkCount(conv.n), memory.at<float>(op.weightGradient));
}

}  // namespace revnet::REVNET_ISA

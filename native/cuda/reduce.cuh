// Sums over a batch, by channel, in two stages and a fixed order: each block leaves its partial sums in the workspace, and the
// block that finishes last adds those of all blocks. Which block that is varies; the order in which it adds does not.
#pragma once

#include "cuda/norm.cuh"

#if defined(__CUDACC__) || defined(REVNET_EMULATED)

namespace revnet::cuda {

// A sum with the rounding errors of its additions beside it (Knuth's two-sum): as good as float64, without its slow units.
struct CompensatedSum {
  float sum = 0, error = 0;

  __device__ void add(float v) {
    const float after = sum + v, added = after - sum;
    error += (sum - (after - added)) + (v - added);
    sum = after;
  }
  __device__ void add(const CompensatedSum& other) {
    add(other.sum);
    error += other.error;
  }
  __device__ float value() const { return sum + error; }
};

// Whether this block is the last of `blocks` that come to `counter`; its threads then see what all of them wrote (with
// loadFresh). All threads of the block take part. `word`: shared memory of the block that nothing else uses meanwhile.
// One thread's fences are enough: barriers order what the others wrote before them, and fences are cumulative.
__device__ inline bool isLastBlock(unsigned* counter, unsigned blocks, unsigned* word) {
  syncBlock();
  if (threadIdx.x == 0) {
    fence();
    *word = atomicIncrement(counter, blocks - 1) == blocks - 1;
    fence();
  }
  syncBlock();
  return *word != 0;
}

// Two partial sums by block and channel, [blocks][c].
struct ChannelPartials {
  float2* sums;
  int blocks, c;
  __device__ float2& at(int block, int channel) const { return sums[static_cast<int64_t>(block) * c + channel]; }
};

// For the last block, over channels [begin, end), at most as many as it has threads: a thread calls load(block, channel) for its
// share of a channel's blocks, eight at a time, and add(first, second, what was loaded) for each; finish(channel, first, second) is
// called with both sums over all blocks, in some thread. `shared`: one for each thread.
template <class Load, class Add, class Finish>
__device__ void forEachChannelTotal(int blocks, int begin, int end, float4* shared, const Load& load, const Add& add,
                                    const Finish& finish) {
  constexpr int kAtOnce = 8;
  const int thread = static_cast<int>(threadIdx.x), count = end - begin, parts = static_cast<int>(blockDim.x) / count;
  const int channel = begin + thread % count, part = thread / count;
  if (part < parts) {
    CompensatedSum first, second;
    for (int from = part; from < blocks; from += kAtOnce * parts) {
      decltype(load(0, 0)) loaded[kAtOnce] = {};
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
        if (from + i * parts < blocks) loaded[i] = load(from + i * parts, channel);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
        if (from + i * parts < blocks) add(first, second, loaded[i]);
    }
    shared[thread] = make_float4(first.sum, first.error, second.sum, second.error);
  }
  syncBlock();
  if (part != 0) return;
  CompensatedSum first, second;
  for (int i = 0; i < parts; ++i) {
    const float4 partial = shared[i * count + thread];
    first.add(CompensatedSum{partial.x, partial.y});
    second.add(CompensatedSum{partial.z, partial.w});
  }
  finish(channel, first, second);
}

// Of pairs of sums, such as dz and dz * x^: finish(channel, first, second).
template <class Finish>
__device__ void forEachPairTotal(const ChannelPartials& partials, int begin, int end, float4* shared, const Finish& finish) {
  forEachChannelTotal(
      partials.blocks, begin, end, shared, [&](int block, int channel) { return loadFresh(&partials.at(block, channel)); },
      [](CompensatedSum& first, CompensatedSum& second, const float2& partial) {
        first.add(partial.x);
        second.add(partial.y);
      },
      [&](int channel, const CompensatedSum& first, const CompensatedSum& second) {
        finish(channel, first.value(), second.value());
      });
}

// Of means and sums of squared distances from them: finish(channel, mean, biased variance). counts[block]: how many values a
// channel has in a block, at least one in block 0; `count`: in all. Distances are from block 0's mean, as that of all is not known
// yet: it is so near that the square of the distance between the two is small beside the variance.
template <class Finish>
__device__ void forEachStatistics(const ChannelPartials& partials, const float* counts, float count, int begin, int end,
                                  float4* shared, const Finish& finish) {
  struct Partial {
    float mean, squares, count, origin;
  };
  forEachChannelTotal(
      partials.blocks, begin, end, shared,
      [&](int block, int channel) {
        const float2 partial = loadFresh(&partials.at(block, channel));
        return Partial{partial.x, partial.y, loadFresh(counts + block), loadFresh(&partials.at(0, channel)).x};
      },
      [](CompensatedSum& first, CompensatedSum& second, const Partial& partial) {
        const float distance = partial.mean - partial.origin, weighted = partial.count * distance;
        first.add(weighted);
        second.add(fmaf(weighted, distance, partial.squares));
      },
      [&](int channel, const CompensatedSum& first, const CompensatedSum& second) {
        const float shift = first.value() / count, variance = (second.value() - first.value() * shift) / count;
        finish(channel, loadFresh(&partials.at(0, channel)).x + shift, variance < 0.0f ? 0.0f : variance);
      });
}

// From the sums of dz and dz * x^ of one channel over `count` values: the gradients of gamma and beta, and the vectors through
// which dx is read. `step`: of x as stored.
__device__ inline void finishNormGradient(const NormArguments& norm, int channel, float dz, float dzx, float count, float step,
                                          float* gammaGradient, float* betaGradient, const NormGradientVectors& vectors) {
  const float inverse = inverseDeviation(norm, channel), slope = norm.gamma[channel] * inverse;
  const float perStd = slope * (dzx / count) * inverse;
  gammaGradient[channel] = dzx;
  betaGradient[channel] = dz;
  vectors.slope[channel] = slope;
  vectors.tilt[channel] = -perStd * step;
  vectors.offset[channel] = fmaf(perStd, norm.statistics[channel], -slope * (dz / count));
}

}  // namespace revnet::cuda

#endif

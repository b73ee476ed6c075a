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
  // Of the warp's lanes, in a fixed order; every lane gets it.
  __device__ CompensatedSum overWarp() const {
    CompensatedSum total = *this;
    for (int lanes = 1; lanes < kWarp; lanes *= 2) {
      // Both lanes of a pair add in the same order: the lower lane's sum first.
      CompensatedSum lower = total, upper{shuffleXor(total.sum, lanes), shuffleXor(total.error, lanes)};
      if ((threadIdx.x & static_cast<unsigned>(lanes)) != 0) {
        const CompensatedSum own = lower;
        lower = upper;
        upper = own;
      }
      lower.add(upper);
      total = lower;
    }
    return total;
  }
  __device__ float value() const { return sum + error; }
};

// Whether this block is the last of `blocks` that come to `counter`; its threads then see what all of them wrote (with
// loadFresh). All threads of the block take part. `word`: shared memory of the block that nothing else uses meanwhile.
__device__ inline bool isLastBlock(unsigned* counter, unsigned blocks, unsigned* word) {
  fence();
  syncBlock();
  if (threadIdx.x == 0) *word = atomicIncrement(counter, blocks - 1) == blocks - 1;
  syncBlock();
  const bool last = *word != 0;
  if (last) fence();
  return last;
}

// Partial sums by channel and block: [c][2][blocks], so that the last block reads them in rows.
struct ChannelPartials {
  float* sums;
  int blocks, c;
  __device__ float& at(int channel, int which, int block) const {
    return sums[(static_cast<int64_t>(channel) * 2 + which) * blocks + block];
  }
};

// Calls finish(channel, first, second) for channels [begin, end), in some lane, with both sums over all blocks. For the last block.
template <class Finish>
__device__ void forEachChannelTotal(const ChannelPartials& partials, int begin, int end, const Finish& finish) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warps = static_cast<int>(blockDim.x) / kWarp;
  for (int channel = begin + static_cast<int>(threadIdx.x) / kWarp; channel < end; channel += warps) {
    CompensatedSum first, second;
    for (int block = lane; block < partials.blocks; block += kWarp) {
      first.add(loadFresh(&partials.at(channel, 0, block)));
      second.add(loadFresh(&partials.at(channel, 1, block)));
    }
    const float a = first.overWarp().value(), b = second.overWarp().value();
    if (lane == 0) finish(channel, a, b);
  }
}

// statistics[2][c] = mean, biased variance of channels [begin, end). A block's partials are the mean of its values and the sum of
// their squared distances from it; counts[block]: how many values a channel has in a block; `count`: in all. For the last block.
__device__ inline void finishStatistics(const ChannelPartials& partials, const float* counts, float count, int begin, int end,
                                        float* statistics) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warps = static_cast<int>(blockDim.x) / kWarp;
  for (int channel = begin + static_cast<int>(threadIdx.x) / kWarp; channel < end; channel += warps) {
    CompensatedSum sum, squares;
    for (int block = lane; block < partials.blocks; block += kWarp)
      sum.add(loadFresh(&partials.at(channel, 0, block)) * loadFresh(counts + block));
    const float mean = sum.overWarp().value() / count;
    for (int block = lane; block < partials.blocks; block += kWarp) {
      const float distance = loadFresh(&partials.at(channel, 0, block)) - mean;
      squares.add(fmaf(loadFresh(counts + block) * distance, distance, loadFresh(&partials.at(channel, 1, block))));
    }
    const float variance = squares.overWarp().value() / count;
    if (lane == 0) {
      statistics[channel] = mean;
      statistics[partials.c + channel] = variance < 0.0f ? 0.0f : variance;
    }
  }
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

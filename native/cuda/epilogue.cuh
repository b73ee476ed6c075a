// What becomes of a convolution's sums while they are still on the chip: added to a stream and rounded, or masked by ReLU; and
// their sums by channel, from a thread's four channels to the block's to those of the whole tensor.
#pragma once

#include "cuda/prepare.cuh"
#include "cuda/vector.cuh"

namespace revnet::cuda {

constexpr int kConvolutionThreads = 128;

#if REVNET_KERNEL_CODE

// Running sums of a thread's four channels.
class ChannelSums {
 public:
  // Of values and their squares, as distances from the first value: what float32 rounds is of the size of the deviations.
  __device__ void addValues(const float (&v)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (count_ == 0) origin_[i] = v[i];
      const float distance = v[i] - origin_[i];
      first_[i] += distance;
      second_[i] = fmaf(distance, distance, second_[i]);
    }
    ++count_;
  }
  __device__ void addPairs(const float (&a)[4], const float (&b)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      first_[i] += a[i];
      second_[i] += b[i];
    }
  }

  // Leaves the block's sums of its column tile as partial sums of block `block`: mean and squared distances from it (of values),
  // or the two sums (of pairs). `shared`: 128 threads x 9 floats.
  template <int kColumns>
  __device__ void leave(bool values, float* shared, const ChannelPartials& partials, float* counts, int block,
                        int firstChannel) const {
    constexpr int kGroups = kColumns / 4, kLanes = kConvolutionThreads / kGroups;
    const int thread = static_cast<int>(threadIdx.x), group = thread % kGroups, lane = thread / kGroups;
    float* const laneCounts = shared + 2 * kLanes * kColumns;
    const auto n = static_cast<float>(count_);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float* const to = shared + 2 * (lane * kColumns + 4 * group + i);
      const float mean = count_ > 0 ? first_[i] / n : 0.0f;
      to[0] = values ? origin_[i] + mean : first_[i];
      to[1] = values ? second_[i] - first_[i] * mean : second_[i];
    }
    if (group == 0) laneCounts[lane] = n;
    syncBlock();
    const int channel = firstChannel + thread;
    if (thread < kColumns && channel < partials.c) {
      float first = 0, second = 0, total = 0;
      for (int i = 0; i < kLanes; ++i) {
        const float a = shared[2 * (i * kColumns + thread)], b = shared[2 * (i * kColumns + thread) + 1];
        if (!values) {
          first += a;
          second += b;
          continue;
        }
        // Two sets of values become one (Chan, Golub and LeVeque 1979).
        const float more = laneCounts[i], both = total + more;
        if (more == 0.0f) continue;
        const float distance = a - first, share = more / both;
        first = fmaf(distance, share, first);
        second += fmaf(distance * distance, total * share, b);
        total = both;
      }
      partials.at(channel, 0, block) = first;
      partials.at(channel, 1, block) = second;
      if (values && thread == 0) counts[block] = total;
    }
  }

 private:
  float origin_[4] = {}, first_[4] = {}, second_[4] = {};
  int count_ = 0;
};

// y = base + sign * q(sum) at four channels; `sum` becomes y in its units. Returns how many left the range.
__device__ inline int addFour(const Target& target, int64_t at, float (&sum)[4], int count, bool whole) {
  int left = 0;
  if (target.y.fixed) {
    int y[4] = {};
    if (target.base) loadFour(y, static_cast<const int*>(target.base.data) + at, count, whole);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) y[i] = addFixed(y[i], sum[i], target.sign, left);
      sum[i] = static_cast<float>(y[i]) * kFixedStep;
    }
    storeFour(static_cast<int*>(target.y.data) + at, y, count, whole);
    return left;
  }
  if (target.base) {
    float base[4];
    loadFour(base, static_cast<const float*>(target.base.data) + at, count, whole);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] = target.sign > 0 ? base[i] + sum[i] : base[i] - sum[i];
  }
  storeFour(static_cast<float*>(target.y.data) + at, sum, count, whole);
  return 0;
}

// dz at four channels, from what the convolution gave; `standard`: dz * x^.
__device__ inline void maskFour(const Target& target, int64_t at, int channel, float (&dz)[4], float (&standard)[4], int count,
                                bool whole) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    standard[i] = 0.0f;
    if (i >= count) continue;
    const ChannelNorm norm = target.norm[channel + i];
    const float x = target.x.stored(at + i);
    if (fmaf(x, norm.scale, norm.shift) <= 0.0f) dz[i] = 0.0f;
    standard[i] = dz[i] * fmaf(x, norm.inverse, norm.center);
  }
  storeFour(static_cast<float*>(target.y.data) + at, dz, count, whole);
}

// What the last block of a column tile does: totals, and what follows from them. `count`: values a channel.
__device__ inline void finish(const Target& target, const ChannelPartials& partials, const float* counts, float count, int begin,
                              int end) {
  if (target.writing == Writing::Mask) {
    forEachChannelTotal(partials, begin, end, [&](int channel, float dz, float dzx) {
      finishNormGradient(target.normArguments, channel, dz, dzx, count, target.x.step(), target.gammaGradient, target.betaGradient,
                         target.vectors);
    });
    return;
  }
  const StatisticsTarget& to = target.statistics;
  finishStatistics(partials, counts, count, begin, end, to.statistics);
  if (to.norm == nullptr) return;
  syncBlock();
  for (int channel = begin + static_cast<int>(threadIdx.x); channel < end; channel += kConvolutionThreads)
    to.norm[channel] = channelNorm(to.next, channel, target.y.step());
}

#endif

}  // namespace revnet::cuda

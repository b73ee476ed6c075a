// What becomes of a convolution's sums while they are still in registers: added to a stream and rounded, or masked by ReLU; and
// their sums by channel, from a lane's pixels to the block's to those of the whole tensor.
#pragma once

#include "cuda/math.cuh"
#include "cuda/prepare.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vector.cuh"

namespace revnet::cuda {

constexpr int kConvolutionThreads = 256;
constexpr int kConvolutionWarps = kConvolutionThreads / kWarp;

#if REVNET_KERNEL_CODE

// A warp's place in its block: kColumnWarps warps share 32 pixels.
template <int kColumnWarps>
struct WarpPlace {
  int column, pixel;
  __device__ explicit WarpPlace(int thread) : column(thread / kWarp % kColumnWarps), pixel(thread / kWarp / kColumnWarps) {}
};

// Running sums of a lane's channels (ownChannel) over its pixels: of what is written and its square (Add), or of dz and dz * x^
// (Mask).
template <int kPairs, Writing kWriting>
class ChannelSums {
  static constexpr bool kValues = kWriting == Writing::Add;

 public:
  // Values and their squares, as distances from the first value: what float32 rounds is of the size of the deviations. `before`:
  // how many values of the channel came before this one.
  __device__ void addValues(int pair, int before, const float (&v)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (before == 0) origin_[pair][i] = v[i];
      const float distance = v[i] - origin_[pair][i];
      first_[pair][i] += distance;
      second_[pair][i] = fmaf(distance, distance, second_[pair][i]);
    }
  }
  __device__ int count() const { return count_; }
  __device__ void setCount(int count) { count_ = count; }
  __device__ void addPairs(int pair, const float (&a)[4], const float (&b)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      first_[pair][i] += a[i];
      second_[pair][i] += b[i];
    }
  }

  // Leaves the block's sums of its channels, from firstChannel on, as partial sums of block `block`: mean and squared distances
  // from it (of values), or the two sums (of pairs). `shared`: kSharedFloats.
  static constexpr int kSharedFloats = kConvolutionWarps * (2 * 16 * kPairs + 1);
  template <int kColumnWarps>
  __device__ void leave(float* shared, const ChannelPartials& partials, float* counts, int block, int firstChannel) {
    constexpr int kColumns = 16 * kPairs * kColumnWarps, kPixelWarps = kConvolutionWarps / kColumnWarps;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
    const WarpPlace<kColumnWarps> warp(thread);
    auto* const sums = reinterpret_cast<float2*>(shared);  // [pixel warps][columns]
    float* const warpCounts = shared + 2 * kPixelWarps * kColumns;
    auto count = static_cast<float>(count_);
    if constexpr (kValues) {
#pragma unroll
      for (int i = 0; i < 4 * kPairs; ++i) {
        float &first = first_[i / 4][i % 4], &second = second_[i / 4][i % 4];
        const float mean = count > 0.0f ? first / count : 0.0f;
        second -= first * mean;
        first = origin_[i / 4][i % 4] + mean;
      }
    }
    // Lanes 4, 8 and 16 apart have the same channels; what counts is what becomes of the lower of two.
#pragma unroll
    for (int apart = 4; apart < kWarp; apart *= 2) {
      const float more = shuffleXor(count, apart);
      const Merge merge(count, more);
#pragma unroll
      for (int i = 0; i < 4 * kPairs; ++i) {
        float &first = first_[i / 4][i % 4], &second = second_[i / 4][i % 4];
        merge(first, second, shuffleXor(first, apart), shuffleXor(second, apart));
      }
      count += more;
    }
    syncBlock();
    if (lane < 4) {
#pragma unroll
      for (int i = 0; i < 4 * kPairs; ++i) {
        const int column = warp.column * 16 * kPairs + ownChannel(thread, i / 4) + i % 4;
        sums[warp.pixel * kColumns + column] = make_float2(first_[i / 4][i % 4], second_[i / 4][i % 4]);
      }
      if (lane == 0 && warp.column == 0) warpCounts[warp.pixel] = count;
    }
    syncBlock();
    const int channel = firstChannel + thread;
    if (thread >= kColumns || channel >= partials.c) return;
    float2 total = sums[thread];
    count = warpCounts[0];
    for (int i = 1; i < kPixelWarps; ++i) {
      const float2 sum = sums[i * kColumns + thread];
      Merge(count, warpCounts[i])(total.x, total.y, sum.x, sum.y);
      count += warpCounts[i];
    }
    partials.at(block, channel) = total;
    if (kValues && thread == 0) counts[block] = count;
  }

 private:
  // Two sets of values become one (Chan, Golub and LeVeque 1979), or two sums.
  class Merge {
   public:
    __device__ Merge(float count, float more) : share_(more > 0.0f ? more / (count + more) : 0.0f), weight_(count * share_) {}
    __device__ void operator()(float& first, float& second, float otherFirst, float otherSecond) const {
      if constexpr (kValues) {
        const float distance = otherFirst - first;
        first = fmaf(distance, share_, first);
        second += fmaf(distance * distance, weight_, otherSecond);
      } else {
        first += otherFirst;
        second += otherSecond;
      }
    }

   private:
    float share_, weight_;
  };

  float origin_[kPairs][4] = {}, first_[kPairs][4] = {}, second_[kPairs][4] = {};
  int count_ = 0;
};

// Where a lane's pixels are in the tensor that is written; negative: nowhere.
struct OwnPixels {
  int at[kOwnPixels];
  __device__ int64_t element(int i, int c, int channel) const { return static_cast<int64_t>(at[i]) * c + channel; }
};

// y = base + sign * q(sums), for the lane's channels of which the first is `channel`. Returns how many left the range.
template <class Tile, int kPairs>
__device__ int addTile(const Target& target, const Tile& tile, const OwnPixels& pixels, int channel, int c, bool whole,
                       ChannelSums<kPairs, Writing::Add>& sums) {
  const bool isFixed = target.y.fixed, hasBase = static_cast<bool>(target.base);
  int left = 0, values = 0;
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int first = channel + 16 * pair, count = c - first;
    int y[kOwnPixels][4] = {};
    if (hasBase && count > 0) {
#pragma unroll
      for (int i = 0; i < kOwnPixels; ++i)
        if (pixels.at[i] >= 0)
          loadFour(y[i], static_cast<const int*>(target.base.data) + pixels.element(i, c, first), count, whole);
    }
    values = sums.count();
#pragma unroll
    for (int i = 0; i < kOwnPixels; ++i) {
      if (pixels.at[i] < 0) continue;
      float sum[4];
      tile.four(i, pair, sum);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (isFixed) {
          if (j < count) y[i][j] = addFixed(y[i][j], sum[j], target.sign, left);
          sum[j] = static_cast<float>(y[i][j]) * kFixedStep;
        } else {
          if (hasBase) sum[j] = target.sign > 0 ? asFloat(y[i][j]) + sum[j] : asFloat(y[i][j]) - sum[j];
          y[i][j] = asInt(sum[j]);
        }
      }
      if (count > 0) storeFour(static_cast<int*>(target.y.data) + pixels.element(i, c, first), y[i], count, whole);
      sums.addValues(pair, values++, sum);
    }
  }
  sums.setCount(values);
  return left;
}

// dz = sums where relu(norm(x)) let its input through, for the lane's channels of which the first is `channel`.
template <class Tile, int kPairs>
__device__ void maskTile(const Target& target, const Tile& tile, const OwnPixels& pixels, int channel, int c, bool whole,
                         ChannelSums<kPairs, Writing::Mask>& sums) {
  const bool isFixed = target.x.fixed;
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int first = channel + 16 * pair, count = c - first;
    if (count <= 0) continue;
    int x[kOwnPixels][4] = {};
#pragma unroll
    for (int i = 0; i < kOwnPixels; ++i)
      if (pixels.at[i] >= 0) loadFour(x[i], static_cast<const int*>(target.x.data) + pixels.element(i, c, first), count, whole);
    ChannelNorm norm[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) norm[j] = j < count ? target.norm[first + j] : ChannelNorm{};
#pragma unroll
    for (int i = 0; i < kOwnPixels; ++i) {
      if (pixels.at[i] < 0) continue;
      float dz[4], standard[4];
      tile.four(i, pair, dz);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float value = isFixed ? static_cast<float>(x[i][j]) : asFloat(x[i][j]);
        if (fmaf(value, norm[j].scale, norm[j].shift) <= 0.0f) dz[j] = 0.0f;
        standard[j] = dz[j] * fmaf(value, norm[j].inverse, norm[j].center);
      }
      storeFour(static_cast<float*>(target.y.data) + pixels.element(i, c, first), dz, count, whole);
      sums.addPairs(pair, dz, standard);
    }
  }
}

// What the last block of a column tile does: totals, and what follows from them. `count`: values a channel. `shared`: a float4 for
// each thread.
template <Writing kWriting>
__device__ void finish(const Target& target, const ChannelPartials& partials, const float* counts, float count, int begin, int end,
                       float4* shared) {
  if constexpr (kWriting == Writing::Mask) {
    forEachPairTotal(partials, begin, end, shared, [&](int channel, float dz, float dzx) {
      finishNormGradient(target.normArguments, channel, dz, dzx, count, target.x.step(), target.gammaGradient, target.betaGradient,
                         target.vectors);
    });
  } else {
    const StatisticsTarget& to = target.statistics;
    forEachStatistics(partials, counts, count, begin, end, shared, [&](int channel, float mean, float variance) {
      to.statistics[channel] = mean;
      to.statistics[partials.c + channel] = variance;
      if (to.norm != nullptr) to.norm[channel] = channelNorm(to.next, channel, target.y.step());
    });
  }
}

#endif

}  // namespace revnet::cuda

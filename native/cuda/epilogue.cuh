// What becomes of a convolution's sums while they are still in registers: added to a stream and rounded, or masked by ReLU; and
// their sums by channel, from a lane's pixels to the block's to those of the whole tensor.
#pragma once

#include "cuda/math.cuh"
#include "cuda/patch.cuh"
#include "cuda/prepare.cuh"
#include "cuda/reduce.cuh"
#include "cuda/vector.cuh"

namespace revnet::cuda {

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
  // Values and their squares, as distances from a first one: what float32 rounds is of the size of the deviations. Of a lane's
  // pixels v those that exist.
  __device__ void addValues(int pair, const float (&v)[kOwnPixels][4], const bool (&exists)[kOwnPixels]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (count_ == 0) origin_[pair][i] = v[0][i];
#pragma unroll
      for (int pixel = 0; pixel < kOwnPixels; ++pixel) {
        const float distance = exists[pixel] ? v[pixel][i] - origin_[pair][i] : 0.0f;
        first_[pair][i] += distance;
        second_[pair][i] = fmaf(distance, distance, second_[pair][i]);
      }
    }
  }
  __device__ void count(const bool (&exists)[kOwnPixels]) {
#pragma unroll
    for (const bool one : exists) count_ += one ? 1 : 0;
  }
  __device__ void addPairs(int pair, const float (&a)[4], const float (&b)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      first_[pair][i] += a[i];
      second_[pair][i] += b[i];
    }
  }

  // Leaves the block's sums of its channels, from firstChannel on, as partial sums of block `block`: mean and squared distances
  // from it (of values, which are multiples of `step`), or the two sums (of pairs). `shared`: kSharedFloats.
  static constexpr int kSharedFloats = kConvolutionWarps * (2 * 16 * kPairs + 1);
  template <int kColumnWarps>
  __device__ void leave(float* shared, const ChannelPartials& partials, float* counts, int block, int firstChannel, float step) {
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
        second = (second - first * mean) * step * step;
        first = (origin_[i / 4][i % 4] + mean) * step;
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

// Where a lane's pixels are in the tensor that is written.
struct OwnPixels {
  int64_t origin;  // elements, of the tile's first pixel
  int distance[kOwnPixels];
  bool exists[kOwnPixels];

  // `own`: of the tile's pixels, the lane's first.
  __device__ OwnPixels(const BoxPixel* own, const Inside& inside, int64_t at) : origin(at) {
#pragma unroll
    for (int i = 0; i < kOwnPixels; ++i) {
      const BoxPixel pixel = own[ownPixel(0, i)];
      distance[i] = pixel.distance, exists[i] = inside.contains(pixel.place);
    }
  }
};

// Four channels of each of a lane's pixels, as they lie in memory. kNarrow: they may be narrow, and then are in x and y.
template <bool kNarrow>
struct OwnWords {
  uint4 at[kOwnPixels];

  // From `channel` on, of c; zeros where the pixel or the channel does not exist, and unless `wanted`. `whole`: four at once.
  __device__ void load(const StreamPointer& stream, const OwnPixels& pixels, int channel, int c, bool whole, bool wanted) {
    const auto* const words = stream.at<const uint32_t>(pixels.origin + channel);
    const int count = c - channel;
    if (whole) {
#pragma unroll
      for (int i = 0; i < kOwnPixels; ++i) {
        const bool exists = wanted && pixels.exists[i] && count > 0;
        if constexpr (kNarrow) {
          // In two accesses, the second of which narrow ones do not make: a branch would make each wait for the one before it.
          const int log = stream.narrow ? 0 : 1;
          const auto* const halves = stream.at<const uint16_t>((pixels.origin + channel) << log);
          const int64_t from = static_cast<int64_t>(pixels.distance[i]) << log;
          const uint2 low = loadFourHalvesWhere(exists, halves, from);
          const uint2 high = loadFourHalvesWhere(exists && !stream.narrow, halves, from + 4);
          at[i] = make_uint4(low.x, low.y, high.x, high.y);
        } else {
          at[i] = loadFourWhere(exists, words, pixels.distance[i]);
        }
      }
    } else if (kNarrow && stream.narrow) {
      const auto* const halves = stream.at<const uint16_t>(pixels.origin + channel);
#pragma unroll
      for (int i = 0; i < kOwnPixels; ++i) {
        const uint4 four = loadUpToFour(wanted && pixels.exists[i], halves, pixels.distance[i], count);
        at[i] = make_uint4(four.x >> 16 | four.y, four.z >> 16 | four.w, 0, 0);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kOwnPixels; ++i) at[i] = loadUpToFour(wanted && pixels.exists[i], words, pixels.distance[i], count);
    }
  }
  __device__ void unpack(int i, int (&v)[4]) const {
    v[0] = static_cast<int>(at[i].x), v[1] = static_cast<int>(at[i].y), v[2] = static_cast<int>(at[i].z);
    v[3] = static_cast<int>(at[i].w);
  }
};

// y = base + sign * q(sums), for the lane's channels of which the first is `channel`. Returns how many left the range, where that
// is counted. `base`: zeros where there is none. kNarrow: y may be narrow, and then has no base.
// kSums: whether statistics and what left the range may be asked for.
template <bool kNarrow, bool kSums, class Tile, int kPairs>
__device__ int addTile(const Target& target, const Tile& tile, const OwnPixels& pixels, const OwnWords<false> (&base)[kPairs],
                       int channel, int c, bool whole, ChannelSums<kPairs, Writing::Add>& sums) {
  int left = 0;
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int first = channel + 16 * pair, count = c - first;
    int y[kOwnPixels][4];
    float v[kOwnPixels][4];
#pragma unroll
    for (int i = 0; i < kOwnPixels; ++i) {
      base[pair].unpack(i, y[i]);
      tile.four(i, pair, v[i]);
    }
    if (target.y.fixed) {
      // Whether any sum overflowed, or any of the numbers that were added cannot be an int32: rare, and then they are counted.
      int overflow = 0;
      float largest = 0.0f;
#pragma unroll
      for (int i = 0; i < kOwnPixels; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float scaled = pixels.exists[i] ? v[i][j] * kFixedScale : 0.0f;
          const int q = roundToInt(scaled), before = y[i][j];
          y[i][j] = wrappingSum(before, target.sign, q);
          overflow |= (before ^ y[i][j]) & (q ^ y[i][j]);  // of sums; differences are not counted
          largest = maxNan(largest, fabsf(scaled));
        }
      if (kSums && target.outOfRange != nullptr && (overflow < 0 || !(largest < 0x1p31f))) {
#pragma unroll
        for (int i = 0; i < kOwnPixels; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            int before[4];
            base[pair].unpack(i, before);
            if (pixels.exists[i] && j < count) addFixed(before[j], v[i][j], target.sign, left);
          }
      }
#pragma unroll
      for (int i = 0; i < kOwnPixels; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) v[i][j] = static_cast<float>(y[i][j]);
    } else if (!kNarrow || !target.y.narrow) {
      const auto sign = static_cast<float>(target.sign);
#pragma unroll
      for (int i = 0; i < kOwnPixels; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          v[i][j] = fmaf(sign, v[i][j], asFloat(y[i][j]));
          y[i][j] = asInt(v[i][j]);
        }
    }
    if (kNarrow && target.y.narrow) {
      auto* const to = static_cast<uint16_t*>(target.y.data) + pixels.origin + first;
#pragma unroll
      for (int i = 0; i < kOwnPixels; ++i) {
        const uint2 rounded = roundFour(v[i]);
        if (pixels.exists[i] && count > 0) storeFour(to + pixels.distance[i], rounded, count, whole);
      }
    } else {
      int* const to = static_cast<int*>(target.y.data) + pixels.origin + first;
#pragma unroll
      for (int i = 0; i < kOwnPixels; ++i)
        if (pixels.exists[i] && count > 0) storeFour(to + pixels.distance[i], y[i], count, whole);
    }
    if (kSums && target.statistics.statistics != nullptr) sums.addValues(pair, v, pixels.exists);
  }
  if (kSums) sums.count(pixels.exists);
  return left;
}

// dz = sums where relu(norm(x)) let its input through, for the lane's channels of which the first is `channel`. kNarrow: dz is
// narrow, and x may be.
template <bool kNarrow, class Tile, int kPairs>
__device__ void maskTile(const Target& target, const Tile& tile, const OwnPixels& pixels, const OwnWords<kNarrow> (&x)[kPairs],
                         int channel, int c, bool whole, ChannelSums<kPairs, Writing::Mask>& sums) {
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int first = channel + 16 * pair, count = c - first;
    ChannelNorm norm[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint4 words = loadFourWhere(j < count, reinterpret_cast<const uint32_t*>(target.norm), 4 * (first + j));
      norm[j] = {asFloat(words.x), asFloat(words.y), asFloat(words.z), asFloat(words.w)};
    }
    float v[kOwnPixels][4];
#pragma unroll
    for (int i = 0; i < kOwnPixels; ++i) {
      int words[4];
      x[pair].unpack(i, words);
#pragma unroll
      for (int j = 0; j < 4; ++j) v[i][j] = asFloat(words[j]);
    }
    if (kNarrow && target.x.narrow) {
#pragma unroll
      for (auto& four : v) {
        const uint2 narrow = make_uint2(static_cast<uint32_t>(asInt(four[0])), static_cast<uint32_t>(asInt(four[1])));
#pragma unroll
        for (int j = 0; j < 4; ++j) four[j] = asFloat(wordOf(narrow, j));
      }
    }
    if (target.x.fixed) {
#pragma unroll
      for (auto& four : v)
#pragma unroll
        for (float& value : four) value = static_cast<float>(asInt(value));
    }
    using Element = std::conditional_t<kNarrow, uint16_t, float>;
    auto* const to = static_cast<Element*>(target.y.data) + pixels.origin + first;
#pragma unroll
    for (int i = 0; i < kOwnPixels; ++i) {
      float dz[4], standard[4];
      tile.four(i, pair, dz);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (!pixels.exists[i] || fmaf(v[i][j], norm[j].scale, norm[j].shift) <= 0.0f) dz[j] = 0.0f;
        standard[j] = fmaf(v[i][j], norm[j].inverse, norm[j].center);
      }
      const bool stores = pixels.exists[i] && count > 0;
      if constexpr (kNarrow) {
        const uint2 rounded = roundFour(dz);
        if (stores) storeFour(to + pixels.distance[i], rounded, count, whole);
      } else if (stores) {
        storeFour(to + pixels.distance[i], dz, count, whole);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) standard[j] *= dz[j];
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

// Batch norm by channel: the vectors that kernels multiply and add with, and the sums over a batch that lead to statistics
// and gradients. Sums run over a row in float32, over rows in float64, per image, and images are added in order: the
// result does not depend on the number of threads.
#pragma once

#include <cmath>
#include <cstring>

#include "core/carver.h"
#include "core/ops.h"
#include "cpu/kernels/image.h"

namespace revnet::REVNET_ISA {

// For a tensor x of c channels, all padded with zeros so that a whole vector can be read from any channel on:
//   norm before ReLU = x * scale + shift         x^ (normalised to mean 0, variance 1) = x * inverse + center
// x as stored: a fixed-point stream's step is folded in.
struct ChannelNorm {
  int c, padded;
  float *scale, *shift, *inverse, *center;

  ChannelNorm(int channels, Carver& carver) : c(channels), padded(roundUp(channels, kLanes)) {
    for (float** vector : {&scale, &shift, &inverse, &center}) *vector = carver.take<float>(static_cast<size_t>(padded + kLanes));
  }

  void set(const Norm& norm, const Memory& memory, float step) {
    const float *statistics = memory.at<float>(norm.statistics), *gamma = memory.at<float>(norm.gamma),
                *beta = memory.at<float>(norm.beta);
    for (int i = 0; i < padded + kLanes; ++i) {
      const bool real = i < c;
      const double mean = real ? statistics[i] : 0;
      const double inverseStd = real ? 1 / std::sqrt(static_cast<double>(statistics[c + i]) + norm.epsilon) : 0;
      const double g = real ? gamma[i] : 0, b = real ? beta[i] : 0;
      scale[i] = static_cast<float>(g * inverseStd * step);
      shift[i] = static_cast<float>(std::fma(-(mean * g), inverseStd, b));
      inverse[i] = static_cast<float>(inverseStd * step);
      center[i] = static_cast<float>(-mean * inverseStd);
    }
  }
};

// Two sums per channel and image: [n][2][padded].
struct ImageSums {
  int c, padded;
  double* sums;

  ImageSums(int n, int channels, Carver& carver)
      : c(channels),
        padded(roundUp(channels, kLanes)),
        sums(carver.take<double>(static_cast<size_t>(n) * 2 * static_cast<size_t>(padded))) {}
  double* image(int n) const { return sums + static_cast<size_t>(n) * 2 * static_cast<size_t>(padded); }
  void clear(int n) const { std::memset(image(n), 0, 2 * static_cast<size_t>(padded) * sizeof(double)); }

  // Adds two row sums of `count` channels from `channel` on.
  void add(int n, int channel, int count, Vec first, Vec second) const {
    double* to = image(n) + channel;
    for (int i = 0; i < count; ++i) to[i] += static_cast<double>(first[i]);
    for (int i = 0; i < count; ++i) to[padded + i] += static_cast<double>(second[i]);
  }
  // Adds the sum and the sum of squares of one row of `values` values, given as those of their distances from `origin`, a value of
  // the row: what float32 rounds is then of the size of the deviations, not of the mean.
  void addAround(int n, int channel, int count, int values, Vec origin, Vec distances, Vec squares) const {
    double* to = image(n) + channel;
    for (int i = 0; i < count; ++i) {
      const double o = origin[i], sum = distances[i];
      to[i] += std::fma(values, o, sum);
      to[padded + i] += std::fma(o, std::fma(values, o, 2 * sum), static_cast<double>(squares[i]));
    }
  }
  void total(int images, int channel, double* first, double* second) const {
    *first = *second = 0;
    for (int n = 0; n < images; ++n) {
      *first += image(n)[channel];
      *second += image(n)[padded + channel];
    }
  }

  // From sums of x and x^2: statistics[2][c] = mean, biased variance, over `count` values a channel.
  void writeStatistics(int images, double count, float* statistics) const {
    for (int i = 0; i < c; ++i) {
      double sum, squares;
      total(images, i, &sum, &squares);
      const double mean = sum / count, variance = std::fma(-mean, mean, squares / count);
      statistics[i] = static_cast<float>(mean);
      statistics[c + i] = static_cast<float>(variance > 0 ? variance : 0);
    }
  }
};

// The gradient through batch norm, from dz, the gradient of its output (already masked by ReLU):
//   dx = gamma / std * (dz - mean(dz) - x^ * mean(dz * x^))  =  slope * dz + tilt * x + offset
struct NormGradientVectors {
  int c, padded;
  float *slope, *tilt, *offset;

  NormGradientVectors(int channels, Carver& carver) : c(channels), padded(roundUp(channels, kLanes)) {
    for (float** vector : {&slope, &tilt, &offset}) *vector = carver.take<float>(static_cast<size_t>(padded + kLanes));
  }

  // `sums`: of dz and dz * x^. Also writes the gradients of gamma and beta.
  void set(const ImageSums& sums, int images, double count, const Norm& norm, const NormGradient& gradient, const Memory& memory,
           float step) {
    const float *statistics = memory.at<float>(norm.statistics), *gamma = memory.at<float>(norm.gamma);
    float *dGamma = memory.at<float>(gradient.gamma), *dBeta = memory.at<float>(gradient.beta);
    for (int i = 0; i < padded + kLanes; ++i) {
      slope[i] = tilt[i] = offset[i] = 0;
      if (i >= c) continue;
      double dz, dzx;
      sums.total(images, i, &dz, &dzx);
      dGamma[i] = static_cast<float>(dzx);
      dBeta[i] = static_cast<float>(dz);
      const double mean = statistics[i], inverseStd = 1 / std::sqrt(static_cast<double>(statistics[c + i]) + norm.epsilon);
      const double k = gamma[i] * inverseStd, perStd = k * dzx / count * inverseStd;
      slope[i] = static_cast<float>(k);
      tilt[i] = static_cast<float>(-perStd * step);
      offset[i] = static_cast<float>(std::fma(perStd, mean, -(k * dz / count)));
    }
  }
};

// ---- What happens to a row of output while it is still in L1 ------------------------------------------------------------

// The row's pixels are `padded` floats apart in `row` and `c` elements apart in memory.

// y = row; adds sum and sum of squares to `sums`, if given.
inline void storeRow(const float* row, int pixels, int c, float* y, const ImageSums* sums, int n) {
  const size_t stride = static_cast<size_t>(roundUp(c, kLanes));
  forEachBlock(c, [&](int block, int count, auto kind) {
    const float* from = row + block * kLanes;
    float* to = y + block * kLanes;
    const Vec origin = load(from);
    Vec sum{}, squares{};
    for (int p = 0; p < pixels; ++p, from += stride, to += c) {
      const Vec v = load(from), distance = v - origin;
      kind.store(to, v, count);
      sum += distance;
      squares = fma(distance, distance, squares);
    }
    if (sums) sums->addAround(n, block * kLanes, count, pixels, origin, sum, squares);
  });
}

// y = base + sign * q(row), on a real or a fixed-point stream (a fixed one's base may be null: 0). q rounds to the stream's step.
// With sign 1, returns how many elements left the fixed-point range; their sum wraps around, so that subtracting the same q still
// undoes it.
struct StreamSum {
  const float* row;
  int pixels, c;
  float sign;

  int64_t apply(const float* base, float* y, const ImageSums* sums, int n) const {
    addRow(y, sums, n,
           [&](size_t at, Vec value, int count, auto kind, IntVec&) { return kind.load(base + at, count) + value * sign; });
    return 0;
  }

  int64_t apply(const int32_t* base, int32_t* y, const ImageSums* sums, int n) const {
    return addRow(y, sums, n, [&](size_t at, Vec value, int count, auto kind, IntVec& left) {
      const IntVec q = roundToInt(value * kFixedScale);
      const IntVec before = base ? kind.load(base + at, count) : IntVec{};
      const IntVec after = sign > 0 ? addWrapping(before, q) : subtractWrapping(before, q);
      left = addWrapping(left, (((before ^ after) & (q ^ after)) < IntVec{}) | (q == broadcast(INT32_MIN)));
      return after;
    });
  }

 private:
  // next(at, value, count, kind, left): the new elements at y + at; `left` loses one for each that leaves the range.
  template <class T, class Next>
  int64_t addRow(T* y, const ImageSums* sums, int n, const Next& next) const {
    const size_t stride = static_cast<size_t>(roundUp(c, kLanes));
    int64_t outOfRange = 0;
    forEachBlock(c, [&](int block, int count, auto kind) {
      const float* from = row + block * kLanes;
      Vec origin{}, sum{}, squares{};
      IntVec left{};
      for (int p = 0; p < pixels; ++p, from += stride) {
        const size_t at = static_cast<size_t>(p) * static_cast<size_t>(c) + static_cast<size_t>(block * kLanes);
        const auto after = next(at, load(from), count, kind, left);
        kind.store(y + at, after, count);
        const Vec v = toFloat(after) * streamScale(y);
        if (p == 0) origin = v;
        const Vec distance = v - origin;
        sum += distance;
        squares = fma(distance, distance, squares);
      }
      if (sums) sums->addAround(n, block * kLanes, count, pixels, origin, sum, squares);
      outOfRange -= sumLanes(left, count);
    });
    return outOfRange;
  }
};

}  // namespace revnet::REVNET_ISA

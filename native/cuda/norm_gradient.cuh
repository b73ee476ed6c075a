// The gradient through batch norm and ReLU as a pass of its own: behind the stem's norm, and behind global average pooling.
// The two differ in where dy, the gradient of norm(x), comes from; a Gradient loads it.
//
//   kernel              computes                                  bytes an element          flops   blocks of 256 threads
//   normGradientSums    sums of dz and dz * x^ by channel, then   4 (x) + Gradient's        7       splits x channel groups
//                       dgamma, dbeta and the vectors of dx
//   normGradientApply   dx                                        4 (x) + Gradient's + 4    6       pixels / (4 rows) x groups
//
// dz = dy where norm(x) > 0, else 0: recomputed by both, which is cheaper than to write it and read it again.
#pragma once

#include "cuda/elementwise.cuh"
#include "cuda/reduce.cuh"

namespace revnet::cuda {

constexpr int kMostParts = 2;  // tensors of one shape, in one launch

// Scratch, and how the pixels are split over blocks: by shape alone, whatever the width of the accesses.
struct NormGradientLayout {
  int64_t pixelsPerBlock;
  int splits;
  float2* partials[kMostParts] = {};  // of each part [splits][c], see ChannelPartials
  NormGradientVectors vectors[kMostParts];

  NormGradientLayout(int64_t pixels, int c, int parts, Carver& carver) {
    constexpr int64_t kElements = 8192;  // of a block: 32 a thread
    constexpr int64_t kMostSplits = 1024;
    pixelsPerBlock = std::max(kElements / std::min(c, 256), (pixels + kMostSplits - 1) / kMostSplits);
    splits = static_cast<int>(blocksFor(pixels, pixelsPerBlock));
    for (int part = 0; part < parts; ++part) {
      partials[part] = carver.take<float2>(static_cast<size_t>(c) * static_cast<size_t>(splits));
      vectors[part] = NormGradientVectors(c, carver);
    }
  }
};

// dx of one tensor x [pixels][c].
template <class Gradient>
struct NormGradientPart {
  StreamPointer x;
  NormArguments norm;
  float *gammaGradient, *betaGradient;  // [c] each, overwritten
  StreamPointer dx;                     // [pixels][c] real, overwritten
  Gradient dy;
  NormGradientVectors vectors;  // enqueueNormGradient's
  ChannelPartials partials;     // and these
};
template <class Gradient>
struct NormGradientParts {
  NormGradientPart<Gradient> list[kMostParts];
  int count;
};

#if defined(__CUDACC__) || defined(REVNET_EMULATED)
namespace {

// Of part blockIdx.z.
template <int width, class Gradient>
__global__ void normGradientSums(const __grid_constant__ NormGradientParts<Gradient> parts, Tiling tiling, int64_t pixelsPerBlock,
                                 unsigned* counters) {
  waitForPrevious();
  const NormGradientPart<Gradient>& of = parts.list[blockIdx.z];
  const Place at(tiling, width);
  const int channels = tiling.lanes * width, begin = static_cast<int>(blockIdx.y) * channels;
  auto* totals = reinterpret_cast<float4*>(sharedMemory());  // [threads]
  float* sums = reinterpret_cast<float*>(totals);            // before: [rows][2][channels]; a thread has at most 8
  auto* word = reinterpret_cast<unsigned*>(totals + 2 * kThreads);

  if (at.row < tiling.rows) {
    float dzSum[width] = {}, dzxSum[width] = {};
    if (at.active) {
      Affine norm[width], standard[width];
      for (int i = 0; i < width; ++i) {
        norm[i] = normAffine(of.norm, at.channel + i, of.x.step());
        standard[i] = standardizer(of.norm, at.channel + i, of.x.step());
      }
      const int64_t first = blockIdx.x * pixelsPerBlock + at.row, last = (blockIdx.x + 1) * pixelsPerBlock;
      const int64_t end = last < tiling.pixels ? last : tiling.pixels;
#pragma unroll 4
      for (int64_t pixel = first; pixel < end; pixel += tiling.rows) {
        const Vector<width> x = load<width>(of.x, pixel * tiling.c + at.channel);
        const Vector<width> d = of.dy.template at<width>(pixel, at.channel);
        for (int i = 0; i < width; ++i) {
          const float dz = norm[i](x.v[i]) <= 0.0f ? 0.0f : d.v[i];
          dzSum[i] += dz;
          dzxSum[i] = fmaf(dz, standard[i](x.v[i]), dzxSum[i]);
        }
      }
    }
    float* row = sums + at.row * 2 * channels + at.channel - begin;
    for (int i = 0; i < width; ++i) {
      row[i] = dzSum[i];
      row[channels + i] = dzxSum[i];
    }
  }
  sumRows(sums, tiling.rows, 2 * channels);

  const int count = tiling.c - begin < channels ? tiling.c - begin : channels;
  if (const int i = static_cast<int>(threadIdx.x); i < count)
    of.partials.at(static_cast<int>(blockIdx.x), begin + i) = make_float2(sums[i], sums[channels + i]);
  if (!isLastBlock(counters + blockIdx.z * gridDim.y + blockIdx.y, gridDim.x, word)) return;
  forEachPairTotal(of.partials, begin, begin + count, totals, [&](int channel, float dz, float dzx) {
    finishNormGradient(of.norm, channel, dz, dzx, static_cast<float>(tiling.pixels), of.x.step(), of.gammaGradient, of.betaGradient,
                       of.vectors);
  });
}

constexpr int kPixelsApplied = 4;  // of a thread, all loaded before the first is used

template <int width, class Gradient>
__global__ void normGradientApply(const __grid_constant__ NormGradientParts<Gradient> parts, Tiling tiling) {
  waitForPrevious();
  const NormGradientPart<Gradient>& of = parts.list[blockIdx.z];
  const Place at(tiling, width);
  if (!at.active) return;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * tiling.rows * kPixelsApplied + at.row;
  Vector<width> x[kPixelsApplied], d[kPixelsApplied];
#pragma unroll
  for (int p = 0; p < kPixelsApplied; ++p) {
    const int64_t pixel = first + p * tiling.rows;
    if (pixel >= tiling.pixels) break;
    x[p] = load<width>(of.x, pixel * tiling.c + at.channel);
    d[p] = of.dy.template at<width>(pixel, at.channel);
  }
  Affine norm[width];
  float slope[width], tilt[width], offset[width];
  for (int i = 0; i < width; ++i) {
    const int channel = at.channel + i;
    norm[i] = normAffine(of.norm, channel, of.x.step());
    slope[i] = of.vectors.slope[channel];
    tilt[i] = of.vectors.tilt[channel];
    offset[i] = of.vectors.offset[channel];
  }
#pragma unroll
  for (int p = 0; p < kPixelsApplied; ++p) {
    const int64_t pixel = first + p * tiling.rows;
    if (pixel >= tiling.pixels) break;
    Vector<width> dx;
    for (int i = 0; i < width; ++i) {
      const float dz = norm[i](x[p].v[i]) <= 0.0f ? 0.0f : d[p].v[i];
      dx.v[i] = fmaf(slope[i], dz, fmaf(tilt[i], x[p].v[i], offset[i]));
    }
    storeReal(of.dx, pixel * tiling.c + at.channel, dx);
  }
}

// `takesVectors`: of dy; x and dx are looked at here.
template <class Gradient>
void enqueueNormGradient(const Context& context, NormGradientParts<Gradient> parts, bool takesVectors, int64_t pixels, int c,
                         const NormGradientLayout& layout) {
  bool four = takesVectors && c % 4 == 0;
  for (int i = 0; i < parts.count; ++i) {
    NormGradientPart<Gradient>& part = parts.list[i];
    part.vectors = layout.vectors[i];
    part.partials = {layout.partials[i], layout.splits, c};
    four = four && part.x.aligned && part.dx.aligned;
  }
  withWidth(four, [&](auto constant) {
    constexpr int width = decltype(constant)::value;
    const Tiling tiling(pixels, c, width);
    constexpr size_t kSharedBytes = 2 * kThreads * sizeof(float4) + sizeof(unsigned);
    const auto grid = [&](int64_t pixelsPerBlock) {
      dim3 of = tiling.grid(pixelsPerBlock);
      of.z = static_cast<unsigned>(parts.count);
      return of;
    };
    launch(context.stream, normGradientSums<width, Gradient>, grid(layout.pixelsPerBlock), kThreads, kSharedBytes, parts, tiling,
           layout.pixelsPerBlock, context.counters);
    launch(context.stream, normGradientApply<width, Gradient>, grid(int64_t{kPixelsApplied} * tiling.rows), kThreads, 0, parts,
           tiling);
  });
}

}  // namespace
#endif

}  // namespace revnet::cuda

// Boxes of pixels of a tensor, and how they get into shared memory: loaded four channels at a time, read through their norm,
// rounded to the operands' type, and zero outside the tensor. Which pixels a box has is worked out once a block, so that a tile's
// pixels cost neither divisions nor many registers.
#pragma once

#include "cuda/gather.cuh"

namespace revnet::cuda {

// Of a block, in convolutions and their gradients.
constexpr int kConvolutionThreads = 256;
constexpr int kConvolutionWarps = kConvolutionThreads / kWarp;

// A box of pixels [images][height][width], `step` rows and columns apart in a tensor [][tensorH][tensorW][c]. Those outside
// [n][h][w], counted in such steps, do not exist.
struct Box {
  int images, height, width;
  int n, h, w;
  int tensorH, tensorW, c, step;

  constexpr int pixels() const { return images * height * width; }
  // Elements from the first pixel of the tensor, which has to be in memory, to the box's pixel (0, 0, 0), which may be outside;
  // that one is at (image, row, column) of the tensor.
  constexpr int64_t elements(int image, int row, int column) const {
    return ((static_cast<int64_t>(image) * tensorH + row) * tensorW + column) * c;
  }
};

// What a pass reads around a tile, and what it writes there in phase (row, column).
inline Box patchBox(const Gather& gather) {
  const int h = gather.rows[0].size, w = gather.columns[0].size;
  return {1 << gather.tile.logImages, gather.patchH, gather.patchW, gather.n, h, w, h, w, gather.sourceChannels, 1};
}
inline Box tileBox(const Gather& gather, int row, int column) {
  const Axis &rows = gather.rows[row], &columns = gather.columns[column];
  return {1 << gather.tile.logImages,
          1 << gather.tile.logRows,
          1 << gather.tile.logColumns,
          gather.n,
          rows.outputs,
          columns.outputs,
          gather.outH,
          gather.outW,
          gather.outputChannels,
          rows.outStep};
}

// A pixel of a box: how far it lies behind the first one, in elements of the tensor, and its column, row and image in one word.
struct BoxPixel {
  int distance;
  unsigned place;
};

// Loads of a thread that are under way at a time, of one tensor and of two.
constexpr int kLoads = 6, kGradientLoads = 4;

#if REVNET_KERNEL_CODE

// A place's fields of 10, 9 and 9 bits, and above each a guard bit that is set.
__device__ constexpr unsigned fieldsOf(int column, int row, int image) {
  return static_cast<unsigned>(column) + (static_cast<unsigned>(row) << 11) + (static_cast<unsigned>(image) << 21);
}
constexpr unsigned kGuards = 1u << 10 | 1u << 20 | 1u << 30;

// Which pixels of a box exist, where the box begins at (image, top, left) in steps. No difference of fields in range clears the
// guard bit above it, so that two subtractions make all six comparisons.
class Inside {
 public:
  __device__ Inside(const Box& box, int image, int top, int left)
      : low_(fieldsOf(max(0, -left), max(0, -top), 0)),
        high_(fieldsOf(min(box.width, box.w - left) - 1, min(box.height, box.h - top) - 1, min(box.images, box.n - image) - 1) +
              2 * kGuards) {}
  __device__ bool contains(unsigned place) const { return ((place - low_) & (high_ - place) & kGuards) == kGuards; }

 private:
  unsigned low_, high_;
};

// i / d for i * d < 2^20, i < 2^11: without a division for every pixel.
class SmallDivisor {
 public:
  __device__ explicit SmallDivisor(int d) : magic_((1u << 20) / static_cast<unsigned>(d) + 1) {}
  __device__ int divide(int i) const { return static_cast<int>((static_cast<unsigned>(i) * magic_) >> 20); }

 private:
  unsigned magic_;
};

// Writes pixels[box.pixels()]. A barrier has to follow.
__device__ inline void layPixels(BoxPixel* pixels, const Box& box) {
  const SmallDivisor byWidth(box.width), byHeight(box.height);
  const int count = box.pixels();
#pragma unroll 1
  for (int pixel = static_cast<int>(threadIdx.x); pixel < count; pixel += kConvolutionThreads) {
    const int line = byWidth.divide(pixel), column = pixel - line * box.width;
    const int image = byHeight.divide(line), row = line - image * box.height;
    pixels[pixel] = {((image * box.tensorH + row * box.step) * box.tensorW + column * box.step) * box.c,
                     fieldsOf(column, row, image) + kGuards};
  }
}

// Rows of operands in shared memory, of `used` channels from `channel` on: one for each pixel of a box, `pitch` bytes apart.
// Threads share a pixel by four channels each, as many as there are in `channels`, a power of two.
struct Rows {
  std::byte* to;
  int pitch;
  const BoxPixel* pixels;  // [count]
  int count;
  int channel, channels, used;
};

// See fillRows.
template <class Math, int kAtOnce, class Reader>
__device__ void fillRowsFrom(const Reader& reader, const Rows& rows, const Inside& inside, bool any, int first, int each,
                             std::byte* to) {
  const BoxPixel* pixels = rows.pixels + first;
#pragma unroll 1
  for (int left = rows.count - first; left > 0;
       left -= kAtOnce * each, pixels += kAtOnce * each, to += kAtOnce * each * rows.pitch) {
    typename Reader::Raw raw[kAtOnce];
    bool exists[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const bool there = i * each < left;
      const BoxPixel at = pixels[there ? i * each : 0];
      exists[i] = there && any && inside.contains(at.place);
      raw[i] = reader.load(exists[i], at.distance);
    }
    float v[kAtOnce][4];
    reader.convert(raw, v);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (i * each < left) Math::store4(to + i * each * rows.pitch, v[i], exists[i]);
  }
}

// Fills rows from a source of c channels, around the pixel that is `origin` elements behind the first one; zero where the box is
// outside the tensor, and from c on. Without kGradients the source is no NormGradient.
template <class Math, bool kGradients = true>
__device__ void fillRows(const Rows& rows, const Source& source, int c, const Inside& inside, int64_t origin) {
  const int logGroups = logOf(rows.channels / 4), thread = opaque(static_cast<int>(threadIdx.x));
  const int own = 4 * (thread & (rows.channels / 4 - 1)), first = thread >> logGroups;
  if (own >= rows.used) return;
  const int each = kConvolutionThreads >> logGroups, channel = rows.channel + own;
  std::byte* const to = rows.to + own * static_cast<int>(Math::kElementBytes) + first * rows.pitch;
  const bool any = channel < c;
  const auto fill = [&](const auto& reader, auto atOnce) {
    fillRowsFrom<Math, decltype(atOnce)::value>(reader, rows, inside, any, first, each, to);
  };
  constexpr bool kNarrow = Math::kNarrowTensors;
  if (!isWhole<kNarrow>(source, c)) {
    fill(SourceReader<kGradients, false, kNarrow>(source, channel, c, origin), std::integral_constant<int, 1>{});
    return;
  }
  if constexpr (kGradients) {
    if (source.reading == Reading::NormGradient)
      return fill(SourceReader<true, true, kNarrow>(source, channel, c, origin), std::integral_constant<int, kGradientLoads>{});
  }
  if constexpr (kNarrow) {
    if (source.x.narrow)
      return fill(SourceReader<false, true, true>(source, channel, c, origin), std::integral_constant<int, kLoads>{});
  }
  fill(SourceReader<false, true>(source, channel, c, origin), std::integral_constant<int, kLoads>{});
}

#endif

}  // namespace revnet::cuda

// Where the pixels of a convolution come from, forward and backward alike. All three passes read one tensor around each pixel of
// another, so they share the geometry below, and SourceReader: what is read is converted from the stream, normalised and passed
// through the ReLU. patch.cuh brings it into shared memory, once for all taps that need it.
#pragma once

#include <algorithm>
#include <type_traits>

#include "core/convolution.h"
#include "cuda/math.cuh"
#include "cuda/norm.cuh"
#include "cuda/vector.cuh"

namespace revnet::cuda {

// One axis (rows or columns): output i, at position i * outStep + outOffset of the tensor that is written, reads positions
// i * step + origin + r of the tensor that is read, for r in [0, taps), with the weight's tap firstTap + r * tapStep.
struct Axis {
  int size;     // of the tensor that is read; positions outside [0, size) are zero
  int outputs;  // how many there are
  int step, origin, taps, firstTap, tapStep, outStep, outOffset;
};

inline Axis forwardAxis(const Convolution& conv, int size, int outputs) {
  return {size, outputs, conv.stride, -conv.padding(), conv.kernel, 0, 1, 1, 0};
}

// Input position y takes part in output position (y + padding - tap) / stride where that is whole: at stride 2, every other tap,
// which ones depends on whether y + padding is even. `phase` is y modulo the stride.
inline Axis backwardAxis(const Convolution& conv, int size, int outputs, int phase) {
  const int first = (phase + conv.padding()) % conv.stride;
  const int taps = (conv.kernel - first + conv.stride - 1) / conv.stride;
  const int last = first + (taps - 1) * conv.stride;
  return {outputs,
          (size - phase + conv.stride - 1) / conv.stride,
          1,
          (phase + conv.padding() - last) / conv.stride,
          taps,
          last,
          -conv.stride,
          conv.stride,
          phase};
}

// The tile of output pixels that a block computes at a time: images x rows x columns, each a power of two.
struct Tile {
  int logImages, logRows, logColumns;
  constexpr int pixels() const { return 1 << (logImages + logRows + logColumns); }
};

// A whole pass: up to two phases on each axis.
struct Gather {
  int n, phases;  // phases: 1 or 2, on both axes
  int sourceChannels, outputChannels;
  int outH, outW;  // of the tensor that is written
  Axis rows[2], columns[2];
  Tile tile;
  int imageTiles, rowTiles, columnTiles;
  int patchH, patchW;  // the patch of source pixels that a tile reads: [images][patchH][patchW]

  constexpr int tiles() const { return imageTiles * rowTiles * columnTiles; }
  constexpr int patchPixels() const { return (1 << tile.logImages) * patchH * patchW; }
};

constexpr int ceilDiv(int a, int b) { return (a + b - 1) / b; }

// Lays `pixels` (64, 128 or 256) output pixels of a tile out: whole small images where they fit, else at least 8 rows. A tile's
// rows are at least 8 pixels long.
inline void layTiles(Gather& gather, int pixels) {
  int rows = 0, columns = 0;
  for (int phase = 0; phase < gather.phases; ++phase) {
    rows = std::max(rows, gather.rows[phase].outputs);
    columns = std::max(columns, gather.columns[phase].outputs);
  }
  const auto logOf = [](int value) {
    int log = 0;
    while ((1 << log) < value) ++log;
    return log;
  };
  const int all = logOf(pixels);
  Tile& tile = gather.tile;
  tile.logColumns = rows == 1 ? std::min(all, std::max(3, logOf(columns))) : columns > 8 ? std::min(all - 3, logOf(columns)) : 3;
  tile.logRows = std::min(all - tile.logColumns, logOf(rows));
  tile.logImages = all - tile.logColumns - tile.logRows;
  const auto extent = [&](const Axis(&axes)[2], int log) {
    int most = 0;
    for (int phase = 0; phase < gather.phases; ++phase)
      most = std::max(most, ((1 << log) - 1) * axes[phase].step + std::max(axes[phase].taps, 1));
    return most;
  };
  // Every image brings a border of its own, and long rows have long ones. Where a wide kernel would make the patch too large for
  // shared memory, the tile becomes squarer and reaches over the edges of small images instead.
  const int mostPatchPixels = std::min(pixels * 15 / 2, 1280);
  for (;;) {
    gather.patchH = extent(gather.rows, tile.logRows);
    gather.patchW = extent(gather.columns, tile.logColumns);
    if (gather.patchPixels() <= mostPatchPixels) break;
    if (tile.logImages > 0) {
      --tile.logImages;
      ++(tile.logRows < tile.logColumns ? tile.logRows : tile.logColumns);
    } else if (tile.logColumns > tile.logRows + 1) {
      --tile.logColumns;
      ++tile.logRows;
    } else {
      break;
    }
  }
  gather.imageTiles = ceilDiv(gather.n, 1 << tile.logImages);
  gather.rowTiles = ceilDiv(rows, 1 << tile.logRows);
  gather.columnTiles = ceilDiv(columns, 1 << tile.logColumns);
}

// A 1x1 convolution of stride 1 sees no neighbours: its images are one long row of pixels.
inline Convolution flattened(const Convolution& conv) {
  const int64_t pixels = int64_t{conv.n} * conv.h * conv.w;
  if (conv.kernel != 1 || conv.stride != 1 || pixels > 1 << 30) return conv;
  return {1, 1, static_cast<int>(pixels), conv.c, conv.k, 1, 1};
}

// Reads x [n][h][w][c] around each pixel of y [n][outH][outW][k].
inline Gather forwardGather(const Convolution& shape, int tilePixels) {
  const Convolution conv = flattened(shape);
  Gather gather{conv.n, 1, conv.c, conv.k, conv.outH(), conv.outW(), {}, {}, {}, 0, 0, 0, 0, 0};
  gather.rows[0] = forwardAxis(conv, conv.h, conv.outH());
  gather.columns[0] = forwardAxis(conv, conv.w, conv.outW());
  layTiles(gather, tilePixels);
  return gather;
}

// Reads dy [n][outH][outW][k] around each pixel of dx [n][h][w][c].
inline Gather backwardGather(const Convolution& shape, int tilePixels) {
  const Convolution conv = flattened(shape);
  Gather gather{conv.n, conv.stride, conv.k, conv.c, conv.h, conv.w, {}, {}, {}, 0, 0, 0, 0, 0};
  for (int phase = 0; phase < conv.stride; ++phase) {
    gather.rows[phase] = backwardAxis(conv, conv.h, conv.outH(), phase);
    gather.columns[phase] = backwardAxis(conv, conv.w, conv.outW(), phase);
  }
  layTiles(gather, tilePixels);
  return gather;
}

// ---- What is read ----------------------------------------------------------------------------------------------------------

// How a batch norm looks from inside a kernel, for x as stored: the norm before its ReLU is x * scale + shift, x^ (mean 0,
// variance 1) is x * inverse + center.
struct ChannelNorm {
  float scale, shift, inverse, center;
};

enum class Reading {
  Plain,         // x
  Norm,          // relu(x * scale + shift)
  NormGradient,  // slope * dz + tilt * x + offset: the gradient of the tensor x that a norm was applied to
};

struct Source {
  Reading reading = Reading::Plain;
  StreamPointer x;
  const ChannelNorm* norm = nullptr;  // [c]
  StreamPointer dz;                   // like x, real
  NormGradientVectors vectors;        // [c] each
};

inline Source plainSource(StreamPointer x) { return {Reading::Plain, x, nullptr, {}, {}}; }
// `norm` null: plain.
inline Source normSource(StreamPointer x, const ChannelNorm* norm) {
  return {norm ? Reading::Norm : Reading::Plain, x, norm, {}, {}};
}
inline Source normGradientSource(StreamPointer dz, StreamPointer x, const NormGradientVectors& vectors) {
  return {Reading::NormGradient, x, nullptr, dz, vectors};
}

#if defined(__CUDACC__) || defined(REVNET_EMULATED)

// Where a block is: the first output pixel of its tile, in its phase. Tiles follow one another along rows, then down, then by
// image.
class TilePlace {
 public:
  int image, row, column;

  __device__ TilePlace(const Gather& gather, int index)
      : image((index / (gather.columnTiles * gather.rowTiles)) << gather.tile.logImages),
        row((index / gather.columnTiles % gather.rowTiles) << gather.tile.logRows),
        column((index % gather.columnTiles) << gather.tile.logColumns) {}
  // To the next one, without a division.
  __device__ void advance(const Gather& gather) {
    column += 1 << gather.tile.logColumns;
    if (column < gather.columnTiles << gather.tile.logColumns) return;
    column = 0;
    row += 1 << gather.tile.logRows;
    if (row < gather.rowTiles << gather.tile.logRows) return;
    row = 0;
    image += 1 << gather.tile.logImages;
  }
};

// Pixel `pixel` of a tile.
struct TilePixel {
  int image, row, column;

  __device__ TilePixel(const Tile& tile, int pixel)
      : image(pixel >> (tile.logRows + tile.logColumns)),
        row((pixel >> tile.logColumns) & ((1 << tile.logRows) - 1)),
        column(pixel & ((1 << tile.logColumns) - 1)) {}
  // Its place in the patch, in pixels, at tap (0, 0).
  __device__ int patchIndex(const Gather& gather, const Axis& rows, const Axis& columns) const {
    return (image * gather.patchH + row * rows.step) * gather.patchW + column * columns.step;
  }
};

// Four neighbouring channels of a source, with their coefficients in registers. What kind the source is of is the same for all
// threads, and looked at once for all numbers that are converted together.
// Only with kGradients can the source be a NormGradient: that takes another register for each number on its way. With kWhole four
// channels are always read at once, and kNarrow and kNarrowDz say whether x and dz are narrow; without, they say whether they may
// be.
template <bool kGradients, bool kWhole = false, bool kNarrow = false, bool kNarrowDz = kNarrow>
class SourceReader {
  struct Nothing {};

 public:
  // The channels as they lie in memory: what is loaded before it is needed, so that many loads are under way.
  struct Raw {
    RawFour<kWhole && kNarrow> x;
    std::conditional_t<kGradients, RawFour<kWhole && kNarrowDz>, Nothing> dz;  // of NormGradient alone
  };

  // Channels [channel, channel + 4) of c; those from c on read as zero, and where there is none, nothing may be read. `origin`:
  // where the first channel of all is, of the pixel that distances are counted from, in elements of the tensor; it may be outside.
  __device__ SourceReader(const Source& source, int channel, int c, int64_t origin)
      : source_(source),
        x_(addressOf<kNarrow>(source.x, origin + channel)),
        dz_(addressOf<kNarrowDz>(source.dz, origin + channel)),
        count_(min(4, c - channel)) {
#pragma unroll
    for (int i = 0; i < 4; ++i) factor_[i] = source.x.step(), shift_[i] = 0.0f, slope_[i] = 0.0f;
    if (source.reading == Reading::Norm) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint4 norm = loadFourWhere(i < count_, reinterpret_cast<const uint32_t*>(source.norm), 4 * (channel + i));
        factor_[i] = asFloat(norm.x), shift_[i] = asFloat(norm.y);
      }
    }
    if constexpr (kGradients) {
      if (source.reading == Reading::NormGradient) {
        loadFloats(slope_, source.vectors.slope + channel);
        loadFloats(factor_, source.vectors.tilt + channel);
        loadFloats(shift_, source.vectors.offset + channel);
      }
    }
  }

  // Loads nothing, and gives zeros, unless `wanted`.
  __device__ Raw load(bool wanted, int64_t distance) const {
    Raw raw;
    raw.x = loadFour<kNarrow>(wanted, source_.x, x_, distance);
    if constexpr (kGradients)
      raw.dz = loadFour<kNarrowDz>(wanted && source_.reading == Reading::NormGradient, source_.dz, dz_, distance);
    return raw;
  }

  template <int kCount>
  __device__ void convert(const Raw (&raw)[kCount], float (&v)[kCount][4]) const {
    if (!(kWhole && kNarrow) && source_.x.fixed) {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) v[i][j] = static_cast<float>(static_cast<int>(wordOf(raw[i].x, j)));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) v[i][j] = asFloat(wordOf(raw[i].x, j));
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) v[i][j] = fmaf(factor_[j], v[i][j], shift_[j]);
    if constexpr (kGradients) {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) v[i][j] = fmaf(slope_[j], asFloat(wordOf(raw[i].dz, j)), v[i][j]);  // Norm: both are zero
    }
    if (source_.reading == Reading::Norm) {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) v[i][j] = relu(v[i][j]);
    }
  }

 private:
  template <bool kHalves>
  __device__ static const void* addressOf(const StreamPointer& tensor, int64_t at) {
    const auto* const bytes = static_cast<const std::byte*>(tensor.data);
    return tensor ? bytes + at * (kHalves && (kWhole || tensor.narrow) ? 2 : 4) : nullptr;
  }
  template <bool kHalves>
  __device__ RawFour<kWhole && kHalves> loadFour(bool wanted, const StreamPointer& tensor, const void* from, int64_t at) const {
    const auto* const words = static_cast<const uint32_t*>(from);
    const auto* const halves = static_cast<const uint16_t*>(from);
    if constexpr (kWhole && kHalves) {
      return loadFourHalvesWhere(wanted, halves, at);
    } else if constexpr (kWhole) {
      return loadFourWhere(wanted, words, at);
    } else {
      return kHalves && tensor.narrow ? loadUpToFour(wanted, halves, at, count_) : loadUpToFour(wanted, words, at, count_);
    }
  }
  __device__ void loadFloats(float (&v)[4], const float* from) const {
    const auto* const words = reinterpret_cast<const uint32_t*>(from);
    const uint4 four = kWhole ? loadFourWhere(count_ > 0, words, 0) : loadUpToFour(true, words, 0, count_);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = asFloat(wordOf(four, i));
  }

  const Source& source_;
  const void *const x_, *const dz_;
  const int count_;
  float factor_[4], shift_[4], slope_[4];
};

// Whether four channels of a source can always be read at once, x and dz as wide. kNarrow: the arithmetic's kNarrowTensors, and so
// whether dz is narrow.
template <bool kNarrow>
__device__ bool isWhole(const Source& source, int c) {
  return c % 4 == 0 && source.x.aligned && (source.reading != Reading::NormGradient || source.x.narrow == kNarrow);
}

#endif

}  // namespace revnet::cuda

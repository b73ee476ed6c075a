// Where the pixels of a convolution come from, forward and backward alike. All three passes read one tensor around each pixel of
// another, so they share the geometry below and the code that brings a patch of pixels into shared memory: converted from the
// stream, normalised, passed through the ReLU, rounded to the operands' type, once for all taps that need it.
#pragma once

#include <algorithm>
#include <type_traits>

#include "core/convolution.h"
#include "cuda/math.cuh"
#include "cuda/norm.cuh"

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
  const float* dz = nullptr;          // like x
  NormGradientVectors vectors;        // [c] each
};

inline Source plainSource(StreamPointer x) { return {Reading::Plain, x, nullptr, nullptr, {}}; }
// `norm` null: plain.
inline Source normSource(StreamPointer x, const ChannelNorm* norm) {
  return {norm ? Reading::Norm : Reading::Plain, x, norm, nullptr, {}};
}
inline Source normGradientSource(const float* dz, StreamPointer x, const NormGradientVectors& vectors) {
  return {Reading::NormGradient, x, nullptr, dz, vectors};
}

#if defined(__CUDACC__) || defined(REVNET_EMULATED)

// Where a block is: the first output pixel of its tile, in its phase.
struct TilePlace {
  int image, row, column;

  __device__ TilePlace(const Gather& gather, int index)
      : image((index / (gather.columnTiles * gather.rowTiles)) << gather.tile.logImages),
        row((index / gather.columnTiles % gather.rowTiles) << gather.tile.logRows),
        column((index % gather.columnTiles) << gather.tile.logColumns) {}
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

// i / d for i * d < 2^20, i < 2^11: without a division for every pixel.
class SmallDivisor {
 public:
  __device__ explicit SmallDivisor(int d) : magic_((1u << 20) / static_cast<unsigned>(d) + 1) {}
  __device__ int divide(int i) const { return static_cast<int>((static_cast<unsigned>(i) * magic_) >> 20); }

 private:
  unsigned magic_;
};

// Four neighbouring channels of a source, with their coefficients in registers. What kind the source is of is the same for all
// threads, and looked at as it is read: code of its own for each kind would take more registers than it saves instructions.
// Only with kGradients can the source be a NormGradient: that takes another register for each number on its way. With kWhole four
// channels are always read at once (isWhole).
template <bool kGradients, bool kWhole = false>
class SourceReader {
  struct Nothing {};

 public:
  // The channels as they lie in memory: what is loaded before it is needed, so that many loads are under way.
  struct Raw {
    uint4 x;
    std::conditional_t<kGradients, uint4, Nothing> dz;  // of NormGradient alone
  };

  __device__ static bool isWhole(const Source& source, int c) { return c % 4 == 0 && source.x.aligned; }

  // Channels [channel, channel + 4) of c; those from c on read as zero, and where there is none, nothing may be read.
  __device__ SourceReader(const Source& source, int channel, int c)
      : source_(source), channel_(channel), count_(min(4, c - channel)), whole_(kWhole || isWhole(source, c)) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      factor_[i] = source.x.step(), shift_[i] = 0.0f, slope_[i] = 0.0f;
      if (source.reading == Reading::Plain) continue;
      const bool real = i < count_;
      if (!kGradients || source.reading == Reading::Norm) {
        factor_[i] = real ? source.norm[channel + i].scale : 0.0f;
        shift_[i] = real ? source.norm[channel + i].shift : 0.0f;
      } else if constexpr (kGradients) {
        slope_[i] = real ? source.vectors.slope[channel + i] : 0.0f;
        factor_[i] = real ? source.vectors.tilt[channel + i] : 0.0f;
        shift_[i] = real ? source.vectors.offset[channel + i] : 0.0f;
      }
    }
  }

  // `pixel`: where the first channel of all is in the tensor. Loads nothing, and gives zeros, unless `wanted`.
  __device__ Raw load(bool wanted, int64_t pixel) const {
    Raw raw;
    raw.x = loadFour(wanted, static_cast<const uint32_t*>(source_.x.data), pixel + channel_);
    if constexpr (kGradients)
      raw.dz = loadFour(wanted && source_.reading == Reading::NormGradient, reinterpret_cast<const uint32_t*>(source_.dz),
                        pixel + channel_);
    return raw;
  }

  // Zeros unless `inside`.
  __device__ void convert(bool inside, const Raw& raw, float (&v)[4]) const {
    convert(raw, v);
#pragma unroll
    for (float& value : v) value = inside ? value : 0.0f;
  }
  __device__ void convert(const Raw& raw, float (&v)[4]) const {
    const uint32_t x[4] = {raw.x.x, raw.x.y, raw.x.z, raw.x.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float value = source_.x.fixed ? static_cast<float>(static_cast<int>(x[i])) : asFloat(x[i]);
      v[i] = fmaf(factor_[i], value, shift_[i]);
      if (source_.reading == Reading::Norm) v[i] = relu(v[i]);
    }
    if constexpr (kGradients) {
      if (source_.reading != Reading::NormGradient) return;
      const uint32_t dz[4] = {raw.dz.x, raw.dz.y, raw.dz.z, raw.dz.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = fmaf(slope_[i], asFloat(dz[i]), v[i]);
    }
  }

 private:
  __device__ uint4 loadFour(bool wanted, const uint32_t* words, int64_t at) const {
    if (kWhole || whole_) return loadFourWhere(wanted, words, at);
    return make_uint4(loadWhere(wanted, words, at), loadWhere(wanted && count_ > 1, words, at + 1),
                      loadWhere(wanted && count_ > 2, words, at + 2), loadWhere(wanted && count_ > 3, words, at + 3));
  }

  const Source& source_;
  const int channel_, count_;
  const bool whole_;
  float factor_[4], shift_[4], slope_[4];
};

using ChannelReader = SourceReader<true>;

// Loads of a thread that are under way at a time.
constexpr int kLoadsAtOnce = 4;

// See fillPatch.
template <class Math, int kAtOnce, class Reader>
__device__ void fillPatchFrom(const Reader& reader, std::byte* to, int pitch, const Gather& gather, const Axis& rows,
                              const Axis& columns, const TilePlace& place, int images, int begin, int each) {
  const int c = gather.sourceChannels, patchPixels = (gather.patchH * gather.patchW) << gather.tile.logImages;
  const SmallDivisor byWidth(gather.patchW), byHeight(gather.patchH);
  const int top = place.row * rows.step + rows.origin, left = place.column * columns.step + columns.origin;
  // Of the patch's first pixel, which may be outside; distances from it fit into 32 bits.
  const int64_t origin = ((static_cast<int64_t>(place.image) * rows.size + top) * columns.size + left) * c;
#pragma unroll 1
  for (; begin < patchPixels; begin += kAtOnce * each) {
    typename Reader::Raw raw[kAtOnce];
    bool inside[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int pixel = begin + i * each, line = byWidth.divide(pixel), image = byHeight.divide(line);
      const int row = line - image * gather.patchH, column = pixel - line * gather.patchW;
      inside[i] = pixel < patchPixels && image < images && static_cast<unsigned>(top + row) < static_cast<unsigned>(rows.size) &&
                  static_cast<unsigned>(left + column) < static_cast<unsigned>(columns.size);
      raw[i] = reader.load(inside[i], origin + ((image * rows.size + row) * columns.size + column) * c);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int pixel = begin + i * each;
      float v[4];
      reader.convert(inside[i], raw[i], v);
      if (pixel < patchPixels) Math::store4(to + pixel * pitch, v);
    }
  }
}

// Fills `patch`, [images][patchH][patchW] pixels of `pitch` bytes, with channels [channel, channel + channels) of the source
// around a tile; zero outside the image and from c on. `channels`: a power of two, at least 4, of which `used` are wanted.
template <class Math>
__device__ void fillPatch(std::byte* patch, int pitch, const Gather& gather, const Axis& rows, const Axis& columns,
                          const TilePlace& place, const Source& source, int channel, int channels, int used) {
  const int logGroups = logOf(channels / 4), thread = opaque(static_cast<int>(threadIdx.x));
  const int own = 4 * (thread & (channels / 4 - 1)), begin = thread >> logGroups, each = static_cast<int>(blockDim.x) >> logGroups;
  if (own >= used) return;
  const int images = channel + own < gather.sourceChannels ? gather.n - place.image : 0;
  std::byte* const to = patch + own * Math::kElementBytes;
  const auto fill = [&](const auto& reader, auto atOnce) {
    fillPatchFrom<Math, decltype(atOnce)::value>(reader, to, pitch, gather, rows, columns, place, images, begin, each);
  };
  const int c = gather.sourceChannels;
  if (!SourceReader<true>::isWhole(source, c))
    fill(SourceReader<true>(source, channel + own, c), std::integral_constant<int, 1>{});
  else if (source.reading == Reading::NormGradient)
    fill(SourceReader<true, true>(source, channel + own, c), std::integral_constant<int, 3>{});
  else
    fill(SourceReader<false, true>(source, channel + own, c), std::integral_constant<int, 6>{});
}

#endif

}  // namespace revnet::cuda

// The arithmetic of convolutions in its three precisions, as tiles of a warp. All sum in float32; what differs is what the
// products' operands are rounded to, where they lie in shared memory, and which instruction multiplies them:
//   Float32    float      fmaf
//   Tf32       4 bytes    mma.m16n8k8     float32 range, 10 fraction bits
//   Bfloat16   2 bytes    mma.m16n8k16    float32 range, 7 fraction bits
//
// PixelTile: 32 pixels x 16 kPairs output channels, summed over input channels (forward, backward data).
// WeightTiles: up to 5 taps x 16 input channels x 16 output channels, summed over pixels (backward weights).
//
// Operands lie in shared memory as rows of `pitch` bytes: pixels with their channels side by side. The pitches below keep the
// rows that a warp reads at once in different banks.
#pragma once

#include <type_traits>

#include "cuda/device.h"

namespace revnet::cuda {

#if defined(__CUDACC__) || defined(REVNET_EMULATED)
#define REVNET_KERNEL_CODE 1
#endif

// store4: four operands, rounded; zeros where they are not `real`.
struct Float32 {
  static constexpr int kElementBytes = 4;
  static constexpr int kStep = 4;  // channels that are multiplied at a time; what is read is padded with zeros to a multiple
  static constexpr bool kTensorCores = false;
  // Whether hidden tensors and their gradients are stored as bfloat16, and gradients of streams may be.
  static constexpr bool kNarrowTensors = false;

#if REVNET_KERNEL_CODE
  __device__ static void store4(std::byte* to, const float (&v)[4], bool real = true) {
    *reinterpret_cast<float4*>(to) = real ? make_float4(v[0], v[1], v[2], v[3]) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
#endif
};

struct Tf32 {
  static constexpr int kElementBytes = 4;
  static constexpr int kStep = 8;
  static constexpr bool kTensorCores = true;
  static constexpr bool kNarrowTensors = false;

#if REVNET_KERNEL_CODE
  __device__ static void store4(std::byte* to, const float (&v)[4], bool real = true) {
    *reinterpret_cast<uint4*>(to) =
        make_uint4(real ? toTf32(v[0]) : 0, real ? toTf32(v[1]) : 0, real ? toTf32(v[2]) : 0, real ? toTf32(v[3]) : 0);
  }
  __device__ static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { multiplyTf32(d, a, b0, b1); }
#endif
};

struct Bfloat16 {
  static constexpr int kElementBytes = 2;
  static constexpr int kStep = 16;
  static constexpr bool kTensorCores = true;
  static constexpr bool kNarrowTensors = true;

#if REVNET_KERNEL_CODE
  __device__ static void store4(std::byte* to, const float (&v)[4], bool real = true) {
    *reinterpret_cast<uint2*>(to) = make_uint2(real ? toBfloat16Pair(v[0], v[1]) : 0, real ? toBfloat16Pair(v[2], v[3]) : 0);
  }
  __device__ static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    multiplyBfloat16(d, a, b0, b1);
  }
#endif
};

// Rows that are read along their channels: 16 bytes more than their (power of two times 16) bytes.
template <class Math>
constexpr int rowPitch(int channels) {
  return channels * Math::kElementBytes + 16;
}
// Rows that are read across: 32 bytes more for 4-byte elements (8 neighbours in each of 4 rows at a time), 16 for 2-byte ones.
template <class Math>
constexpr int columnPitch(int channels) {
  return channels * Math::kElementBytes + 8 * Math::kElementBytes;
}

// Rows of weights for tensor cores: a warp gets its sums in such an order that lane 4 g + m has channels 4 m .. 4 m + 3 of each 16,
// which are 16 neighbouring bytes of a tensor, if row `row` of 16 is this channel. (Of two multiplications of 8 columns, each gives
// it its columns 2 m and 2 m + 1.)
constexpr int weightRowChannel(int row) { return 4 * (row % 8 / 2) + 2 * (row / 8) + row % 2; }

#if REVNET_KERNEL_CODE

// A warp's share of a tile: 32 pixels x 16 kPairs output channels. In every precision, lane 4 g + m has pixels g, g + 8, g + 16 and
// g + 24, and of each 16 channels those from 4 m to 4 m + 3. Weights of one tap and `channels` input channels: on tensor cores
// rows of `channels`, one for each output channel (rowPitch; in the order of weightRowChannel); otherwise [channels][pitch] floats.
constexpr int kWarpPixels = 32;
constexpr int kOwnPixels = 4;  // of a lane
__device__ constexpr int ownPixel(int thread, int i) { return 8 * i + thread % kWarp / 4; }
__device__ constexpr int ownChannel(int thread, int pair) { return 16 * pair + thread % 4 * 4; }

// Bytes from one tap to the next, in a patch or in weights.
struct TapSteps {
  int row, column;
};

template <class Math, int kPairs>
class PixelTile {
  static constexpr int kBands = 2;  // of 16 pixels
 public:
  // Calls offset(pixel of the warp) for those pixels whose rows this lane reads: where they are in the patch, in bytes.
  template <class Offset>
  __device__ explicit PixelTile(const Offset& offset) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, matrix = lane / 8;
#pragma unroll
    for (int band = 0; band < kBands; ++band) rows_[band] = offset(16 * band + lane % 8 + 8 * (matrix & 1)) + 16 * (matrix >> 1);
    column_ = lane % 8 + 8 * (matrix >> 1);
    half_ = 16 * (matrix & 1);
  }

  __device__ void clear() {
#pragma unroll
    for (auto& band : sums_)
      for (auto& d : band)
        for (float& v : d) v = 0.0f;
  }

  // sums += patch (from `patch` on, at this lane's rows) times weights, over taps [rows][columns] and `channels`, a multiple of
  // kStep.
  __device__ void accumulate(const std::byte* patch, const TapSteps& patchSteps, const std::byte* weights,
                             const TapSteps& weightSteps, int weightPitch, int rows, int columns, int channels) {
    const std::byte *const first = patch + rows_[0], *const ownWeights = weights + column_ * weightPitch + half_;
    const int apart = rows_[1] - rows_[0];
#pragma unroll 1
    for (int at = 0; at < channels * Math::kElementBytes; at += 32) {
      const std::byte *patchRow = first + at, *weightRow = ownWeights + at;
#pragma unroll 1
      for (int row = 0; row < rows; ++row, patchRow += patchSteps.row, weightRow += weightSteps.row) {
        if (columns == 3) {
          multiplyRow<3>(patchRow, patchSteps.column, weightRow, weightSteps.column, apart, weightPitch);
        } else {
#pragma unroll 1
          for (int column = 0; column < columns; ++column)
            multiplyRow<1>(patchRow + column * patchSteps.column, 0, weightRow + column * weightSteps.column, 0, apart,
                           weightPitch);
        }
      }
    }
  }

  // The sums of this lane's pixel ownPixel(i) and its four channels from ownChannel(pair) on.
  __device__ void four(int i, int pair, float (&v)[4]) const {
    const auto& band = sums_[i / 2];
#pragma unroll
    for (int j = 0; j < 4; ++j) v[j] = band[2 * pair + j / 2][2 * (i % 2) + j % 2];
  }

 private:
  template <int kColumns>
  __device__ void multiplyRow(const std::byte* patch, int patchStep, const std::byte* weights, int weightStep, int apart,
                              int weightPitch) {
#pragma unroll
    for (int column = 0; column < kColumns; ++column, patch += patchStep, weights += weightStep) {
      uint32_t a[kBands][4];
#pragma unroll
      for (int band = 0; band < kBands; ++band) loadMatrices(a[band], patch + band * apart);
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        uint32_t b[4];
        loadMatrices(b, weights + pair * 16 * weightPitch);
#pragma unroll
        for (int band = 0; band < kBands; ++band) {
          Math::multiply(sums_[band][2 * pair], a[band], b[0], b[1]);
          Math::multiply(sums_[band][2 * pair + 1], a[band], b[2], b[3]);
        }
      }
    }
  }

  int rows_[kBands];  // of the matrices that this lane names, in bytes
  int column_, half_;
  float sums_[kBands][2 * kPairs][4];
};

template <int kPairs>
class PixelTile<Float32, kPairs> {
 public:
  template <class Offset>
  __device__ explicit PixelTile(const Offset& offset) {
#pragma unroll
    for (int i = 0; i < kOwnPixels; ++i) rows_[i] = offset(ownPixel(static_cast<int>(threadIdx.x), i));
  }

  __device__ void clear() {
#pragma unroll
    for (auto& pixel : sums_)
      for (auto& four : pixel)
        for (float& v : four) v = 0.0f;
  }

  __device__ void accumulate(const std::byte* patch, const TapSteps& patchSteps, const std::byte* weights,
                             const TapSteps& weightSteps, int weightPitch, int rows, int columns, int channels) {
#pragma unroll 1
    for (int row = 0; row < rows; ++row)
#pragma unroll 1
      for (int column = 0; column < columns; ++column)
        multiplyTap(patch + row * patchSteps.row + column * patchSteps.column,
                    weights + row * weightSteps.row + column * weightSteps.column, weightPitch, channels);
  }

  __device__ void four(int i, int pair, float (&v)[4]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) v[k] = sums_[i][pair][k];
  }

 private:
  __device__ void multiplyTap(const std::byte* patch, const std::byte* weights, int weightPitch, int channels) {
    const std::byte* row = weights + ownChannel(static_cast<int>(threadIdx.x), 0) * 4;
#pragma unroll 1
    for (int c = 0; c < channels; c += 4) {
      float a[kOwnPixels][4];
#pragma unroll
      for (int i = 0; i < kOwnPixels; ++i) {
        const float4 v = *reinterpret_cast<const float4*>(patch + rows_[i] + 4 * c);
        a[i][0] = v.x, a[i][1] = v.y, a[i][2] = v.z, a[i][3] = v.w;
      }
#pragma unroll
      for (int j = 0; j < 4; ++j, row += weightPitch) {
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) {
          const float4 v = *reinterpret_cast<const float4*>(row + 64 * pair);
          const float b[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
          for (int i = 0; i < kOwnPixels; ++i)
#pragma unroll
            for (int k = 0; k < 4; ++k) sums_[i][pair][k] = fmaf(a[i][j], b[k], sums_[i][pair][k]);
        }
      }
    }
  }

  int rows_[kOwnPixels];
  float sums_[kOwnPixels][kPairs][4];
};

// A warp's share of a weights gradient: up to kMost tiles of 16 input channels, each at a tap of its own, times the same 16 output
// channels, summed over pixels. dy's values are read once for all of them. Both operands are rows of pixels with columnPitch.
class WeightTilesBase {
 public:
  static constexpr int kMost = 5;     // more sums would leave no registers for loads that are under way
  static constexpr int kEdge = 16;    // channels of a tile, on both sides
  static constexpr int kPixels = 16;  // that are multiplied at a time
  static constexpr int kFloats = kMost * kEdge * kEdge;

  // Calls body(std::integral_constant<int, used>), used in [1, kMost].
  template <int kUsed = kMost, class Body>
  __device__ static void withUsed(int used, const Body& body) {
    if (used == kUsed) return body(std::integral_constant<int, kUsed>{});
    if constexpr (kUsed > 1) withUsed<kUsed - 1>(used, body);
  }

  __device__ void clear() {
#pragma unroll
    for (auto& tile : sums_)
      for (auto& half : tile)
        for (float& v : half) v = 0.0f;
  }
  // Writes the sums to `to` [kFloats], in an order that only addFrom knows.
  __device__ void store(float* to) const {
#pragma unroll
    for (int tile = 0; tile < kMost; ++tile)
#pragma unroll
      for (int i = 0; i < kOwn; ++i) to[(tile * kOwn + i) * kWarp + lane()] = sums_[tile][i / 4][i % 4];
  }
  __device__ void addFrom(const float* from) {
#pragma unroll
    for (int tile = 0; tile < kMost; ++tile)
#pragma unroll
      for (int i = 0; i < kOwn; ++i) sums_[tile][i / 4][i % 4] += from[(tile * kOwn + i) * kWarp + lane()];
  }

 protected:
  static constexpr int kOwn = kEdge * kEdge / kWarp;  // sums of a lane in each tile
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }

  float sums_[kMost][2][4];
};

// On tensor cores a tile is two of their 16 x 8 results, side by side.
template <class Math>
class WeightTiles : public WeightTilesBase {
 public:
  // Where this lane reads, in bytes. In the patch, x's pixels are `pitch` bytes apart, and a step's first pixel and its eighth
  // `eighth`: they may be in different rows.
  struct Lane {
    int pitch, eighth, dyPitch;
    int x, dy;

    __device__ Lane(int pixelPitch, int eighthPixel, int pitchOfDy) : pitch(pixelPitch), eighth(eighthPixel), dyPitch(pitchOfDy) {
      const int matrix = lane() / 8;
      if constexpr (Math::kElementBytes == 2) {
        x = lane() % 8 * pitch + (matrix >> 1) * eighth + 16 * (matrix & 1);
        dy = (lane() % 8 + 8 * (matrix & 1)) * dyPitch + 16 * (matrix >> 1);
      } else {
        x = lane() % 4 * pitch + lane() / 4 * 4;
        dy = lane() % 4 * dyPitch + lane() / 4 * 4;
      }
    }
  };

  // sums += the step's pixels of x times those of dy. Tile i reads x from `x` + places[i] on.
  template <int kUsed>
  __device__ void accumulate(const Lane& at, const std::byte* x, const int (&places)[kUsed], const std::byte* dy) {
    if constexpr (Math::kElementBytes == 2) {
      // ldmatrix turns rows of pixels into columns of the fragments. All loads come first: none of them waits for a product.
      uint32_t a[kUsed][4], b[4];
      loadMatricesTransposed(b, dy + at.dy);
#pragma unroll
      for (int i = 0; i < kUsed; ++i) loadMatricesTransposed(a[i], x + places[i] + at.x);
#pragma unroll
      for (int i = 0; i < kUsed; ++i) multiply(i, a[i], b);
    } else {
      // ldmatrix cannot transpose 4-byte elements: they are read one by one, 8 pixels at a time.
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const auto* from = reinterpret_cast<const uint32_t*>(dy + at.dy + half * 8 * at.dyPitch);
        const auto* later = reinterpret_cast<const uint32_t*>(dy + at.dy + (half * 8 + 4) * at.dyPitch);
        const uint32_t b[4] = {from[0], later[0], from[8], later[8]};
#pragma unroll
        for (int i = 0; i < kUsed; ++i) {
          const std::byte* const row = x + places[i] + at.x + half * at.eighth;
          const auto *near = reinterpret_cast<const uint32_t*>(row), *far = reinterpret_cast<const uint32_t*>(row + 4 * at.pitch);
          const uint32_t a[4] = {near[0], near[8], far[0], far[8]};
          multiply(i, a, b);
        }
      }
    }
  }

  // Calls each(input channel, output channel, sum) for this lane's sums of a tile.
  template <class Each>
  __device__ void forEach(int tile, const Each& each) const {
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
      each(lane() / 4 + (i / 2 % 2) * 8, i / 4 * 8 + 2 * (lane() % 4) + i % 2, sums_[tile][i / 4][i % 4]);
  }

 private:
  __device__ void multiply(int tile, const uint32_t (&a)[4], const uint32_t (&b)[4]) {
    Math::multiply(sums_[tile][0], a, b[0], b[1]);
    Math::multiply(sums_[tile][1], a, b[2], b[3]);
  }
};

// A lane has 4 input times 2 output channels of each tile.
template <>
class WeightTiles<Float32> : public WeightTilesBase {
 public:
  struct Lane {
    int pitch, eighth, dyPitch;
    __device__ Lane(int pixelPitch, int eighthPixel, int pitchOfDy) : pitch(pixelPitch), eighth(eighthPixel), dyPitch(pitchOfDy) {}
  };

  template <int kUsed>
  __device__ void accumulate(const Lane& at, const std::byte* x, const int (&places)[kUsed], const std::byte* dy) {
    x += lane() / 8 * 16, dy += lane() % 8 * 8;
#pragma unroll 1
    for (int half = 0; half < 2; ++half, x += at.eighth) {
      const std::byte* pixel = x;
#pragma unroll 2
      for (int i = 0; i < 8; ++i, pixel += at.pitch, dy += at.dyPitch) {
        const float2 b = *reinterpret_cast<const float2*>(dy);
#pragma unroll
        for (int tile = 0; tile < kUsed; ++tile) {
          const float4 a = *reinterpret_cast<const float4*>(pixel + places[tile]);
          const float channels[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            sums_[tile][0][j] = fmaf(channels[j], b.x, sums_[tile][0][j]);
            sums_[tile][1][j] = fmaf(channels[j], b.y, sums_[tile][1][j]);
          }
        }
      }
    }
  }

  template <class Each>
  __device__ void forEach(int tile, const Each& each) const {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) each(lane() / 8 * 4 + i % 4, lane() % 8 * 2 + i / 4, sums_[tile][i / 4][i % 4]);
  }
};

#endif

}  // namespace revnet::cuda

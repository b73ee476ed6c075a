// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
// A draw is a pure function of (key, counter): the same on every backend, for any thread count, at any resume point.
#pragma once

#include <array>
#include <cstdint>

#if defined(__CUDACC__)
#define REVNET_HOST_DEVICE __host__ __device__
#else
#define REVNET_HOST_DEVICE
#endif

namespace revnet {

// What a stream of random numbers is for; part of the counter, so that no two uses share numbers.
enum class RandomPurpose : uint32_t { Initialization = 1, Shuffle = 2, Augmentation = 3, Dataset = 4 };

struct PhiloxBlock {
  uint32_t value[4];
};

// counter: position, two words of the caller's choice (step, layer, epoch ...), purpose. key: the 64-bit seed.
REVNET_HOST_DEVICE inline PhiloxBlock philox(uint32_t seedLow, uint32_t seedHigh, uint32_t position, uint32_t streamLow,
                                             uint32_t streamHigh, RandomPurpose purpose) {
  uint32_t c0 = position, c1 = streamLow, c2 = streamHigh, c3 = static_cast<uint32_t>(purpose);
  uint32_t k0 = seedLow, k1 = seedHigh;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// How one training image is shifted and mirrored: offsets in [0, 2 * padding], and whether its columns are reversed.
struct Augmentation {
  int row, column;
  bool flip;
};

// `counter`: seed low, seed high, step low, step high (the `counter` buffer of gatherBatch). `sample`: position in the batch.
REVNET_HOST_DEVICE inline Augmentation drawAugmentation(const int32_t* counter, uint32_t sample, int padding, bool flip) {
  const PhiloxBlock draw =
      philox(static_cast<uint32_t>(counter[0]), static_cast<uint32_t>(counter[1]), sample, static_cast<uint32_t>(counter[2]),
             static_cast<uint32_t>(counter[3]), RandomPurpose::Augmentation);
  const uint32_t choices = 2u * static_cast<uint32_t>(padding) + 1u;
  // Multiply-shift maps 32 random bits to [0, choices); its bias is below choices / 2^32.
  return {static_cast<int>((uint64_t{draw.value[0]} * choices) >> 32), static_cast<int>((uint64_t{draw.value[1]} * choices) >> 32),
          flip && (draw.value[2] & 1u) != 0};
}

}  // namespace revnet

// The generator against its authors' known answers, and the draws made from it.
#include "core/philox.h"

#include <algorithm>

#include "check.h"

using namespace revnet;

namespace {

// The purpose is the counter's last word, so that any word can be had.
PhiloxBlock block(const uint32_t (&counter)[4], const uint32_t (&key)[2]) {
  return philox(key[0], key[1], counter[0], counter[1], counter[2], static_cast<RandomPurpose>(counter[3]));
}

}  // namespace

// Random123's kat_vectors for philox4x32-10.
TEST(philoxKnownAnswers) {
  struct Answer {
    uint32_t counter[4], key[2], value[4];
  };
  const Answer answers[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Answer& answer : answers) {
    const PhiloxBlock drawn = block(answer.counter, answer.key);
    for (int i = 0; i < 4; ++i) CHECK_EQUAL(drawn.value[i], answer.value[i]);
  }
}

TEST(augmentationDrawsStayInRange) {
  for (const int padding : {0, 1, 2, 4}) {
    int lowest = 1 << 20, highest = -1, flips = 0;
    for (uint32_t sample = 0; sample < 2000; ++sample) {
      const int32_t counter[4] = {1, 2, 3, 4};
      const Augmentation draw = drawAugmentation(counter, sample, padding, true);
      lowest = std::min({lowest, draw.row, draw.column});
      highest = std::max({highest, draw.row, draw.column});
      flips += draw.flip;
      CHECK(!drawAugmentation(counter, sample, padding, false).flip);
    }
    CHECK_EQUAL(lowest, 0);
    CHECK_EQUAL(highest, 2 * padding);
    CHECK(flips > 900 && flips < 1100);
  }
}

// Memory that is given out at once and filled later: it is zeros, and nobody else is promised it meanwhile.
#include "core/host_memory.h"

#include <algorithm>

#include "check.h"

using namespace revnet;

namespace {

constexpr size_t kMiB = 1 << 20;
constexpr size_t kBytes = 512 * kMiB;

// Other processes take memory meanwhile.
bool isAbout(uint64_t left, uint64_t before, uint64_t taken) {
  const uint64_t expected = before - taken;
  return std::max(left, expected) - std::min(left, expected) < kBytes / 2;
}

}  // namespace

namespace {

// Whether zeros count as taken as soon as they are allocated, once they are settled no more than that, and not when they are
// released.
bool countAsTaken() {
  const uint64_t before = availableHostBytes();
  void* memory = allocateHostZeros(kBytes);
  bool good = isAbout(availableHostBytes(), before, kBytes) && isAbout(plannableHostBytes(), before, kBytes);
  settleHost(memory);
  good = isAbout(availableHostBytes(), before, kBytes) && good;
  releaseHost(memory);
  good = isAbout(availableHostBytes(), before, 0) && good;
  void* unsettled = allocateHostZeros(kBytes);
  releaseHost(unsettled);
  return isAbout(availableHostBytes(), before, 0) && good;
}

}  // namespace

// Other processes take and give back memory meanwhile, so one good try of many is enough; without the count, none would be.
TEST(hostZerosCountAsTakenBeforeTheyAreTouched) {
  bool good = false;
  for (int i = 0; i < 50 && !good; ++i) good = countAsTaken();
  CHECK(good);
}

TEST(hostZerosAreZerosAndKeepWhatWasWrittenBefore) {
  for (const size_t bytes : {size_t{1}, size_t{4097}, 3 * kMiB + 5}) {
    auto* memory = static_cast<unsigned char*>(allocateHostZeros(bytes));
    CHECK(std::all_of(memory, memory + bytes, [](unsigned char value) { return value == 0; }));
    std::fill(memory, memory + bytes, static_cast<unsigned char>(7));
    settleHost(memory);
    settleHost(memory);
    CHECK(std::all_of(memory, memory + bytes, [](unsigned char value) { return value == 7; }));
    releaseHost(memory);
  }
}

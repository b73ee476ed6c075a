// Memory that is given out at once and filled later: it is zeros, and nobody else is promised it meanwhile.
#include "core/host_memory.h"

#include <algorithm>

#include "check.h"
#include "core/host_limits.h"

using namespace revnet;

namespace {

constexpr size_t kMiB = 1 << 20;

}  // namespace

TEST(hostZerosCountAsTakenBeforeTheyAreTouched) {
  const size_t before = promisedHostBytes();
  void* memory = allocateHostZeros(512 * kMiB);
  CHECK(promisedHostBytes() == before + 512 * kMiB);
  settleHost(memory);
  CHECK(promisedHostBytes() == before);
  releaseHost(memory);
  CHECK(promisedHostBytes() == before);
  void* unsettled = allocateHostZeros(512 * kMiB);
  releaseHost(unsettled);
  CHECK(promisedHostBytes() == before);
}

// Half of what there is, since other processes take and give back memory meanwhile.
TEST(hostZerosAreNotAvailableToOthers) {
  const uint64_t before = availableHostBytes();
  if (before == kNoLimit) return;
  void* memory = allocateHostZeros(before / 2);
  CHECK(availableHostBytes() < before / 4 * 3);
  CHECK(plannableHostBytes() < before / 4 * 3);
  releaseHost(memory);
  CHECK(availableHostBytes() > before / 4 * 3);
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

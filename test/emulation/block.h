// One block of threads at a time, each thread a fiber. A thread runs until it reaches a barrier, a collective of its warp or its
// end; which one goes on is drawn at random. So a missing barrier shows as a wrong result under some seed, and a barrier that
// not all reach as an error, never as a hang.
//
// One block runs at a time in the whole process: the caller holds the device's lock. Hence plain globals.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <string>

#include "emulation/types.h"

namespace revnet::emulation {

using Where = std::source_location;

// SplitMix64: a draw for each switch of threads has to be cheap.
class Random {
 public:
  explicit Random(uint64_t seed = 0) : state_(seed) {}
  uint64_t below(uint64_t n) { return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64); }

 private:
  uint64_t next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
  }
  uint64_t state_;
};

struct Launch {
  std::function<void()> body;  // the kernel with its arguments, for one thread
  const void* kernel;          // its address, which names it in errors
  dim3 grid;
  int threads;
  size_t sharedBytes;
  bool early;  // it may start before the launch before it in its stream has ended
};

// What fresh memory holds: every float is a NaN, every integer -1.
constexpr unsigned char kPoison = 0xFF;

// Runs all blocks of a launch, in random order. Returns what went wrong, with the kernel, block and thread; empty: nothing. `next`:
// the launch that follows in the stream, or null. Where it may start early, a block of it runs first, as far as its wait.
std::string runLaunch(const std::shared_ptr<const Launch>& launch, const std::shared_ptr<const Launch>& next, Random& random);
// Drops what was started early: nothing will follow.
void forgetEarly();

// ---- For the threads of the running block --------------------------------------------------------------------------------

extern uint3 currentThread, currentBlock;
extern dim3 currentBlockDim, currentGridDim;

std::byte* sharedMemoryOfBlock();
// Ends the launch with an error.
[[noreturn]] void fault(const std::string& what, const Where& where);

void blockBarrier(const Where& where);
// In a block that was started early: until the launch before has ended.
void waitForPrevious(const Where& where);

// What a lane brings to a collective of its warp, and where it wants the result. The 32nd lane to arrive evaluates it for all.
struct LaneOperands {
  const void* input = nullptr;  // shuffle: the value
  void* output = nullptr;       // shuffle: the value; mma: d; ldmatrix: the four registers
  size_t bytes = 0;             // shuffle: of the value
  int lanes = 0;                // shuffle: the lane mask
  uint32_t words[6] = {};       // mma: a[0..3], b0, b1; ldmatrix: the lane's row, as it was when the lane arrived
};
using Evaluate = void (*)(LaneOperands (&lanes)[32]);
// `name` and `where` must be the same for all 32 lanes.
void warpCollective(const char* name, Evaluate evaluate, const LaneOperands& operands, const Where& where);
void evaluateNothing(LaneOperands (&lanes)[32]);
void evaluateShuffle(LaneOperands (&lanes)[32]);
void evaluateLoadMatrices(LaneOperands (&lanes)[32]);
void evaluateLoadMatricesTransposed(LaneOperands (&lanes)[32]);
void evaluateMultiplyTf32(LaneOperands (&lanes)[32]);
void evaluateMultiplyBfloat16(LaneOperands (&lanes)[32]);

// Faults unless [address, address + bytes) lies in the block's shared memory, aligned to `bytes`.
void checkShared(const void* address, size_t bytes, const char* name, const Where& where);

// Asynchronous copies of the running thread. Until the wait that covers it, a copy's destination is poisoned: on a device it may
// land at any time in between. Its source must not change meanwhile.
void copyAsync(void* shared, const void* global, const Where& where);
void copyAsyncClose();
void copyAsyncWaitFor(size_t pendingGroups);

}  // namespace revnet::emulation

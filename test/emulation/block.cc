#include "emulation/block.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <sstream>
#include <vector>

#include "emulation/fiber.h"
#include "emulation/memory.h"

namespace revnet::emulation {

uint3 currentThread, currentBlock;
dim3 currentBlockDim, currentGridDim;

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 512 << 10;
#else
constexpr size_t kStackBytes = 128 << 10;
#endif

struct Copy {
  void* shared;
  const void* global;
  std::array<std::byte, 16> contents;  // when it was asked for
  Where where;
};

struct Thread {
  Fiber* fiber = nullptr;
  unsigned index = 0;
  const char* waitsFor = nullptr;  // null: runs, is ready, or has ended
  Where where;
  bool ended = false;
  // Groups of asynchronous copies under way, oldest first; the last one is still open.
  std::deque<std::vector<Copy>> copies{1};
};

struct Warp {
  int arrived = 0;
  const char* name = nullptr;
  Where where;
  LaneOperands lanes[32];
};

// A block that runs, or one that was started early and waits for the kernel before it.
struct Block {
  FiberPool fibers{kStackBytes};
  Fiber host;
  std::shared_ptr<const Launch> launch;  // null: none
  uint64_t number = 0;                   // in the grid
  bool early = false;                    // waitForPrevious waits
  Random* random = nullptr;
  std::unique_ptr<GuardedMemory> shared;

  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<Thread*> ready;
  Thread* running = nullptr;
  int live = 0;
  int atBarrier = 0;
  Where barrier;
  bool latestFirst = false;  // whether who became ready last goes first: a warp then runs far ahead of the others
  std::string error;
};

// Made once; their stacks serve every block. The ordinary blocks of a launch are the first, one after the other; an early one of
// the launch that runs, and one of the launch after it, are the others.
Block blocks[3];
Block* current = &blocks[0];
Block& block() { return *current; }

const char* const kWaitForPrevious = "waitForPrevious";

uint64_t draw(Block& b, uint64_t below) { return b.random->below(below); }

std::string describe(const Where& where) {
  std::ostringstream text;
  const std::string file = where.file_name();
  text << file.substr(file.find_last_of('/') + 1) << ':' << where.line();
  return text.str();
}

// ---- Scheduling -----------------------------------------------------------------------------------------------------------

// Takes the next thread out of `ready`; null where there is none.
Thread* takeNext(Block& b) {
  if (b.ready.empty()) return nullptr;
  if (!b.latestFirst || draw(b, 8) == 0) std::swap(b.ready[draw(b, b.ready.size())], b.ready.back());
  Thread* next = b.ready.back();
  b.ready.pop_back();
  return next;
}

// Leaves the running thread for the next one, or for the host where none is ready.
void runNext(Block& b, bool final) {
  Thread* self = b.running;
  Thread* next = takeNext(b);
  if (next == self) return;
  b.running = next;
  if (next) currentThread.x = next->index;
  switchFibers(*self->fiber, next ? *next->fiber : b.host, final);
}

void makeReady(Block& b, Thread* const* first, size_t count) {
  const size_t before = b.ready.size();
  b.ready.insert(b.ready.end(), first, first + count);
  for (size_t i = 0; i < count; ++i) {
    first[i]->waitsFor = nullptr;
    std::swap(b.ready[before + i], b.ready[before + draw(b, i + 1)]);
  }
}

// The running thread waits; others run until it is ready again.
void waitFor(Block& b, const char* what, const Where& where) {
  b.running->waitsFor = what;
  b.running->where = where;
  runNext(b, false);
}

void releaseBarrier(Block& b) {
  b.atBarrier = 0;
  std::vector<Thread*> all;
  for (Thread& thread : b.threads)
    if (!thread.ended) all.push_back(&thread);
  makeReady(b, all.data(), all.size());
}

std::string describePlace(const Launch& launch, bool inBlock);

// Unwinds the frames of a thread that has called fault().
struct Faulted {};

void threadMain(boost::context::detail::transfer_t transfer) {
  arrive(transfer);
  Block& b = block();
  try {
    b.launch->body();
  } catch (const Faulted&) {
  } catch (...) {
    b.error = describePlace(*b.launch, true) + ": an exception in device code";
  }
  // Outside the handlers: the exception has ended before another fiber may throw one. The other threads stay where they are.
  if (!b.error.empty()) switchFibers(*b.running->fiber, b.host, true);
  b.running->ended = true;
  --b.live;
  // A barrier waits for the threads that have not ended.
  if (b.live > 0 && b.atBarrier == b.live) releaseBarrier(b);
  runNext(b, true);
}

// ---- Errors ---------------------------------------------------------------------------------------------------------------

// The function at `address`; addr2line knows those of anonymous namespaces too.
std::string functionName(const void* address) {
  Dl_info info{};
  if (!dladdr(address, &info) || !info.dli_fname) return "a kernel";
  char command[4200];
  std::snprintf(command, sizeof(command), "addr2line -Cfe '%s' 0x%zx 2>/dev/null", info.dli_fname,
                static_cast<size_t>(static_cast<const char*>(address) - static_cast<const char*>(info.dli_fbase)));
  char line[512] = "";
  if (FILE* pipe = popen(command, "r")) {
    if (!std::fgets(line, sizeof(line), pipe)) line[0] = 0;
    pclose(pipe);
  }
  std::string name = line;
  name.erase(std::min(name.find('\n'), name.size()));
  for (const char* part : {"(anonymous namespace)::", "revnet::cuda::"})
    for (size_t at; (at = name.find(part)) != std::string::npos;) name.erase(at, std::string(part).size());
  return name.empty() || name[0] == '?' ? "a kernel" : name;
}

std::string describePlace(const Launch& launch, bool inBlock) {
  std::ostringstream text;
  text << "kernel " << functionName(launch.kernel);
  if (inBlock) text << ", block (" << currentBlock.x << ", " << currentBlock.y << ", " << currentBlock.z << ")";
  return text.str();
}

// Why no thread can go on though some have not ended.
std::string describeDeadlock(const Block& b) {
  struct Waiting {
    std::string what;
    int count;
    unsigned first;
  };
  std::vector<Waiting> all;
  int ended = 0;
  for (const Thread& thread : b.threads) {
    if (thread.ended) {
      ++ended;
      continue;
    }
    const std::string what = std::string(thread.waitsFor) + " (" + describe(thread.where) + ")";
    const auto same = std::find_if(all.begin(), all.end(), [&](const Waiting& w) { return w.what == what; });
    if (same == all.end())
      all.push_back({what, 1, thread.index});
    else
      ++same->count;
  }
  std::ostringstream text;
  text << "not all threads arrive: ";
  for (const Waiting& w : all) text << w.count << " wait at " << w.what << ", the first is thread " << w.first << "; ";
  text << ended << " have ended";
  return text.str();
}

// ---- Blocks ---------------------------------------------------------------------------------------------------------------

// Makes the block the one that kernels see.
void enter(Block& b) {
  const Launch& launch = *b.launch;
  const uint64_t width = launch.grid.x, height = launch.grid.y;
  current = &b;
  currentBlockDim = dim3(static_cast<unsigned>(launch.threads));
  currentGridDim = launch.grid;
  currentBlock = {static_cast<unsigned>(b.number % width), static_cast<unsigned>(b.number / width % height),
                  static_cast<unsigned>(b.number / (width * height))};
  currentThread = {0, 0, 0};
}

void startBlock(Block& b, uint64_t number) {
  const Launch& launch = *b.launch;
  b.number = number;
  b.error.clear();
  b.shared->poison();
  const size_t count = static_cast<size_t>(launch.threads);
  b.threads.resize(count);
  b.warps.resize((count + 31) / 32);
  for (Warp& warp : b.warps) warp.arrived = 0;
  std::vector<Thread*> all(count);
  for (size_t i = 0; i < count; ++i) {
    Thread& thread = b.threads[i];
    thread.fiber = &b.fibers[i];
    thread.fiber->start(threadMain);
    thread.index = static_cast<unsigned>(i);
    thread.ended = false;
    thread.copies.resize(1);
    thread.copies.front().clear();
    all[i] = &thread;
  }
  b.live = launch.threads;
  b.atBarrier = 0;
  b.latestFirst = draw(b, 2) == 0;
  b.ready.clear();
  makeReady(b, all.data(), count);
}

// Until no thread is ready.
void goOn(Block& b) {
  b.host = {};  // whichever thread of the process synchronises
  enter(b);
  b.running = takeNext(b);
  if (!b.running) return;
  currentThread.x = b.running->index;
  switchFibers(b.host, *b.running->fiber);
}

// What went wrong in a block that goes no further.
void checkEnd(Block& b) {
  const Launch& launch = *b.launch;
  if (!b.error.empty()) return;
  if (b.live > 0)
    b.error = describePlace(launch, true) + ": " + describeDeadlock(b);
  else if (!b.shared->intact())
    b.error = describePlace(launch, true) + ": wrote past its " + std::to_string(launch.sharedBytes) + " bytes of shared memory";
}

void prepareBlock(Block& b, std::shared_ptr<const Launch> launch, Random& random) {
  b.shared = std::make_unique<GuardedMemory>(launch->sharedBytes, 128);
  b.launch = std::move(launch);
  b.random = &random;
}

uint64_t countBlocks(const Launch& launch) { return uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z; }

// One block of the launch, as far as it comes before the launch before it has run.
void startEarly(const std::shared_ptr<const Launch>& launch, Random& random) {
  for (Block& b : blocks) {
    if (&b == &blocks[0] || b.launch) continue;
    prepareBlock(b, launch, random);
    b.early = true;
    startBlock(b, random.below(countBlocks(*launch)));
    goOn(b);
    b.early = false;
    return;
  }
}

// The block of the launch that was started early; null: none was.
Block* findEarly(const std::shared_ptr<const Launch>& launch) {
  for (Block& b : blocks)
    if (&b != &blocks[0] && b.launch == launch) return &b;
  return nullptr;
}

// To its end.
void finishEarly(Block& b) {
  std::vector<Thread*> waiting;
  for (Thread& thread : b.threads)
    if (!thread.ended && thread.waitsFor == kWaitForPrevious) waiting.push_back(&thread);
  makeReady(b, waiting.data(), waiting.size());
  if (b.error.empty()) goOn(b);
  enter(b);
  checkEnd(b);
}

}  // namespace

void fault(const std::string& what, const Where& where) {
  Block& b = block();
  b.error =
      describePlace(*b.launch, true) + ", thread " + std::to_string(b.running->index) + ": " + what + " (" + describe(where) + ")";
  throw Faulted();
}

std::string runLaunch(const std::shared_ptr<const Launch>& launch, const std::shared_ptr<const Launch>& next, Random& random) {
  Block* const early = findEarly(launch);
  if (next && next->early) startEarly(next, random);
  Block& ordinary = blocks[0];
  prepareBlock(ordinary, launch, random);
  std::vector<uint64_t> order(countBlocks(*launch));
  for (uint64_t i = 0; i < order.size(); ++i) {
    order[i] = i;
    std::swap(order[i], order[random.below(i + 1)]);
  }
  std::string error;
  for (const uint64_t i : order) {
    Block& b = early && early->number == i ? *early : ordinary;
    if (&b == early) {
      finishEarly(b);
    } else {
      startBlock(b, i);
      goOn(b);
      checkEnd(b);
    }
    error = b.error;
    if (!error.empty()) break;
  }
  ordinary.launch = nullptr;
  if (early) early->launch = nullptr;
  return error;
}

void forgetEarly() {
  for (Block& b : blocks) b.launch = nullptr;
}

std::byte* sharedMemoryOfBlock() { return block().shared->data(); }

void waitForPrevious(const Where& where) {
  Block& b = block();
  if (b.early) waitFor(b, kWaitForPrevious, where);
}

void blockBarrier(const Where& where) {
  Block& b = block();
  // Barriers count arrivals wherever they come from, but the language wants all threads at the same one.
  if (b.atBarrier == 0)
    b.barrier = where;
  else if (b.barrier.line() != where.line() || b.barrier.column() != where.column())
    fault("reaches a barrier while others wait at another (" + describe(b.barrier) + ")", where);
  if (++b.atBarrier < b.live) return waitFor(b, "syncBlock", where);
  releaseBarrier(b);
  runNext(b, false);
}

void warpCollective(const char* name, Evaluate evaluate, const LaneOperands& operands, const Where& where) {
  Block& b = block();
  const size_t index = b.running->index / 32;
  Warp& warp = b.warps[index];
  if (warp.arrived == 0) {
    warp.name = name;
    warp.where = where;
  } else if (warp.name != name || warp.where.line() != where.line() || warp.where.column() != where.column()) {
    fault(
        std::string("reaches ") + name + " while other lanes of its warp wait at " + warp.name + " (" + describe(warp.where) + ")",
        where);
  }
  warp.lanes[b.running->index % 32] = operands;
  if (++warp.arrived < 32) return waitFor(b, name, where);
  warp.arrived = 0;
  evaluate(warp.lanes);
  Thread* lanes[32];
  for (size_t lane = 0; lane < 32; ++lane) lanes[lane] = &b.threads[index * 32 + lane];
  makeReady(b, lanes, 32);
  runNext(b, false);
}

// ---- Shared memory and asynchronous copies --------------------------------------------------------------------------------

void checkShared(const void* address, size_t bytes, const char* name, const Where& where) {
  const Block& b = block();
  const std::byte* at = static_cast<const std::byte*>(address);
  if (at < b.shared->data() || at + bytes > b.shared->data() + b.launch->sharedBytes)
    fault(std::string(name) + " at an address outside the block's shared memory (" + std::to_string(at - b.shared->data()) +
              " of " + std::to_string(b.launch->sharedBytes) + " bytes)",
          where);
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) fault(std::string(name) + " at a misaligned shared address", where);
}

void copyAsync(void* shared, const void* global, const Where& where) {
  checkShared(shared, 16, "copyAsync16", where);
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) fault("copyAsync16 from a misaligned global address", where);
  if (!isDeviceMemory(global, 16)) fault("copyAsync16 from an address outside device memory", where);
  std::memset(shared, kPoison, 16);
  Copy copy{shared, global, {}, where};
  std::memcpy(copy.contents.data(), global, copy.contents.size());
  block().running->copies.back().push_back(copy);
}

void copyAsyncClose() { block().running->copies.emplace_back(); }

void copyAsyncWaitFor(size_t pendingGroups) {
  auto& copies = block().running->copies;
  while (copies.size() > pendingGroups + 1) {
    for (const Copy& copy : copies.front()) {
      if (std::memcmp(copy.contents.data(), copy.global, copy.contents.size()) != 0)
        fault("copyAsync16 from what was written while the copy was under way", copy.where);
      std::memcpy(copy.shared, copy.global, copy.contents.size());
    }
    copies.pop_front();
  }
}

}  // namespace revnet::emulation

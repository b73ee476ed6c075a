// Tests of the emulation of CUDA itself (test/emulation): that it does what the manuals say, and finds the faults it is there for.
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "check.h"
#include "emulation/control.h"
#include "emulation/runtime.h"
#include "emulation_kernels.cuh"

using namespace revnet;
using namespace revnet::cuda;
using namespace revnet::test;
using emulation::restart;

namespace {

constexpr uint64_t kSeeds = 50;

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, count * sizeof(T)), "memory");
    data_ = static_cast<T*>(memory);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    check(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "upload");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  operator T*() const { return data_; }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    check(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "download");
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

std::vector<float> wholeNumbers(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 97);
  return values;
}

// In how many of kSeeds schedules body() gives something else than `expected`.
template <class T, class Body>
uint64_t wrongSchedules(const std::vector<T>& expected, const Body& body) {
  uint64_t wrong = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    restart(seed);
    if (body() != expected) ++wrong;
  }
  return wrong;
}

// What `launches` ends with at the next synchronisation.
template <class Body>
std::string faultOf(const Body& launches) {
  restart(1);
  std::string message;
  try {
    launches();
    check(cudaDeviceSynchronize(), "synchronise");
  } catch (const Error& error) {
    message = error.what();
  }
  // Sticky, as a device's: until the process ends, or resets it.
  void* memory = nullptr;
  if (!message.empty()) CHECK_EQUAL(cudaMalloc(&memory, 4), cudaErrorLaunchFailure);
  restart(1);
  CHECK_EQUAL(cudaGetLastError(), cudaSuccess);
  return message;
}

void checkContains(const std::string& text, const std::string& part) {
  if (text.find(part) == std::string::npos) fail(__FILE__, __LINE__, "'" + text + "' does not say '" + part + "'");
}

// What body() writes to stderr in a process of its own, and whether that process ended well.
template <class Body>
std::pair<std::string, bool> inChild(const Body& body) {
  int ends[2];
  if (pipe(ends) != 0) fail(__FILE__, __LINE__, "pipe");
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    try {
      body();
    } catch (...) {
      _exit(2);
    }
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t count; (count = read(ends[0], part, sizeof(part))) > 0;) text.append(part, static_cast<size_t>(count));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return {text, WIFEXITED(status) && WEXITSTATUS(status) == 0};
}

}  // namespace

// ---- Planted faults -------------------------------------------------------------------------------------------------------

TEST(emulationFindsAMissingBarrier) {
  constexpr unsigned kBlocks = 8, kThreads = 256;
  const std::vector<float> in = wholeNumbers(kBlocks * kThreads);
  std::vector<float> sums(kBlocks);
  for (size_t i = 0; i < in.size(); ++i) sums[i / kThreads] += in[i];
  const auto run = [&](auto kernel) {
    const DeviceArray<float> from(in), to(kBlocks);
    launch(nullptr, kernel, dim3(kBlocks), kThreads, kThreads / 32 * sizeof(float), from, to);
    return to.read();
  };
  CHECK_EQUAL(wrongSchedules(sums, [&] { return run(missingBarrier<false>); }), 0u);
  // One schedule in a thousand could get all eight blocks right.
  CHECK(wrongSchedules(sums, [&] { return run(missingBarrier<true>); }) >= kSeeds - 2);
}

TEST(emulationFindsAnOutOfBoundsStore) {
  constexpr unsigned kBlocks = 2, kThreads = 64;
  const std::vector<float> in = wholeNumbers(kBlocks * kThreads);
  std::vector<float> reversed(in.size());
  for (size_t i = 0; i < in.size(); ++i) reversed[i] = in[i / kThreads * kThreads + kThreads - 1 - i % kThreads];
  const auto run = [&](auto kernel) {
    const DeviceArray<float> from(in), to(in.size());
    launch(nullptr, kernel, dim3(kBlocks), kThreads, kThreads * sizeof(float), from, to);
    return to.read();
  };
  CHECK_EQUAL(wrongSchedules(reversed, [&] { return run(outOfBounds<false>); }), 0u);
  // AddressSanitizer ends the process.
  const auto [text, well] = inChild([&] { run(outOfBounds<true>); });
  CHECK(!well);
  checkContains(text, "heap-buffer-overflow");
  checkContains(text, "outOfBounds");
}

TEST(emulationFindsAnUninitialisedRead) {
  constexpr unsigned kBlocks = 3, kThreads = 64, kCount = 150;
  const std::vector<float> in = wholeNumbers(kCount);
  std::vector<float> sums(kBlocks);
  for (size_t i = 0; i < in.size(); ++i) sums[i / kThreads] += in[i];
  const auto run = [&](auto kernel) {
    const DeviceArray<float> from(in), to(kBlocks);
    launch(nullptr, kernel, dim3(kBlocks), kThreads, kThreads * sizeof(float), from, to, kCount);
    return to.read();
  };
  CHECK_EQUAL(wrongSchedules(sums, [&] { return run(uninitialisedRead<false>); }), 0u);
  CHECK_EQUAL(wrongSchedules(sums, [&] { return run(uninitialisedRead<true>); }), kSeeds);
  CHECK(std::isnan(run(uninitialisedRead<true>).back()));
}

TEST(emulationFindsAMissingWait) {
  constexpr unsigned kBlocks = 2, kThreads = 64, kRounds = 5, kSlice = kBlocks * kThreads * 4;
  const std::vector<float> in = wholeNumbers(kRounds * kSlice);
  std::vector<float> sums(kSlice);
  for (size_t i = 0; i < in.size(); ++i) sums[(i % kSlice) ^ 4u] += in[i];
  const auto run = [&](auto kernel) {
    const DeviceArray<float> from(in), to(kSlice);
    launch(nullptr, kernel, dim3(kBlocks), kThreads, 2 * kThreads * sizeof(float4), from, to, static_cast<int>(kRounds));
    return to.read();
  };
  CHECK_EQUAL(wrongSchedules(sums, [&] { return run(missingWait<false>); }), 0u);
  CHECK_EQUAL(wrongSchedules(sums, [&] { return run(missingWait<true>); }), kSeeds);
}

TEST(emulationFindsAMissingDependentWait) {
  constexpr unsigned kBlocks = 4, kThreads = 64;
  const std::vector<float> in = wholeNumbers(kBlocks * kThreads);
  std::vector<float> after = in;
  for (float& v : after) v += 2;
  const auto run = [&](auto kernel) {
    const DeviceArray<float> from(in), between(in.size()), to(in.size());
    launch(nullptr, kernel, dim3(kBlocks), kThreads, 0, from, between);
    launch(nullptr, kernel, dim3(kBlocks), kThreads, 0, between, to);
    return to.read();
  };
  CHECK_EQUAL(wrongSchedules(after, [&] { return run(missingDependentWait<false>); }), 0u);
  CHECK_EQUAL(wrongSchedules(after, [&] { return run(missingDependentWait<true>); }), kSeeds);
}

TEST(emulationFindsACopyFromWhatIsYetToBeWritten) {
  const std::vector<float> in = wholeNumbers(1024);
  const auto run = [&](auto kernel) {
    const DeviceArray<float> from(in), between(in.size()), to(in.size());
    launch(nullptr, kernel, dim3(4), 64, 64 * sizeof(float4), from, between);
    launch(nullptr, kernel, dim3(4), 64, 64 * sizeof(float4), between, to);
    check(cudaDeviceSynchronize(), "synchronise");
  };
  CHECK_EQUAL(faultOf([&] { run(earlyCopy<false>); }), "");
  checkContains(faultOf([&] { run(earlyCopy<true>); }), "written while the copy was under way");
}

// ---- Refused --------------------------------------------------------------------------------------------------------------

TEST(emulationNamesThreadsThatDoNotMeet) {
  const std::string barriers = faultOf([] { launch(nullptr, divergentBarriers, dim3(2), 128, 0); });
  checkContains(barriers, "cudaErrorLaunchFailure");
  checkContains(barriers, "divergentBarriers");
  checkContains(barriers, "64 wait at syncBlock (emulation_kernels.cuh:");
  checkContains(faultOf([] { launch(nullptr, splitBarrier, dim3(2), 128, 0); }), "reaches a barrier while others wait at another");
  const std::string partial = faultOf([] {
    float* out = nullptr;
    cudaMalloc(&out, 128);
    launch(nullptr, partialWarp, dim3(1), 32, 0, out);
  });
  checkContains(partial, "31 wait at shuffleXor");
  checkContains(partial, "1 have ended");
  const std::string split = faultOf([] {
    float* out = nullptr;
    cudaMalloc(&out, 128);
    launch(nullptr, splitWarp, dim3(1), 32, 0, out);
  });
  checkContains(split, "block (0, 0, 0), thread ");
  checkContains(split, "while other lanes of its warp wait at shuffleXor");
}

TEST(emulationRefusesAddresses) {
  float* memory = nullptr;
  const auto allocated = [&] {
    cudaMalloc(&memory, 64);
    return memory;
  };
  checkContains(faultOf([&] { launch(nullptr, misalignedCopy, dim3(1), 1, 16, allocated()); }), "misaligned global address");
  checkContains(faultOf([&] { launch(nullptr, copyOutside, dim3(1), 1, 16, allocated(), 16); }), "outside device memory");
  checkContains(faultOf([&] { launch(nullptr, copyOutside, dim3(1), 1, 8, allocated(), 0); }), "outside the block's shared memory");
  checkContains(faultOf([&] { launch(nullptr, matricesOutside, dim3(1), 32, 496); }), "loadMatrices");
  CHECK_EQUAL(faultOf([&] { launch(nullptr, copyOutside, dim3(1), 1, 16, allocated(), 12); }), "");
}

TEST(emulationRefusesLaunchesThatNoDeviceTakes) {
  restart(1);
  const auto refuses = [](dim3 grid, int threads, size_t shared) {
    CHECK_THROWS("ERR_CUDA", "cudaErrorInvalidConfiguration", launch(nullptr, divergentBarriers, grid, threads, shared));
  };
  refuses(dim3(0), 32, 0);
  refuses(dim3(1, 65536), 32, 0);
  refuses(dim3(1), 1025, 0);
  refuses(dim3(1), 0, 0);
  refuses(dim3(1), 32, (99 << 10) + 1);
  // More than every kernel may have, without asking for it.
  cudaLaunchConfig_t configuration{dim3(1), dim3(32), (48 << 10) + 1, nullptr};
  CHECK_EQUAL(cudaLaunchKernelEx(&configuration, splitBarrier), cudaErrorInvalidValue);
  cudaGetLastError();
  CHECK_EQUAL(cudaDeviceSynchronize(), cudaSuccess);
}

// Whatever a launch needs: another session's thread may be about to launch the same kernel with more.
TEST(launchesAskForAllSharedMemory) {
  restart(1);
  const DeviceArray<float> values(std::vector<float>(32));
  for (const size_t kilobytes : {98, 49}) {
    launch(nullptr, addOne, dim3(1), 32, kilobytes << 10, values);
    CHECK_EQUAL(emulation::Runtime::get().sharedBytes.at(reinterpret_cast<const void*>(addOne)), emulation::kMaxSharedBytes);
  }
}

// ---- Blocks and collectives -----------------------------------------------------------------------------------------------

TEST(emulationRunsBlocksInAnOrderOfTheSeed) {
  constexpr unsigned kBlocks = 40;
  const auto order = [&](uint64_t seed) {
    restart(seed);
    const DeviceArray<unsigned> counter(std::vector<unsigned>(1));
    const DeviceArray<int> turns(kBlocks), total(std::vector<int>(1, 5));
    launch(nullptr, takeTurns, dim3(kBlocks / 4, 4), 1, 0, counter, turns, total);
    CHECK_EQUAL(counter.read()[0], kBlocks % (kBlocks / 4));
    CHECK_EQUAL(total.read()[0], 5 + 4 * 45);
    return turns.read();
  };
  CHECK(order(3) == order(3));
  CHECK(order(3) != order(4));
}

TEST(emulationShufflesByXor) {
  restart(1);
  std::vector<double> in(64);
  std::iota(in.begin(), in.end(), 0.5);
  const DeviceArray<double> from(in), to(64);
  for (const int lanes : {0, 1, 2, 5, 16, 31}) {
    launch(nullptr, exchange, dim3(1), 64, 0, from, to, lanes);
    const std::vector<double> out = to.read();
    for (size_t i = 0; i < out.size(); ++i) CHECK_EQUAL(out[i], in[i ^ static_cast<size_t>(lanes)]);
  }
}

// ---- Matrix instructions and rounding -------------------------------------------------------------------------------------

TEST(emulationMultipliesMatricesAsInTheManual) {
  restart(1);
  std::mt19937 random(1);
  const auto numbers = [&](size_t count) {
    std::vector<float> values(count);
    // Few enough bits for both formats: the products and their sums are exact.
    for (float& v : values) v = static_cast<float>(static_cast<int>(random() % 31) - 15);
    return values;
  };
  const auto multiplies = [&](auto kernel, int depth) {
    const std::vector<float> a = numbers(static_cast<size_t>(16 * depth)), b = numbers(static_cast<size_t>(depth * 8)),
                             before = numbers(16 * 8);
    const DeviceArray<float> da(a), db(b), dd(before);
    launch(nullptr, kernel, dim3(1), 32, 0, da, db, dd);
    const std::vector<float> d = dd.read();
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        float sum = before[static_cast<size_t>(row * 8 + column)];
        for (int k = 0; k < depth; ++k) sum += a[static_cast<size_t>(row * depth + k)] * b[static_cast<size_t>(k * 8 + column)];
        CHECK_EQUAL(d[static_cast<size_t>(row * 8 + column)], sum);
      }
    }
  };
  for (int i = 0; i < 5; ++i) {
    multiplies(multiplyByTableTf32, 8);
    multiplies(multiplyByTableBfloat16, 16);
  }
}

TEST(emulationLoadsMatricesAsInTheManual) {
  restart(1);
  std::vector<uint16_t> matrices(4 * 64);
  std::iota(matrices.begin(), matrices.end(), uint16_t{1000});
  const DeviceArray<uint16_t> from(matrices);
  const DeviceArray<uint32_t> to(32 * 4);
  const auto element = [&](int matrix, int row, int column) -> uint32_t {
    return matrices[static_cast<size_t>(matrix * 64 + row * 8 + column)];
  };
  for (const bool transposed : {false, true}) {
    launch(nullptr, transposed ? loadByTable<true> : loadByTable<false>, dim3(1), 32, 4 * 64 * sizeof(uint16_t), from, to);
    const std::vector<uint32_t> r = to.read();
    for (int lane = 0; lane < 32; ++lane) {
      for (int matrix = 0; matrix < 4; ++matrix) {
        const int row = lane / 4, column = lane % 4 * 2;
        const uint32_t low = transposed ? element(matrix, column, row) : element(matrix, row, column);
        const uint32_t high = transposed ? element(matrix, column + 1, row) : element(matrix, row, column + 1);
        CHECK_EQUAL(r[static_cast<size_t>(lane * 4 + matrix)], low | high << 16);
      }
    }
  }
}

TEST(emulationRoundsAsTheManualSays) {
  restart(1);
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  struct Rounded {
    float value;
    uint32_t tf32, bfloat16;
    int whole;
  };
  const std::vector<Rounded> cases = {
      {1.0f, 0x3F800000, 0x3F80, 1},
      {1.0f + 0x1p-11f, 0x3F802000, 0x3F80, 1},             // tf32: a tie, away from zero
      {-1.0f - 0x1p-11f, 0xBF802000, 0xBF80, -1},           //
      {1.0f + 0x1p-11f - 0x1p-23f, 0x3F800000, 0x3F80, 1},  // just below it
      {1.0f + 0x1p-8f, 0x3F808000, 0x3F80, 1},              // bfloat16: a tie, to even
      {1.0f + 0x3p-8f, 0x3F818000, 0x3F82, 1},              //
      {0.5f, 0x3F000000, 0x3F00, 0},                        // integers: ties to even
      {1.5f, 0x3FC00000, 0x3FC0, 2},
      {-2.5f, 0xC0200000, 0xC020, -2},
      {3e9f, 0x4F32E000, 0x4F33, std::numeric_limits<int>::max()},
      {-3e9f, 0xCF32E000, 0xCF33, std::numeric_limits<int>::min()},
      {infinity, 0x7F800000, 0x7F80, std::numeric_limits<int>::max()},
      {3.4028235e38f, 0x7F800000, 0x7F80, std::numeric_limits<int>::max()},
      {-0.0f, 0x80000000, 0x8000, 0},
  };
  std::vector<float> values;
  for (const Rounded& each : cases) values.push_back(each.value);
  values.push_back(nan);
  values.push_back(0);
  const size_t count = values.size() - 1;
  const DeviceArray<float> from(values);
  const DeviceArray<uint32_t> tf32(count), pairs(count);
  const DeviceArray<int> whole(count);
  launch(nullptr, roundByThread, dim3(1), static_cast<int>(count), 0, from, tf32, pairs, whole);
  const auto gotTf32 = tf32.read(), gotPairs = pairs.read();
  const auto gotWhole = whole.read();
  for (size_t i = 0; i < cases.size(); ++i) {
    CHECK_EQUAL(gotTf32[i], cases[i].tf32);
    CHECK_EQUAL(gotPairs[i] & 0xFFFFu, cases[i].bfloat16);
    if (i > 0) CHECK_EQUAL(gotPairs[i - 1] >> 16, cases[i].bfloat16);
    CHECK_EQUAL(gotWhole[i], cases[i].whole);
  }
  CHECK(std::isnan(std::bit_cast<float>(gotTf32.back())));
  CHECK(std::isnan(std::bit_cast<float>(gotPairs.back() << 16)));
  CHECK_EQUAL(gotWhole.back(), 0);
}

// ---- Streams, graphs, memory ----------------------------------------------------------------------------------------------

TEST(emulationRunsStreamsOnlyWhenTheHostWaits) {
  restart(1);
  const DeviceArray<float> values(std::vector<float>(32));
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  float *pinned = nullptr, pageable[32];
  check(cudaMallocHost(&pinned, sizeof(pageable)), "pinned");
  CHECK(std::isnan(pinned[0]));  // fresh memory is poisoned

  // Pinned memory is read when the copy runs, pageable memory at once.
  std::fill_n(pinned, 32, 1.0f);
  check(cudaMemcpyAsync(values, pinned, sizeof(pageable), cudaMemcpyHostToDevice, stream), "copy");
  std::fill_n(pinned, 32, 2.0f);
  launch(stream, addOne, dim3(1), 32, 0, values);
  check(cudaMemcpyAsync(pinned, values, sizeof(pageable), cudaMemcpyDeviceToHost, stream), "copy");
  CHECK_EQUAL(pinned[0], 2.0f);
  CHECK_EQUAL(cudaStreamSynchronize(stream), cudaSuccess);
  CHECK_EQUAL(pinned[0], 3.0f);
  std::fill_n(pageable, 32, 5.0f);
  check(cudaMemcpyAsync(values, pageable, sizeof(pageable), cudaMemcpyHostToDevice, stream), "copy");
  std::fill_n(pageable, 32, 6.0f);
  check(cudaMemcpyAsync(pinned, values, sizeof(pageable), cudaMemcpyDeviceToHost, stream), "copy");

  // An event stands for what was enqueued before it; another stream waits for it, and so does who asks.
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "event");
  check(cudaEventRecord(event, stream), "record");
  cudaStream_t other = nullptr;
  check(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "stream");
  check(cudaStreamWaitEvent(other, event), "wait");
  CHECK_EQUAL(pinned[0], 3.0f);
  check(cudaStreamSynchronize(other), "synchronise");
  CHECK_EQUAL(pinned[0], 5.0f);
  check(cudaEventRecord(event, stream), "record");
  while (cudaEventQuery(event) == cudaErrorNotReady) {
  }
  for (cudaStream_t each : {stream, other}) check(cudaStreamDestroy(each), "destroy");
  check(cudaEventDestroy(event), "destroy");
  check(cudaFreeHost(pinned), "free");
}

TEST(emulationCapturesAndReplays) {
  restart(1);
  const DeviceArray<float> values(std::vector<float>(64));
  cudaStream_t stream = nullptr, other = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  check(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "stream");
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "event");
  float* pinned = nullptr;
  check(cudaMallocHost(&pinned, 4), "pinned");

  const auto capture = [&](cudaStreamCaptureMode mode, const auto& body) {
    check(cudaStreamBeginCapture(stream, mode), "begin");
    body();
    cudaGraph_t graph = nullptr;
    const cudaError_t status = cudaStreamEndCapture(stream, &graph);
    cudaGetLastError();
    return std::pair(status, graph);
  };
  const auto [status, graph] = capture(cudaStreamCaptureModeGlobal, [&] {
    launch(stream, addOne, dim3(2), 32, 0, values);
    launch(stream, addOne, dim3(1), 32, 0, values);
    // A second stream takes part between two events.
    check(cudaEventRecord(event, stream), "record");
    check(cudaStreamWaitEvent(other, event), "wait");
    check(cudaMemcpyAsync(pinned, values, 4, cudaMemcpyDeviceToHost, other), "copy");
    check(cudaEventRecord(event, other), "record");
    check(cudaStreamWaitEvent(stream, event), "wait");
  });
  CHECK_EQUAL(status, cudaSuccess);
  cudaGraphExec_t executable = nullptr;
  check(cudaGraphInstantiate(&executable, graph), "instantiate");
  check(cudaGraphDestroy(graph), "destroy");
  CHECK_EQUAL(values.read()[0], 0.0f);  // nothing ran yet
  for (int i = 0; i < 3; ++i) check(cudaGraphLaunch(executable, stream), "launch");
  check(cudaGraphExecDestroy(executable), "destroy");  // what is under way goes on
  check(cudaStreamSynchronize(stream), "synchronise");
  CHECK_EQUAL(values.read()[0], 6.0f);
  CHECK_EQUAL(values.read()[63], 3.0f);
  CHECK_EQUAL(pinned[0], 6.0f);

  // What a capture does not allow spoils it.
  const auto spoils = [&](cudaStreamCaptureMode mode, cudaError_t expected, const auto& call) {
    const auto [spoilt, none] = capture(mode, [&] { CHECK_EQUAL(call(), expected); });
    CHECK_EQUAL(spoilt, expected == cudaSuccess ? cudaSuccess : cudaErrorStreamCaptureInvalidated);
    if (none) cudaGraphDestroy(none);
  };
  const auto synchronise = [&] { return cudaStreamSynchronize(stream); };
  const auto allocate = [&] {
    void* memory = nullptr;
    return cudaMalloc(&memory, 4);
  };
  spoils(cudaStreamCaptureModeRelaxed, cudaErrorStreamCaptureUnsupported, synchronise);
  spoils(cudaStreamCaptureModeGlobal, cudaErrorStreamCaptureUnsupported, allocate);
  spoils(cudaStreamCaptureModeThreadLocal, cudaErrorStreamCaptureUnsupported, allocate);
  spoils(cudaStreamCaptureModeRelaxed, cudaSuccess, allocate);
  const auto [unjoined, none] = capture(cudaStreamCaptureModeGlobal, [&] {
    check(cudaEventRecord(event, stream), "record");
    check(cudaStreamWaitEvent(other, event), "wait");
    launch(other, addOne, dim3(1), 32, 0, values);
  });
  CHECK_EQUAL(unjoined, cudaErrorStreamCaptureUnjoined);
  for (cudaStream_t each : {stream, other}) check(cudaStreamDestroy(each), "destroy");
  check(cudaEventDestroy(event), "destroy");
  check(cudaFreeHost(pinned), "free");
}

TEST(emulationHasAsMuchMemoryAsItIsGiven) {
  emulation::restartWith(2, 1000);
  int count = 0;
  CHECK_EQUAL(cudaGetDeviceCount(&count), cudaSuccess);
  CHECK_EQUAL(count, 2);
  void *first = nullptr, *second = nullptr;
  size_t free = 0, total = 0;
  CHECK_EQUAL(cudaMalloc(&first, 600), cudaSuccess);
  CHECK_EQUAL(cudaMemGetInfo(&free, &total), cudaSuccess);
  CHECK_EQUAL(free, 400u);
  CHECK_EQUAL(total, 1000u);
  CHECK_EQUAL(cudaMalloc(&second, 401), cudaErrorMemoryAllocation);
  CHECK_EQUAL(cudaGetLastError(), cudaErrorMemoryAllocation);
  CHECK_EQUAL(cudaGetLastError(), cudaSuccess);  // reported once
  CHECK_EQUAL(cudaSetDevice(1), cudaSuccess);
  CHECK_EQUAL(cudaMalloc(&second, 401), cudaSuccess);
  CHECK_EQUAL(cudaSetDevice(2), cudaErrorInvalidDevice);
  CHECK_EQUAL(cudaFree(first), cudaSuccess);
  CHECK_EQUAL(cudaFree(first), cudaErrorInvalidValue);
  CHECK_EQUAL(cudaFree(second), cudaSuccess);
  emulation::restartWith(0, 0);
  CHECK_EQUAL(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  CHECK_EQUAL(count, 0);
  restart(1);
}

// The CUDA backend itself, on emulated devices: memory that runs out, captures and devices that fail, sessions side by side, and
// nothing left behind.
#include <cmath>
#include <cstdlib>
#include <limits>

#include "check.h"
#include "core/session.h"
#include "cuda/devices.h"
#include "emulation/runtime.h"

using namespace revnet;

namespace {

using Floats = std::vector<float>;

const std::atomic<bool> kGoOn{false};

// The emulation as these variables say, for as long as this lives.
class Devices {
 public:
  explicit Devices(const char* count = "1") {
    setenv("REVNET_EMULATION_DEVICES", count, 1);
    emulation::Runtime::get().configure();
  }
  ~Devices() {
    unsetenv("REVNET_EMULATION_DEVICES");
    emulation::Runtime::get().configure();
  }
  emulation::Device& operator[](size_t number) { return *emulation::Runtime::get().devices[number]; }
};

std::unique_ptr<Session> cudaSession(int device = 0) {
  return std::make_unique<Session>(makeCudaBackend(device, Precision::Float32, Precision::Float32));
}

BufferSpec real(const std::string& name, int64_t elements) { return {name, ElementType::Real, elements, Category::Data}; }

// y = x
struct CopySession {
  std::unique_ptr<Session> session;
  size_t x, y, program;

  explicit CopySession(int64_t elements = 16, int device = 0)
      : session(cudaSession(device)), x(session->addBuffer(real("x", elements))), y(session->addBuffer(real("y", elements))) {
    Copy op;
    op.elements = elements;
    op.x = {static_cast<int>(x)};
    op.y = {static_cast<int>(y)};
    program = session->addProgram({}, {op});
  }
  HostArray run(const Floats& values) { return session->run(program, {{x, values}}, {y}, kGoOn).front(); }
};

// Repeats after a prime number of values, so that no two parts of a copy look alike.
Floats counting(size_t count, float step) {
  Floats values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 65521) * step;
  return values;
}

// Operands are nowhere: it is captured, not run.
std::vector<Op> linear(int n) {
  LinearForward op;
  op.n = n;
  op.in = op.out = 1;
  return {op};
}

}  // namespace

TEST(cudaCopiesMoreThanItsStagingHolds) {
  Devices devices;
  const size_t elements = (5 << 20) / sizeof(float) + 3;
  CopySession copy(static_cast<int64_t>(elements));
  for (const float step : {1.0f, -0.5f}) CHECK(copy.run(counting(elements, step)) == HostArray(counting(elements, step)));
}

TEST(cudaRoundsWhatIsStoredInTwoBytes) {
  Devices devices;
  const auto bytesOf = [](Precision precision, Precision gradients) {
    const auto backend = makeCudaBackend(0, precision, gradients);
    return std::vector<size_t>{backend->elementBytes(ElementType::Hidden), backend->elementBytes(ElementType::Gradient)};
  };
  CHECK(bytesOf(Precision::Float32, Precision::Float32) == std::vector<size_t>({4, 4}));
  CHECK(bytesOf(Precision::Tf32, Precision::Float32) == std::vector<size_t>({4, 4}));
  CHECK(bytesOf(Precision::Bfloat16, Precision::Float32) == std::vector<size_t>({2, 4}));
  CHECK(bytesOf(Precision::Bfloat16, Precision::Bfloat16) == std::vector<size_t>({2, 2}));

  Session session(makeCudaBackend(0, Precision::Bfloat16, Precision::Bfloat16), false);
  // 7 fraction bits are stored: to the nearest, ties to even.
  const float infinity = std::numeric_limits<float>::infinity();
  const Floats values{1, -3.5f, 1 + 0x1p-8f, 1 + 3 * 0x1p-8f, -1 - 0x1.01p-8f, 0x1.FFp127f, infinity, -0.0f, 0x1p-133f};
  const Floats stored{1, -3.5f, 1, 1 + 0x1p-6f, -1 - 0x1p-7f, infinity, infinity, -0.0f, 0x1p-133f};
  for (const ElementType type : {ElementType::Hidden, ElementType::Gradient}) {
    const size_t id = session.addBuffer({"b", type, static_cast<int64_t>(values.size()), Category::Data});
    session.write(id, values);
    CHECK(session.read(id) == HostArray(stored));
    session.write(id, std::vector<double>(values.begin(), values.end()));
    CHECK(session.read(id) == HostArray(stored));
    session.write(id, Floats(values.size(), std::numeric_limits<float>::quiet_NaN()));
    CHECK(std::isnan(std::get<Floats>(session.read(id)).front()));
  }
}

TEST(cudaSessionsRunSideBySide) {
  Devices devices("2");
  auto a = std::make_unique<CopySession>(16, 0);
  CopySession b(16, 0), other(16, 1);
  for (const float step : {1.0f, 2.0f, 3.0f}) {
    CHECK(a->run(counting(16, step)) == HostArray(counting(16, step)));
    CHECK(b.run(counting(16, -step)) == HostArray(counting(16, -step)));
    CHECK(other.run(counting(16, 9 * step)) == HostArray(counting(16, 9 * step)));
  }
  CHECK(devices[1].used > 0);
  a.reset();
  CHECK(b.run(counting(16, 7)) == HostArray(counting(16, 7)));
}

TEST(cudaLeavesNothingBehind) {
  Devices devices;
  auto& runtime = emulation::Runtime::get();
  {
    CopySession copy;
    copy.run(counting(16, 1));
    // Ends while its last run is still to come.
    copy.session->write(copy.x, counting(16, 2));
    CHECK(devices[0].used > 0);
  }
  CHECK_EQUAL(devices[0].used, size_t{0});
  CHECK(runtime.pinned.empty());
  CHECK(runtime.streams.empty());
  CHECK(runtime.events.empty());
  CHECK(runtime.graphs.empty());
  CHECK(runtime.executables.empty());
}

TEST(cudaSaysWhatMemoryIsThere) {
  Devices devices;
  CopySession copy;
  copy.run(counting(16, 1));
  devices[0].limit = devices[0].used + (size_t{3} << 30) / 2;
  CHECK_THROWS("ERR_OUT_OF_MEMORY", "2.00 GiB were asked for, and 1.50 GiB of ",
               copy.session->addBuffer(real("large", int64_t{1} << 29)));
  // The session goes on, also with memory that does fit.
  const size_t small = copy.session->addBuffer(real("small", 4));
  CHECK(copy.session->read(small) == HostArray(Floats(4)));
  CHECK(copy.run(counting(16, 3)) == HostArray(counting(16, 3)));
}

TEST(cudaNamesWhatFailsInACapture) {
  Devices devices;
  const auto backend = makeCudaBackend(0, Precision::Float32, Precision::Float32);
  Memory memory;
  memory.addresses.assign(1, nullptr);
  memory.types.assign(1, ElementType::Real);
  memory.elementBytes.fill(sizeof(float));
  const std::vector<Op> possible = linear(8), impossible = linear(1 << 30);
  // More blocks than a grid may have.
  CHECK_THROWS("ERR_CUDA", "launch: cudaErrorInvalidConfiguration: ", backend->record(impossible, memory));
  // The stream is as it was.
  backend->finish();
  CHECK(backend->record(possible, memory) != nullptr);
}

// A program whose pinned buffers lie side by side: y = x of two buffers.
struct PairSession {
  std::unique_ptr<Session> session = cudaSession();
  size_t program, first;

  PairSession() {
    std::vector<BufferSpec> locals(4, real("pinned", 3));
    for (BufferSpec& local : locals) local.pinned = true;
    first = session->addBuffer(real("other", 1)) + 1;
    const auto id = [&](size_t i) { return Operand{static_cast<int32_t>(first + i)}; };
    program = session->addProgram(locals, {Copy{3, id(0), id(2)}, Copy{3, id(1), id(3)}});
  }
  std::unique_ptr<PendingResults> start(float a, float b) {
    return session->start(program, {{first + 1, Floats(3, b)}, {first, Floats(3, a)}}, {first + 3, first + 2}, kGoOn);
  }
};

TEST(cudaCopiesOnceInAndOnceOut) {
  Devices devices;
  PairSession pair;
  auto& runtime = emulation::Runtime::get();
  pair.start(1, 2)->take();
  const uint64_t before = runtime.copies;
  CHECK(pair.start(3, 4)->take() == std::vector<HostArray>({Floats(3, 4), Floats(3, 3)}));
  CHECK_EQUAL(runtime.copies, before + 2);
}

TEST(cudaStartsARunWhileAnotherIsUnderWay) {
  Devices devices;
  PairSession pair;
  // More than there is room for at once: those that are too many wait.
  std::vector<std::unique_ptr<PendingResults>> runs;
  for (int i = 0; i < 12; ++i) runs.push_back(pair.start(static_cast<float>(i), static_cast<float>(-i)));
  CHECK(!runs.back()->ready() || runs.front()->ready());
  for (int i = 11; i >= 0; --i)
    CHECK(runs[static_cast<size_t>(i)]->take() ==
          std::vector<HostArray>({Floats(3, static_cast<float>(-i)), Floats(3, static_cast<float>(i))}));
  runs.clear();
  // Nothing has run when start returns.
  const auto ahead = pair.start(5, 6);
  CHECK(!emulation::Runtime::get().streams.empty() && !(*emulation::Runtime::get().streams.begin())->pending.empty());
}

TEST(cudaWaitsAsleep) {
  Devices devices;
  {
    CopySession copy;
    copy.run(counting(16, 1));
    copy.session->run(copy.program, {{copy.x, counting(16, 2)}}, {}, kGoOn);
  }
  CHECK_EQUAL(emulation::Runtime::get().spins, uint64_t{0});
}

TEST(cudaSaysThatADeviceIsLost) {
  Devices devices;
  CopySession copy;
  copy.run(counting(16, 1));
  emulation::Runtime::get().setFault("planted");
  CHECK_THROWS("ERR_CUDA", "cudaErrorLaunchFailure", copy.run(counting(16, 2)));
  CHECK_THROWS("ERR_CUDA", "has to be started again", copy.session->read(copy.y));
}

TEST(cudaSaysWhyThereIsNoDevice) {
  {
    Devices devices("none");
    CHECK(cudaDevices().devices.empty());
    CHECK_EQUAL(cudaDevices().absence, "there is no NVIDIA driver on this machine");
    CHECK_EQUAL(cudaBuild().driver, "");
    CHECK_THROWS("ERR_DEVICE_UNAVAILABLE", "no NVIDIA driver", makeCudaBackend(0, Precision::Float32, Precision::Float32));
  }
  {
    Devices devices("0");
    CHECK_THROWS("ERR_DEVICE_UNAVAILABLE", "finds no GPU", makeCudaBackend(0, Precision::Float32, Precision::Float32));
  }
  {
    setenv("REVNET_EMULATION_DRIVER", "12040", 1);
    Devices devices;
    unsetenv("REVNET_EMULATION_DRIVER");
    CHECK_EQUAL(cudaBuild().driver, "12.4");
    CHECK_THROWS("ERR_DEVICE_UNAVAILABLE",
                 "this build uses CUDA 13.0, which needs an NVIDIA driver of release 580 or later; the driver here",
                 makeCudaBackend(0, Precision::Float32, Precision::Float32));
    CHECK_THROWS("ERR_DEVICE_UNAVAILABLE", " knows CUDA up to 12.4: update the driver",
                 makeCudaBackend(0, Precision::Float32, Precision::Float32));
  }
  Devices devices("2");
  CHECK_EQUAL(cudaDevices().devices.size(), size_t{2});
  CHECK_THROWS("ERR_DEVICE_UNAVAILABLE", "the last one is cuda:1", makeCudaBackend(2, Precision::Float32, Precision::Float32));
}

TEST(cudaKnowsWhichCodeRunsWhere) {
  const auto runsOn = [](const std::string& architecture) {
    std::vector<int> all;
    for (const int capability : {75, 80, 86, 89, 90, 100, 103, 120})
      if (codeRunsOn(architecture, capability)) all.push_back(capability);
    return all;
  };
  using Capabilities = std::vector<int>;
  CHECK(runsOn("80-real") == Capabilities({80, 86, 89}));
  CHECK(runsOn("86") == Capabilities({86, 89, 90, 100, 103, 120}));
  CHECK(runsOn("90-virtual") == Capabilities({90, 100, 103, 120}));
  for (const char* own : {"90a", "90a-real", "90a-virtual"}) CHECK(runsOn(own) == Capabilities({90}));
  for (const char* family : {"100f", "100f-real", "100f-virtual"}) CHECK(runsOn(family) == Capabilities({100, 103}));
  for (const char* unknown : {"native", "all", "all-major"}) CHECK_EQUAL(runsOn(unknown).size(), size_t{8});
}

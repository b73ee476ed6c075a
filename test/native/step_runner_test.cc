// The step thread: order, errors, and being stopped at any time.
#include "binding/step_runner.h"

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "check.h"

using namespace revnet;
using namespace std::chrono_literals;

namespace {

std::unique_ptr<StepRunner> makeRunner() { return std::make_unique<StepRunner>(std::make_unique<Session>(makeReferenceBackend())); }

std::string codeOf(const std::exception_ptr& failure) {
  if (!failure) return "";
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return error.code();
  } catch (...) {
    return "other";
  }
}

// Works until cancelled.
std::unique_ptr<PendingResults> endless(Session&, const std::atomic<bool>& cancelled) {
  while (!cancelled) std::this_thread::sleep_for(100us);
  return readyResults({});
}

// A device that runs ahead, and has nothing to run.
class AheadBackend final : public Backend {
 public:
  std::string description() const override { return ""; }
  size_t elementBytes(ElementType) const override { return 4; }
  int fractionBits() const override { return 22; }
  void* allocate(size_t bytes) override { return std::malloc(bytes); }
  void release(void* memory) noexcept override { std::free(memory); }
  void upload(void*, const void*, size_t) override {}
  void download(void*, const void*, size_t) override {}
  bool runsAhead() const override { return true; }
  void fill(void*, std::byte, size_t) override {}
  size_t workspaceBytes(const Op&) const override { return 0; }
  std::unique_ptr<Replay> record(const std::vector<Op>&, const Memory&) override { return nullptr; }
};

// Waits for what another thread is about to do; false where it does not.
template <class Condition>
bool comesTrue(const Condition& condition) {
  for (int i = 0; i < 100'000 && !condition(); ++i) std::this_thread::sleep_for(100us);
  return condition();
}

// There once `released` is true.
class LateResults final : public PendingResults {
 public:
  explicit LateResults(const std::atomic<bool>& released) : released_(released) {}
  bool ready() override { return released_; }
  std::vector<HostArray> take() override {
    while (!released_) std::this_thread::sleep_for(100us);
    return {};
  }

 private:
  const std::atomic<bool>& released_;
};

}  // namespace

TEST(runnerStartsAJobWhileAnotherIsUnderWay) {
  std::atomic<bool> released{false};
  std::atomic<int> started{0};
  std::vector<int> done;
  StepRunner runner(std::make_unique<Session>(std::make_unique<AheadBackend>()));
  const auto post = [&](int i) {
    runner.post(
        [&](Session&, const std::atomic<bool>&) {
          ++started;
          return std::make_unique<LateResults>(released);
        },
        [&done, i](std::vector<HostArray>, const std::exception_ptr&) { done.push_back(i); });
  };
  post(0);
  // The second one comes while the thread waits for the first one's results.
  CHECK(comesTrue([&] { return started == 1; }));
  post(1);
  CHECK(comesTrue([&] { return started == 2; }));
  // There is no room for a third one before the first has ended.
  post(2);
  std::this_thread::sleep_for(2ms);
  CHECK_EQUAL(started.load(), 2);
  CHECK(done.empty());
  released = true;
  CHECK(comesTrue([&] { return started == 3; }));
  runner.withSession([&](Session&) { CHECK(done.size() >= 1 && done[0] == 0); });
  runner.stop();
  runner.join();
  CHECK_EQUAL(done.size(), size_t{3});
  for (int i = 0; i < 3; ++i) CHECK_EQUAL(done[static_cast<size_t>(i)], i);
}

TEST(runnerKeepsTheOrder) {
  std::vector<int> order;
  std::vector<std::string> failures;
  {
    const auto runner = makeRunner();
    for (int i = 0; i < 100; ++i)
      runner->post(
          [&order, i](Session&, const std::atomic<bool>&) {
            order.push_back(i);
            if (i % 10 == 3) throw invalid("three");
            return readyResults({});
          },
          [&](std::vector<HostArray>, const std::exception_ptr& failure) { failures.push_back(codeOf(failure)); });
    while (runner->withSession([&](Session&) { return failures.size(); }) < 100) std::this_thread::sleep_for(1ms);
  }
  for (int i = 0; i < 100; ++i) {
    CHECK_EQUAL(order[static_cast<size_t>(i)], i);
    CHECK_EQUAL(failures[static_cast<size_t>(i)], i % 10 == 3 ? "ERR_INVALID_ARGUMENT" : "");
  }
}

TEST(runnerStopsAtAnyTime) {
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> failures;
    bool exited = false;
    const auto runner = makeRunner();
    runner->onExit([&] { exited = true; });
    for (int i = 0; i < 5; ++i)
      runner->post(endless,
                   [&](std::vector<HostArray>, const std::exception_ptr& failure) { failures.push_back(codeOf(failure)); });
    if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(round));
    runner->stop();
    CHECK_THROWS("ERR_DISPOSED", "", runner->post(endless, {}));
    CHECK_THROWS("ERR_DISPOSED", "", runner->withSession([](Session&) {}));
    CHECK_THROWS("ERR_DISPOSED", "", runner->allocated());
    runner->join();
    CHECK(exited);
    CHECK_EQUAL(failures.size(), size_t{5});
    for (const std::string& code : failures) CHECK_EQUAL(code, "ERR_DISPOSED");
  }
}

// A call waits for the running job only, however many are queued.
TEST(runnerLetsCallsInBetweenJobs) {
  const auto runner = makeRunner();
  std::atomic<int> done{0};
  for (int i = 0; i < 200; ++i)
    runner->post(
        [](Session&, const std::atomic<bool>&) {
          std::this_thread::sleep_for(2ms);
          return readyResults({});
        },
        [&](std::vector<HostArray>, const std::exception_ptr&) { ++done; });
  for (int i = 0; i < 10; ++i) runner->withSession([](Session& session) { session.addBuffer({"b", ElementType::Real, 1}); });
  CHECK(done < 100);
  CHECK_EQUAL(runner->allocated().total(), 10 * kAlignment);
}

// A device's driver comes into the process after this library, and goes at exit() before it.
TEST(runnerEndsBeforeWhatWasThereWhenItStarted) {
  static std::atomic<bool> started{false}, gone{false};
  const pid_t child = fork();
  if (child == 0) {
    static StepRunner runner(std::make_unique<Session>(makeReferenceBackend()));
    std::atexit([] { gone = true; });
    runner.post(
        [](Session& session, const std::atomic<bool>& cancelled) {
          started = true;
          endless(session, cancelled);
          if (gone) _exit(3);
          return readyResults({});
        },
        [](const std::vector<HostArray>&, const std::exception_ptr&) {});
    while (!started) std::this_thread::sleep_for(100us);
    std::exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK_EQUAL(WEXITSTATUS(status), 0);
}

#include "step_runner.h"

#include <chrono>
#include <cstdlib>
#include <set>
#include <string>
#include <utility>

#include "core/error.h"

namespace revnet {

// The step threads of this process. exit() undoes what was made last first, and a thread must not outlive what its session needs:
// the library's other globals, and those of a device's driver, which may be loaded long after this library. So exit() stops them
// (after the running op) and joins them before all that was there when the latest of them started. Sessions whose environment is
// torn down in order are gone by then.
class RunningSteps {
 public:
  void stop() {
    std::set<StepRunner*> runners;
    {
      const std::lock_guard lock(mutex_);
      runners.swap(runners_);
    }
    for (StepRunner* runner : runners) {
      runner->silent_ = true;
      runner->stop();
    }
    for (StepRunner* runner : runners) runner->thread_.join();
  }
  void add(StepRunner* runner) {
    const std::lock_guard lock(mutex_);
    runners_.insert(runner);
  }
  void remove(StepRunner* runner) {
    const std::lock_guard lock(mutex_);
    runners_.erase(runner);
  }

 private:
  std::mutex mutex_;
  std::set<StepRunner*> runners_;
};

namespace {

RunningSteps runningSteps;
void stopRunningSteps() { runningSteps.stop(); }

Error disposed() { return Error("ERR_DISPOSED", "the session is disposed"); }

}  // namespace

StepRunner::StepRunner(std::unique_ptr<Session> session) : session_(std::move(session)) { takeReports(); }

StepRunner::~StepRunner() {
  stop();
  join();
}

void StepRunner::requireActive() const {
  if (cancelled_) throw disposed();
}

void StepRunner::post(Work work, Done done) {
  const std::lock_guard lock(mutex_);
  requireActive();
  queue_.push_back({std::move(work), std::move(done)});
  if (!thread_.joinable()) {
    try {
      thread_ = std::thread([this] { loop(); });
      runningSteps.add(this);
      std::atexit(stopRunningSteps);
    } catch (...) {
      queue_.pop_back();
      throw;
    }
  }
  wake_.notify_all();
}

MemoryReport StepRunner::allocated() {
  const std::lock_guard lock(mutex_);
  requireActive();
  return allocated_;
}

MemoryReport StepRunner::planned(size_t program) {
  const std::lock_guard lock(mutex_);
  requireActive();
  if (program >= planned_.size()) throw invalid("there is no program " + std::to_string(program));
  return planned_[program];
}

// With mutex_ held, and the session at rest.
void StepRunner::takeReports() noexcept {
  allocated_ = session_->allocated();
  planned_.resize(session_->programs());
  for (size_t program = 0; program < planned_.size(); ++program) planned_[program] = session_->planned(program);
}

void StepRunner::stop() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (!thread_.joinable()) session_.reset();
  wake_.notify_all();
}

void StepRunner::join() {
  if (!thread_.joinable()) return;
  runningSteps.remove(this);
  thread_.join();
}

void StepRunner::loop() {
  // Until another job comes or results are there. Short beside any step; in training both jobs are under way nearly all the time,
  // and then the thread sleeps until the first has ended.
  constexpr auto kLook = std::chrono::microseconds(100);
  std::unique_lock lock(mutex_);
  const size_t most = session_ && session_->backend().runsAhead() ? kUnderWay : 1;
  const auto canStart = [&] { return !queue_.empty() && visitors_ == 0 && started_.size() < most; };
  const auto wakes = [&] { return cancelled_ || canStart(); };
  for (;;) {
    if (started_.empty())
      wake_.wait(lock, wakes);
    else
      while (!wakes() && started_.size() < most && !started_.front().results->ready()) wake_.wait_for(lock, kLook);
    if (cancelled_) break;
    running_ = true;
    if (canStart()) {
      Job job = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      start(std::move(job));
    } else {
      lock.unlock();
      finish();
    }
    lock.lock();
    running_ = false;
    wake_.notify_all();
  }
  std::deque<Job> overtaken = std::exchange(queue_, {});
  std::unique_ptr<Session> session = std::exchange(session_, nullptr);
  lock.unlock();
  for (Started& each : started_) each.results.reset();  // they need the session
  session.reset();                                      // first, so that whoever is told finds the memory freed
  if (silent_) return;
  for (const Started& each : started_) each.done({}, std::make_exception_ptr(disposed()));
  for (const Job& job : overtaken) job.done({}, std::make_exception_ptr(disposed()));
  if (onExit_) onExit_();
}

namespace {

// The failure of a job that did not even start.
class Failed final : public PendingResults {
 public:
  explicit Failed(std::exception_ptr failure) : failure_(std::move(failure)) {}
  bool ready() override { return true; }
  std::vector<HostArray> take() override { std::rethrow_exception(failure_); }

 private:
  std::exception_ptr failure_;
};

}  // namespace

// `job` and what it holds end here.
void StepRunner::start(Job job) {
  std::unique_ptr<PendingResults> results;
  try {
    session_->settle();
    results = job.work(*session_, cancelled_);
  } catch (...) {
    results = std::make_unique<Failed>(std::current_exception());
  }
  started_.push_back({std::move(results), std::move(job.done)});
  const std::lock_guard lock(mutex_);
  takeReports();
}

// Waits for the results of the job that was started first, and hands them over.
void StepRunner::finish() {
  Started first = std::move(started_.front());
  started_.pop_front();
  std::vector<HostArray> results;
  std::exception_ptr failure;
  try {
    results = first.results->take();
    // A cancelled replay leaves its buffers undefined: there is no result.
    requireActive();
  } catch (...) {
    failure = std::current_exception();
    results.clear();
  }
  first.results.reset();
  if (!silent_) first.done(std::move(results), failure);
}

}  // namespace revnet

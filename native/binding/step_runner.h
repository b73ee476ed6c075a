// One thread that works on one session, in the order of the calls. Knows nothing of Node-API, so that it can be tested alone.
//
// Where the session's device runs ahead, up to kUnderWay jobs are: one is started while the results of the one before it are on
// their way, so that the device goes from one to the next without waiting for the host.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/session.h"

namespace revnet {

class StepRunner {
 public:
  // Runs on the step thread, and returns what its results will be. Long work returns early, with any result, once `cancelled` is
  // true.
  using Work = std::function<std::unique_ptr<PendingResults>(Session& session, const std::atomic<bool>& cancelled)>;
  // Called once for each posted job, on the step thread, with its results or with what was thrown (Error ERR_DISPOSED for
  // jobs that stop() overtook). Must not throw.
  using Done = std::function<void(std::vector<HostArray> results, std::exception_ptr failure)>;

  explicit StepRunner(std::unique_ptr<Session> session);
  ~StepRunner();  // stops and joins
  StepRunner(const StepRunner&) = delete;
  StepRunner& operator=(const StepRunner&) = delete;

  // `onExit` is the step thread's last call. The thread starts with the first job: a session that only plans has none.
  void onExit(std::function<void()> callback) { onExit_ = std::move(callback); }
  void post(Work work, Done done);

  // Calls `function(session)` on the calling thread, after what the step thread is at and before the queued jobs.
  template <class Function>
  auto withSession(Function function) {
    std::unique_lock lock(mutex_);
    ++visitors_;
    wake_.wait(lock, [&] { return !running_; });
    --visitors_;
    wake_.notify_all();
    requireActive();
    struct Refresh {
      StepRunner& runner;
      ~Refresh() { runner.takeReports(); }
    } refresh{*this};
    return function(*session_);
  }

  // As of the last finished call; never wait for a running job.
  MemoryReport allocated();
  MemoryReport planned(size_t program);

  // Cancels the running job, fails the queued ones, then frees the session: on the step thread, or here if there is none.
  // Returns at once. Idempotent.
  void stop();
  // Throws Error ERR_DISPOSED once stopped.
  void requireActive() const;
  // Waits for the thread to end; stop() first. Never on the step thread.
  void join();

 private:
  struct Job {
    Work work;
    Done done;
  };
  // A job whose results are on their way.
  struct Started {
    std::unique_ptr<PendingResults> results;
    Done done;
  };
  static constexpr size_t kUnderWay = 2;
  friend class RunningSteps;

  void takeReports() noexcept;
  void loop();
  void start(Job job);
  void finish();

  std::mutex mutex_;  // guards everything below but the session while running_
  std::condition_variable wake_;
  std::deque<Job> queue_;
  std::deque<Started> started_;       // the step thread's alone
  std::unique_ptr<Session> session_;  // the step thread's while running_, else whoever holds mutex_
  bool running_ = false;
  int visitors_ = 0;  // threads in withSession that wait for the running job
  MemoryReport allocated_;
  std::vector<MemoryReport> planned_;  // by program
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> silent_{false};  // the process is ending: nobody is left to be told
  std::function<void()> onExit_;
  std::thread thread_;
};

}  // namespace revnet

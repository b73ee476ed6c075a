// The threads of one network: parallelFor hands out indices to the caller and its helpers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace revnet {

class ThreadPool {
 public:
  // `threads` >= 1 counts the caller of parallelFor. Throws Error ERR_DEVICE_UNAVAILABLE where the system starts no more threads.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  // Calls body(index, thread) once for each index in [0, count), thread in [0, threads()); returns when all are done. Which
  // thread takes which index varies from run to run, so results must not depend on it.
  template <class Body>
  void parallelFor(int count, const Body& body) {
    run(
        count, [](const void* context, int index, int thread) { (*static_cast<const Body*>(context))(index, thread); }, &body);
  }

 private:
  using Function = void (*)(const void* context, int index, int thread);
  void stop();
  void run(int count, Function function, const void* context);
  void help(int thread);
  void take(int thread);

  std::vector<std::thread> helpers_;
  // The current job. Written before `generation_` is raised, read after.
  Function function_ = nullptr;
  const void* context_ = nullptr;
  int count_ = 0;
  std::atomic<int> next_{0};
  std::atomic<int> busy_{0};  // helpers that have not finished the current job
  std::atomic<unsigned> generation_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace revnet

#include "thread_pool.h"

#include <string>
#include <system_error>

#include "core/error.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace revnet {
namespace {

// A step is a chain of a few hundred jobs with microseconds between them: waking a sleeping thread each time would cost more
// than the wait, so helpers poll for about 50 microseconds before they sleep.
constexpr int kPolls = 2000;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // some tens of cycles, as x86's; "yield" is over at once on most processors
#else
  std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    for (int thread = 1; thread < threads; ++thread) helpers_.emplace_back([this, thread] { help(thread); });
  } catch (const std::system_error& error) {
    const size_t started = helpers_.size();
    stop();
    throw Error("ERR_DEVICE_UNAVAILABLE", "threads: the system started " + std::to_string(started + 1) + " of " +
                                              std::to_string(threads) + " (" + error.what() + "); use fewer");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
  helpers_.clear();
}

void ThreadPool::run(int count, Function function, const void* context) {
  if (helpers_.empty() || count <= 1) {
    for (int index = 0; index < count; ++index) function(context, index, 0);
    return;
  }
  function_ = function;
  context_ = context;
  count_ = count;
  next_.store(0);
  busy_.store(static_cast<int>(helpers_.size()));
  generation_.fetch_add(1);
  if (sleeping_.load() > 0) {
    { const std::lock_guard lock(mutex_); }  // a helper between its last look and its sleep is waited for
    wake_.notify_all();
  }
  take(0);
  for (int polls = 0; busy_.load() > 0; ++polls) {
    if (polls < kPolls) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::take(int thread) {
  for (int index = next_.fetch_add(1); index < count_; index = next_.fetch_add(1)) function_(context_, index, thread);
}

void ThreadPool::help(int thread) {
  unsigned seen = 0;
  for (;;) {
    for (int polls = 0; polls < kPolls && generation_.load() == seen; ++polls) pause();
    if (generation_.load() == seen) {
      std::unique_lock lock(mutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, [&] { return generation_.load() != seen; });
      sleeping_.fetch_sub(1);
    }
    if (stop_) return;
    ++seen;  // jobs do not overlap, so a helper never misses one
    take(thread);
    busy_.fetch_sub(1);
  }
}

}  // namespace revnet

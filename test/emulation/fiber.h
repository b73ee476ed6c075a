// Fibers on Boost.Context's assembly, with stacks that are kept and reused, and the annotations that AddressSanitizer needs.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <vector>

namespace revnet::emulation {

// Something to switch to: a fiber, or the ordinary stack that the first switch came from.
struct Fiber {
  boost::context::detail::fcontext_t context = nullptr;
  void* stack = nullptr;  // its lowest address
  size_t stackBytes = 0;
  void* fakeStack = nullptr;  // AddressSanitizer's

  // The next switch to it runs `entry`, which calls arrive() first and never returns. What it ran before is dropped as it is.
  void start(void (*entry)(boost::context::detail::transfer_t));
};

// Leaves `from` for `to`; returns when something switches back. `final`: nothing will.
void switchFibers(Fiber& from, Fiber& to, bool final = false);
// What the entry function of a fiber calls with its argument.
void arrive(boost::context::detail::transfer_t transfer);

// Gives each of the first `count` fibers a stack; below each is a page that must not be touched.
class FiberPool {
 public:
  explicit FiberPool(size_t stackBytes) : stackBytes_(stackBytes) {}
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  // The largest number of fibers that can be asked for.
  static constexpr size_t kFibers = 1024;
  Fiber& operator[](size_t index);

 private:
  size_t stackBytes_;
  char* stacks_ = nullptr;
  std::vector<Fiber> fibers_;
};

}  // namespace revnet::emulation

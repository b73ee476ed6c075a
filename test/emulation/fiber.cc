#include "emulation/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace revnet::emulation {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

void Fiber::start(void (*entry)(transfer_t)) {
#if defined(__SANITIZE_ADDRESS__)
  // Frames that were dropped left their red zones behind.
  ASAN_UNPOISON_MEMORY_REGION(stack, stackBytes);
  fakeStack = nullptr;
#endif
  context = make_fcontext(static_cast<char*>(stack) + stackBytes, stackBytes, entry);
}

namespace {

struct Switch {
  Fiber *from, *to;
};

void land(Switch& done, [[maybe_unused]] void* fakeStack, boost::context::detail::fcontext_t left) {
#if defined(__SANITIZE_ADDRESS__)
  const void* stack = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(fakeStack, &stack, &bytes);
  // The ordinary stack's bounds are known once it has been left.
  if (done.from->stack == nullptr || done.from->context == nullptr) {
    done.from->stack = const_cast<void*>(stack);
    done.from->stackBytes = bytes;
  }
#endif
  done.from->context = left;
}

}  // namespace

void switchFibers(Fiber& from, Fiber& to, [[maybe_unused]] bool final) {
  Switch leaving{&from, &to};
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(final ? nullptr : &from.fakeStack, to.stack, to.stackBytes);
#endif
  const transfer_t back = jump_fcontext(to.context, &leaving);
  land(*static_cast<Switch*>(back.data), from.fakeStack, back.fctx);
}

void arrive(transfer_t transfer) { land(*static_cast<Switch*>(transfer.data), nullptr, transfer.fctx); }

namespace {
size_t pageBytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
}  // namespace

FiberPool::~FiberPool() {
  if (stacks_) munmap(stacks_, kFibers * (stackBytes_ + pageBytes()));
}

Fiber& FiberPool::operator[](size_t index) {
  const size_t page = pageBytes(), stride = stackBytes_ + page;
  if (!stacks_) {
    // Reserved only: a page takes memory once it is touched.
    void* memory = mmap(nullptr, kFibers * stride, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    stacks_ = static_cast<char*>(memory);
    fibers_.reserve(kFibers);
  }
  while (fibers_.size() <= index) {
    char* stack = stacks_ + fibers_.size() * stride + page;
    if (mprotect(stack, stackBytes_, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    fibers_.push_back({nullptr, stack, stackBytes_, nullptr});
  }
  return fibers_[index];
}

}  // namespace revnet::emulation

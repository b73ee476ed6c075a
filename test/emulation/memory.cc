#include "emulation/memory.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "emulation/block.h"

namespace revnet::emulation {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kGuard = 0;
#else
constexpr size_t kGuard = 256;
#endif
constexpr unsigned char kGuardByte = 0xA5;

}  // namespace

GuardedMemory::GuardedMemory(size_t bytes, size_t alignment) : bytes_(bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes + kGuard) != 0) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(memory);
  std::memset(data_ + bytes_, kGuardByte, kGuard);
  poison();
}

GuardedMemory::~GuardedMemory() { std::free(data_); }

void GuardedMemory::poison() { std::memset(data_, kPoison, bytes_); }

bool GuardedMemory::intact() const {
  for (size_t i = 0; i < kGuard; ++i)
    if (data_[bytes_ + i] != std::byte{kGuardByte}) return false;
  return true;
}

}  // namespace revnet::emulation

// Memory that the emulation hands out: exactly as large as asked for, poisoned, and guarded at its end.
#pragma once

#include <cstddef>

namespace revnet::emulation {

// Under AddressSanitizer an access outside is reported at once; without it, a write past the end shows in intact().
class GuardedMemory {
 public:
  GuardedMemory(size_t bytes, size_t alignment);
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void poison();
  bool intact() const;

 private:
  std::byte* data_ = nullptr;
  size_t bytes_;
};

// Whether [address, address + bytes) lies in one allocation of a device.
bool isDeviceMemory(const void* address, size_t bytes);

}  // namespace revnet::emulation

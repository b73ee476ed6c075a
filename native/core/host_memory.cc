#include "host_memory.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "backend.h"
#include "error.h"
#include "host_limits.h"

namespace revnet {
namespace {

// Smaller requests are not worth the look: they come and go with every call.
constexpr size_t kLargeBytes = size_t{64} << 20;
constexpr size_t kPageBytes = 4096;

}  // namespace

uint64_t availableHostBytes() { return freeMemory(); }
uint64_t plannableHostBytes() { return plannableMemory(); }

void* allocateHost(size_t bytes) {
  if (bytes >= kLargeBytes) {
    const uint64_t available = availableHostBytes();
    if (bytes > available)
      throw Error("ERR_OUT_OF_MEMORY",
                  "could not allocate " + readableBytes(bytes) + ": " + readableBytes(available) + " of memory are available");
  }
  void* memory = std::aligned_alloc(kAlignment, alignUp(std::max<size_t>(bytes, 1)));
  if (!memory) throw Error("ERR_OUT_OF_MEMORY", "could not allocate " + readableBytes(bytes) + " of memory");
  // Touched now, so that the next request sees what is left.
  if (bytes >= kLargeBytes)
    for (size_t at = 0; at < bytes; at += kPageBytes) static_cast<volatile std::byte*>(memory)[at] = std::byte{0};
  return memory;
}

void releaseHost(void* memory) noexcept { std::free(memory); }

}  // namespace revnet

#include "host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "backend.h"
#include "error.h"
#include "host_limits.h"

namespace revnet {
namespace {

// Smaller requests are not worth the look: they come and go with every call.
constexpr size_t kLargeBytes = size_t{64} << 20;
// Smaller ones are zeroed in no time.
constexpr size_t kMappedBytes = size_t{1} << 20;
constexpr size_t kPageBytes = 4096;

void touch(void* memory, size_t bytes) noexcept {
  for (size_t at = 0; at < bytes; at += kPageBytes) {
    volatile std::byte& page = static_cast<volatile std::byte*>(memory)[at];
    page = page;
  }
}

Error outOfMemory(size_t bytes, const std::string& reason) {
  return Error("ERR_OUT_OF_MEMORY", "could not allocate " + readableBytes(bytes) + reason);
}

// Memory that the system gave as zeros, page by page as they are touched.
class Mappings {
 public:
  void* add(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw outOfMemory(bytes, " of memory");
    const std::lock_guard lock(mutex_);
    mappings_.emplace(memory, Mapping{bytes, false});
    promised_ += bytes;
    return memory;
  }

  void settle(void* memory) noexcept {
    size_t bytes = 0;
    {
      const std::lock_guard lock(mutex_);
      const auto found = mappings_.find(memory);
      if (found == mappings_.end() || found->second.settled) return;
      bytes = found->second.bytes;
    }
    touch(memory, bytes);
    const std::lock_guard lock(mutex_);
    mappings_.at(memory).settled = true;
    promised_ -= bytes;
  }

  // Whether it was one.
  bool remove(void* memory) noexcept {
    const std::lock_guard lock(mutex_);
    const auto found = mappings_.find(memory);
    if (found == mappings_.end()) return false;
    const auto [bytes, settled] = found->second;
    if (!settled) promised_ -= bytes;
    mappings_.erase(found);
    munmap(memory, bytes);
    return true;
  }

  size_t promised() {
    const std::lock_guard lock(mutex_);
    return promised_;
  }

 private:
  struct Mapping {
    size_t bytes;
    bool settled;
  };
  std::mutex mutex_;
  std::map<void*, Mapping> mappings_;
  size_t promised_ = 0;
};

// Never destroyed: threads may give memory back while the process ends.
Mappings& mappings() {
  static Mappings& all = *new Mappings();
  return all;
}

void requireAvailable(size_t bytes) {
  if (bytes < kLargeBytes) return;
  const uint64_t available = availableHostBytes();
  if (bytes > available) throw outOfMemory(bytes, ": " + readableBytes(available) + " of memory are available");
}

}  // namespace

size_t promisedHostBytes() { return mappings().promised(); }
uint64_t availableHostBytes() { return freeMemory(promisedHostBytes()); }
uint64_t plannableHostBytes() { return plannableMemory(promisedHostBytes()); }

void* allocateHost(size_t bytes) {
  requireAvailable(bytes);
  void* memory = std::aligned_alloc(kAlignment, alignUp(std::max<size_t>(bytes, 1)));
  if (!memory) throw outOfMemory(bytes, " of memory");
  // Touched now, so that the next request sees what is left.
  if (bytes >= kLargeBytes) touch(memory, bytes);
  return memory;
}

void* allocateHostZeros(size_t bytes) {
  if (bytes < kMappedBytes) {
    void* memory = allocateHost(bytes);
    std::memset(memory, 0, bytes);
    return memory;
  }
  requireAvailable(bytes);
  return mappings().add(bytes);
}

void settleHost(void* memory) noexcept { mappings().settle(memory); }

void releaseHost(void* memory) noexcept {
  if (!mappings().remove(memory)) std::free(memory);
}

}  // namespace revnet

#include "host_memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>

#include "backend.h"
#include "error.h"

namespace revnet {
namespace {

// Smaller requests are not worth the look: they come and go with every call.
constexpr size_t kLargeBytes = size_t{64} << 20;
constexpr size_t kPageBytes = 4096;

// The number behind `key` in a file of "key number" lines, or of the number alone where key is empty; `otherwise` if there is none.
uint64_t readNumber(const char* file, const std::string& key, uint64_t otherwise) {
  std::ifstream in(file);
  std::string word;
  if (!key.empty())
    while (in >> word && word != key) {
    }
  uint64_t value = 0;
  return in >> value ? value : otherwise;
}

}  // namespace

uint64_t availableHostBytes() {
  constexpr uint64_t kUnknown = std::numeric_limits<uint64_t>::max();
  const uint64_t kibibytes = readNumber("/proc/meminfo", "MemAvailable:", kUnknown);
  const uint64_t free = kibibytes == kUnknown ? kUnknown : kibibytes * 1024;
  const uint64_t limit = readNumber("/sys/fs/cgroup/memory.max", "", kUnknown);  // "max" where there is none
  // The page cache counts as used, and is given up when memory is asked for.
  const uint64_t cached =
      readNumber("/sys/fs/cgroup/memory.stat", "inactive_file", 0) + readNumber("/sys/fs/cgroup/memory.stat", "active_file", 0);
  const uint64_t charged = readNumber("/sys/fs/cgroup/memory.current", "", 0), used = charged - std::min(charged, cached);
  return std::min(free, limit == kUnknown ? kUnknown : limit - std::min(limit, used));
}

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

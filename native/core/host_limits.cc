#include "host_limits.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <thread>
#if defined(__APPLE__)
#include <mach/mach.h>
#endif

namespace revnet {
namespace {

// What the two versions call the same.
struct Version {
  // Where systems mount the hierarchy.
  const char* mount;
  const char* limit;
  const char* usage;
  // In memory.stat: pages of files, which count as used and are given up when memory is asked for.
  const char* inactiveFile;
  const char* activeFile;
};
constexpr Version kV2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file", "active_file"};
constexpr Version kV1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
                         "total_active_file"};

// The number behind `key` in a file of "key number" lines, or of the number alone where key is empty; `otherwise` if there is none.
uint64_t readNumber(const std::string& file, const std::string& key, uint64_t otherwise) {
  std::ifstream in(file);
  std::string word;
  if (!key.empty())
    while (in >> word && word != key) {
    }
  uint64_t value = 0;
  return in >> value ? value : otherwise;
}

uint64_t difference(uint64_t limit, uint64_t used) { return limit - std::min(limit, used); }

// Left in the group of this folder.
uint64_t freeInGroup(const Version& version, const std::string& folder) {
  const uint64_t limit = readNumber(folder + '/' + version.limit, "", kNoLimit);  // "max" where there is none
  if (limit == kNoLimit) return kNoLimit;
  const std::string stat = folder + "/memory.stat";
  const uint64_t cached = readNumber(stat, version.inactiveFile, 0) + readNumber(stat, version.activeFile, 0);
  return difference(limit, difference(readNumber(folder + '/' + version.usage, "", 0), cached));
}

// The least that is left in `path` or in a group above it. In a container, the path may be the host's, of which the container sees
// its own part as the mount's root; what is not there has no limit.
uint64_t freeInHierarchy(const Version& version, const std::string& root, std::string path) {
  uint64_t least = kNoLimit;
  for (;;) {
    while (!path.empty() && path.back() == '/') path.pop_back();
    least = std::min(least, freeInGroup(version, root + version.mount + path));
    if (path.empty()) return least;
    path.resize(std::min(path.rfind('/'), path.size()));
    if (path.find('/') == std::string::npos) path.clear();
  }
}

bool lists(const std::string& controllers, const std::string& wanted) {
  std::istringstream in(controllers);
  for (std::string name; std::getline(in, name, ',');)
    if (name == wanted) return true;
  return false;
}

}  // namespace

uint64_t freeCgroupMemory(const std::string& root) {
  // Without /proc, or where it does not name the group, what is mounted is the process's own.
  uint64_t least = std::min(freeInHierarchy(kV2, root, ""), freeInHierarchy(kV1, root, ""));
  std::ifstream in(root + "/proc/self/cgroup");
  // Lines "number:controllers:path"; version 2 has no controllers.
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty())
      least = std::min(least, freeInHierarchy(kV2, root, path));
    else if (lists(controllers, "memory"))
      least = std::min(least, freeInHierarchy(kV1, root, path));
  }
  return least;
}

uint64_t freeAddressSpace(const std::string& root, uint64_t addressLimit, uint64_t dataLimit) {
  const std::string status = root + "/proc/self/status";
  const auto left = [&](uint64_t limit, const char* key) {
    return limit == kNoLimit ? kNoLimit : difference(limit, 1024 * readNumber(status, key, 0));
  };
  return std::min(left(addressLimit, "VmSize:"), left(dataLimit, "VmData:"));
}

uint64_t addressReserve(unsigned threads) {
  constexpr uint64_t kMebibyte = uint64_t{1} << 20;
  // Of each thread, its stack and the arena that the C library's allocator maps for it, at twice its size for a moment.
  constexpr uint64_t kThread = (8 + 128) * kMebibyte, kHeap = 256 * kMebibyte;
  return kHeap + threads * kThread;
}

namespace {

// Of the whole machine: what nobody uses, and what would be given up.
uint64_t freeSystemMemory([[maybe_unused]] const std::string& root) {
#if defined(__APPLE__)
  const mach_port_t host = mach_host_self();
  vm_size_t pageBytes = 0;
  vm_statistics64_data_t pages{};
  mach_msg_type_number_t words = HOST_VM_INFO64_COUNT;
  const bool known = host_page_size(host, &pageBytes) == KERN_SUCCESS &&
                     host_statistics64(host, HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &words) == KERN_SUCCESS;
  mach_port_deallocate(mach_task_self(), host);
  return known ? (uint64_t{pages.free_count} + pages.inactive_count + pages.purgeable_count) * pageBytes : kNoLimit;
#else
  const uint64_t kibibytes = readNumber(root + "/proc/meminfo", "MemAvailable:", kNoLimit);
  return kibibytes == kNoLimit ? kNoLimit : kibibytes * 1024;
#endif
}

uint64_t freeMemory(uint64_t promised, const std::string& root, uint64_t reserve) {
  uint64_t least = std::min(freeSystemMemory(root), freeCgroupMemory(root));
  if (least != kNoLimit) least = difference(least, promised);
  const auto limitOf = [](auto resource) {
    rlimit limit{};
    return getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ? kNoLimit : uint64_t{limit.rlim_cur};
  };
  const uint64_t addresses = freeAddressSpace(root, limitOf(RLIMIT_AS), limitOf(RLIMIT_DATA));
  if (addresses != kNoLimit) least = std::min(least, difference(addresses, reserve));
  return least;
}

}  // namespace

uint64_t freeMemory(uint64_t promised, const std::string& root) { return freeMemory(promised, root, 0); }
uint64_t plannableMemory(uint64_t promised, const std::string& root) {
  return freeMemory(promised, root, addressReserve(std::thread::hardware_concurrency()));
}

}  // namespace revnet

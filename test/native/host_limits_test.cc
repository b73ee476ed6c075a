// Limits of memory, as the files of a made-up machine tell them.
#include "core/host_limits.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "check.h"

using namespace revnet;

namespace {

constexpr uint64_t kMiB = 1 << 20;

// A root folder with such files, removed at the end.
class Machine {
 public:
  Machine() {
    std::string name = (std::filesystem::temp_directory_path() / "revnet-limits-XXXXXX").string();
    root = mkdtemp(name.data());
  }
  ~Machine() { std::filesystem::remove_all(root); }

  Machine& file(const std::string& name, const std::string& content) {
    const std::filesystem::path path = root + name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << content << '\n';
    return *this;
  }

  std::string root;
};

std::string mebibytes(uint64_t count) { return std::to_string(count * kMiB); }

}  // namespace

TEST(hostLimitsOfAnEmptyMachineAreNone) {
  const Machine machine;
  CHECK(freeCgroupMemory(machine.root) == kNoLimit);
  CHECK(freeAddressSpace(machine.root, kNoLimit, kNoLimit) == kNoLimit);
}

TEST(hostLimitsOfCgroup2) {
  Machine machine;
  machine.file("/sys/fs/cgroup/memory.max", "max").file("/sys/fs/cgroup/memory.current", mebibytes(9));
  CHECK(freeCgroupMemory(machine.root) == kNoLimit);
  machine.file("/sys/fs/cgroup/memory.max", mebibytes(100));
  CHECK(freeCgroupMemory(machine.root) == 91 * kMiB);
  // Pages of files are given up.
  machine.file("/sys/fs/cgroup/memory.stat", "anon 1\ninactive_file " + mebibytes(2) + "\nactive_file " + mebibytes(3));
  CHECK(freeCgroupMemory(machine.root) == 96 * kMiB);
  // The process's own group, and one between.
  machine.file("/proc/self/cgroup", "0::/a/b");
  machine.file("/sys/fs/cgroup/a/b/memory.max", mebibytes(50)).file("/sys/fs/cgroup/a/b/memory.current", mebibytes(20));
  CHECK(freeCgroupMemory(machine.root) == 30 * kMiB);
  machine.file("/sys/fs/cgroup/a/memory.max", mebibytes(40)).file("/sys/fs/cgroup/a/memory.current", mebibytes(39));
  CHECK(freeCgroupMemory(machine.root) == 1 * kMiB);
  // More than the limit, as for a moment may be.
  machine.file("/sys/fs/cgroup/a/memory.current", mebibytes(41));
  CHECK(freeCgroupMemory(machine.root) == 0);
}

TEST(hostLimitsOfCgroup1) {
  Machine machine;
  machine.file("/proc/self/cgroup", "12:cpu,cpuacct:/elsewhere\n5:freezer,memory:/docker/1234\n1:name=systemd:/docker/1234");
  // "No limit" is a large number.
  machine.file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  CHECK(freeCgroupMemory(machine.root) > (uint64_t{1} << 62));
  // In a container, the mount is the group, and the path is the host's.
  machine.file("/sys/fs/cgroup/memory/memory.limit_in_bytes", mebibytes(64));
  machine.file("/sys/fs/cgroup/memory/memory.usage_in_bytes", mebibytes(14));
  machine.file("/sys/fs/cgroup/memory/memory.stat", "inactive_file 5\ntotal_inactive_file " + mebibytes(4));
  CHECK(freeCgroupMemory(machine.root) == 54 * kMiB);
  machine.file("/sys/fs/cgroup/memory/docker/1234/memory.limit_in_bytes", mebibytes(32));
  CHECK(freeCgroupMemory(machine.root) == 32 * kMiB);
}

TEST(hostLimitsOfAddressSpace) {
  Machine machine;
  machine.file("/proc/self/status", "Name:\tnode\nVmSize:\t    2048 kB\nVmData:\t  1024 kB");
  CHECK(freeAddressSpace(machine.root, 10 * kMiB, kNoLimit) == 8 * kMiB);
  CHECK(freeAddressSpace(machine.root, kNoLimit, 10 * kMiB) == 9 * kMiB);
  CHECK(freeAddressSpace(machine.root, 10 * kMiB, 3 * kMiB) == 2 * kMiB);
  CHECK(freeAddressSpace(machine.root, 1 * kMiB, kNoLimit) == 0);
}

TEST(hostLimitsLeaveAddressesForThreads) {
  CHECK(addressReserve(0) >= 64 * kMiB);
  CHECK(addressReserve(3) - addressReserve(2) >= (8 + 64) * kMiB);
  Machine machine;
  machine.file("/proc/meminfo", "MemAvailable:   4096 kB");
  // Where the address space has no limit, a plan may count on all that is free.
  CHECK(plannableMemory(0, machine.root) <= freeMemory(0, machine.root));
}

TEST(hostLimitsTakeTheLeast) {
  Machine machine;
  machine.file("/proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   4096 kB");
  CHECK(freeMemory(0, machine.root) <= 4 * kMiB);
  machine.file("/sys/fs/cgroup/memory.max", mebibytes(1));
  CHECK(freeMemory(0, machine.root) <= 1 * kMiB);
}

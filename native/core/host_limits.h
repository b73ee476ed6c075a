// What the system lets this process have: cgroups of both versions, as containers and batch systems set them, and resource limits.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace revnet {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

// Bytes that can be allocated without swapping out others or meeting a limit; kNoLimit where nothing is known. `promised`: bytes
// that have addresses and are to get memory yet. `root` takes the place of "/" before the names in /proc and /sys, for tests.
uint64_t freeMemory(uint64_t promised = 0, const std::string& root = "");
// The same for a plan of what is to be allocated: of a limited address space, what threads and the JavaScript heap have yet to take
// is left out, which is addresses rather than memory.
uint64_t plannableMemory(uint64_t promised = 0, const std::string& root = "");

// Bytes that are left of a memory limit of the process's cgroups, or of those above them.
uint64_t freeCgroupMemory(const std::string& root);

// Bytes that are left of RLIMIT_AS and RLIMIT_DATA (`ulimit -v`, `ulimit -d`), which are given for tests.
uint64_t freeAddressSpace(const std::string& root, uint64_t addressLimit, uint64_t dataLimit);

// Addresses that a process with so many threads takes besides what it allocates.
uint64_t addressReserve(unsigned threads);

}  // namespace revnet

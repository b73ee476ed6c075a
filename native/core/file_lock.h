// A lock that the kernel releases when its process ends, however it ends.
#pragma once

namespace revnet {

enum class FileLock {
  Locked,
  // Another open file description has it.
  Held,
  // The system or the file system of this file has no such locks.
  Unsupported,
};

// Locks the whole file of an open descriptor, for as long as the descriptor is open; never waits. Whoever opens the file anew
// contends for it, in this process too.
FileLock lockFile(int descriptor);

}  // namespace revnet

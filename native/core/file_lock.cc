#include "file_lock.h"

#include <sys/file.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "error.h"

namespace revnet {

FileLock lockFile(int descriptor) {
  int result;
  do result = flock(descriptor, LOCK_EX | LOCK_NB);
  while (result != 0 && errno == EINTR);
  if (result == 0) return FileLock::Locked;
  switch (const int error = errno) {
    case EWOULDBLOCK: return FileLock::Held;
    case EBADF: throw Error("ERR_INVALID_ARGUMENT", "descriptor: " + std::to_string(descriptor) + " is not an open file");
    case ENOSYS:
    case ENOTSUP:
#if ENOTSUP != EOPNOTSUPP
    case EOPNOTSUPP:
#endif
    case ENOLCK:
    case EINVAL: return FileLock::Unsupported;
    default: throw Error("ERR_FILE", std::generic_category().message(error));
  }
}

}  // namespace revnet

// Memory of the host, for the backends that compute there.
#pragma once

#include <cstddef>

namespace revnet {

// Aligned to kAlignment, contents undefined. Throws Error ERR_OUT_OF_MEMORY; also where the system would hand out more than it
// has and end the process once the memory is touched.
void* allocateHost(size_t bytes);
void releaseHost(void* memory) noexcept;

}  // namespace revnet

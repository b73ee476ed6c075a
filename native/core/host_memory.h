// Memory of the host, for the backends that compute there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace revnet {

// Aligned to kAlignment, contents undefined. Throws Error ERR_OUT_OF_MEMORY; also where the system would hand out more than it
// has and end the process once the memory is touched.
void* allocateHost(size_t bytes);
// The same, zeros, and at once however much it is: large memory gets its pages from settleHost, or from who touches them before.
// Until settleHost has been called it counts as taken, so that others are not promised it as well.
void* allocateHostZeros(size_t bytes);
void settleHost(void* memory) noexcept;
void releaseHost(void* memory) noexcept;

// Bytes of zeros that have been given out and not settled.
size_t promisedHostBytes();
// What can be allocated without swapping out others or meeting a container's limit; no bound where the system does not tell.
uint64_t availableHostBytes();
// Bytes that a plan may count on (plannableMemory).
uint64_t plannableHostBytes();

}  // namespace revnet

// Stands in for the CUDA backend in a build without it.
#include "core/backend.h"
#include "cuda/devices.h"

namespace revnet {

// REVNET_CUDA_ABSENCE: why CMake left CUDA out.
CudaDevices cudaDevices() { return {{}, std::string("built without CUDA: ") + REVNET_CUDA_ABSENCE}; }

uint64_t cudaFreeBytes(int) { throw Error("ERR_DEVICE_UNAVAILABLE", cudaDevices().absence); }

CudaBuild cudaBuild() { return {}; }

std::unique_ptr<Backend> makeCudaBackend(int, Precision, Precision) {
  throw Error("ERR_DEVICE_UNAVAILABLE", cudaDevices().absence);
}

}  // namespace revnet

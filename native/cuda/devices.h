// What of CUDA this build and this machine have. Implemented by stub.cc where CUDA is not compiled.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace revnet {

struct CudaDevice {
  std::string description;  // for people: name, compute capability, memory, multiprocessors
  int capability;           // 90 for compute capability 9.0
  std::string absence;      // why this build cannot use it; empty where it can
};

struct CudaDevices {
  std::vector<CudaDevice> devices;  // by number
  std::string absence;              // why there is none; empty otherwise
};

// Never throws for lack of a device or a driver: that is an answer.
CudaDevices cudaDevices();

// Free memory of a device. Throws Error ERR_CUDA where there is no such device.
uint64_t cudaFreeBytes(int device);

// Whether code compiled for `architecture`, in CMake's notation ("86-real", "90-virtual", "90a-real", or "90" for both kinds),
// runs on a device of this compute capability. Machine code runs on later devices of the same major version, and PTX is translated
// for any later one; an "a" binds both to that very capability, an "f" to its major version. What CMake's other names ("native",
// "all") stand for is not known here: then it may.
bool codeRunsOn(const std::string& architecture, int capability);

struct CudaBuild {
  std::string version;                     // of the toolkit that this build was made with; empty without CUDA
  std::vector<std::string> architectures;  // that it has code for, in CMake's notation: "90" is sm_90 and its PTX
  std::string driver;                      // the newest CUDA that the driver knows; empty without a driver
};
CudaBuild cudaBuild();

}  // namespace revnet

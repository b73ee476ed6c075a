// What of CUDA this build and this machine have. Implemented by stub.cc where CUDA is not compiled.
#pragma once

#include <string>
#include <vector>

namespace revnet {

struct CudaDevices {
  std::vector<std::string> descriptions;  // one line a GPU, by number
  std::string absence;                    // why there is none; empty otherwise
};

// Never throws for lack of a device or a driver: that is an answer.
CudaDevices cudaDevices();
// The toolkit's version that this build was made with; empty without CUDA.
std::string cudaVersion();

}  // namespace revnet

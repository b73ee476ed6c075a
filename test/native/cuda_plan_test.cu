// How the passes of convolutions are laid out: on every device that a precision runs on, a block has room for its shared memory.
#include "check.h"
#include "cuda/convolution.cuh"

using namespace revnet;
using namespace revnet::cuda;

namespace {

// The most shared memory that a pass of such a convolution asks for, over sizes that tile differently.
size_t mostSharedBytes(int kernel, int stride, Precision precision) {
  size_t most = 0;
  for (const int n : {1, 3, 100})
    for (const int h : {1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 224})
      for (const int w : {1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 224})
        for (const int c : {1, 8, 16, 56, 256})
          for (const int k : {1, 16, 24, 64, 256}) {
            const Convolution convolution{n, h, w, c, k, kernel, stride};
            most = std::max({most, planForward(convolution, precision).sharedBytes,
                             planBackwardData(convolution, precision).sharedBytes,
                             planBackwardWeights(convolution, precision).sharedBytes});
          }
  return most;
}

}  // namespace

TEST(cudaConvolutionsFitIntoSharedMemory) {
  for (int kernel = 1; kernel <= kMaxKernel; kernel += 2)
    for (int stride = 1; stride <= kMaxStride; ++stride) {
      // Of compute capability 7.5, on which only float32 runs; kernels of more than 9 x 9 at stride 2 need a newer one.
      if (kernel <= 9 || stride == 1) CHECK(mostSharedBytes(kernel, stride, Precision::Float32) <= 64 << 10);
      // Of 8.6, 8.9 and 12.0.
      for (const Precision precision : {Precision::Float32, Precision::Tf32, Precision::Bfloat16})
        CHECK(mostSharedBytes(kernel, stride, precision) <= 99 << 10);
    }
}

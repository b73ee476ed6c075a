// How the passes of convolutions are laid out: on every device that a precision runs on, a block has room for its shared memory.
// And when what they read is prepared: once a program, unless an op changes what it is made of.
#include "check.h"
#include "cuda/prepare.cuh"

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

namespace {

// A convolution of a batch of one 4x4 image of 4 channels, on buffers 0 (x), 1 (weight) and 2 (y), with a norm of buffers 3
// (statistics), 4 (gamma) and 5 (beta); it writes the statistics of y to buffer 6. Buffer 7: gradients, 8: hyperparameters.
enum : int { X, W, Y, S, Gamma, Beta, T, Gradients, Hyperparameters, Buffers };
constexpr Convolution kConvolution{1, 4, 4, 4, 4, 1, 1};

Norm normOf(int statistics) { return {{statistics}, {Gamma}, {Beta}, 1e-3}; }
ConvolutionForward convolution(int statistics, int written = -1) {
  return {kConvolution, normOf(statistics), {X}, {W}, {Y}, {written}, {}};
}
SgdUpdate update(int parameters, int64_t elements) { return {elements, 0, {parameters}, {Gradients}, {Y}, {Hyperparameters}, {}}; }

// The ops before which something is prepared, and how many things.
std::vector<std::pair<size_t, size_t>> preparations(const std::vector<Op>& ops) {
  std::vector<std::byte> bytes(Buffers * 1024 + (64 << 10));
  Memory memory;
  for (size_t i = 0; i < Buffers; ++i) memory.addresses.push_back(bytes.data() + i * 1024);
  memory.types.assign(Buffers, ElementType::Real);
  memory.elementBytes.fill(sizeof(float));
  memory.prepared = bytes.data() + Buffers * 1024;
  PreparedProgram prepared(ops, memory.types, Precision::Float32);
  prepared.place(ops, memory);
  std::vector<std::pair<size_t, size_t>> all;
  for (const auto& launch : prepared.launches()) all.emplace_back(launch.op, launch.last - launch.first);
  return all;
}

}  // namespace

TEST(cudaPreparesOnceAProgram) {
  using Preparations = std::vector<std::pair<size_t, size_t>>;
  // One weight in one layout, and its transpose; one norm.
  ConvolutionBackwardData data;
  data.convolution = kConvolution;
  data.weight = {W};
  data.dy = {Y};
  data.dx = {X};
  CHECK(preparations({convolution(S), convolution(S), data}) == Preparations({{0, 3}}));
  // The pass that writes statistics makes the norm that reads them.
  CHECK(preparations({convolution(S, T), convolution(T)}) == Preparations({{0, 2}}));
  // What an op changes is made again before the next one that reads it, and nothing else is.
  CHECK(preparations({convolution(S), update(W, 16), convolution(S)}) == Preparations({{0, 2}, {2, 1}}));
  CHECK(preparations({convolution(S), update(Gamma, 4), convolution(S), convolution(S)}) == Preparations({{0, 2}, {2, 1}}));
  CHECK(preparations({convolution(S), update(T, 8), convolution(S), convolution(T)}) == Preparations({{0, 2}, {3, 1}}));
  CHECK(preparations({update(W, 16), convolution(S)}) == Preparations({{1, 2}}));
}

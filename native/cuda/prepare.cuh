// What convolutions need before they start, made by one small launch for all convolutions of an op: weights in the order and type
// in which kernels read them, and batch norms as multiplications and additions.
#pragma once

#include "cuda/convolution.cuh"

namespace revnet::cuda {

// One thing to prepare.
struct PrepareJob {
  // Weights: `source` [taps][c][k] to `packed`, laid out as `layout` says.
  const float* source = nullptr;
  std::byte* packed = nullptr;
  WeightLayout layout{};
  Precision precision = Precision::Float32;
  // Or, where `norm` is not null, [c] of a norm over numbers that are multiples of `step`.
  NormArguments arguments;
  ChannelNorm* norm = nullptr;
  float step = 1;
};

// The most that one op asks for: two residual functions of three layers, each packed for both directions and normalised.
constexpr int kMaxPrepareJobs = 18;

// Collects jobs and carves their results. `memory` null: only the scratch is counted.
class Preparation {
 public:
  const std::byte* pack(Operand weight, const WeightLayout& layout, Precision precision, const Memory* memory, Carver& carver);
  // Of the norm of `x`; null where there is no norm. `known` false: the room only, because another kernel will fill it.
  ChannelNorm* norm(const Norm& norm, Operand x, int c, const Memory* memory, Carver& carver, bool known = true);
  void launch(const Context& context) const;

 private:
  void add(const PrepareJob& job);

  PrepareJob jobs_[kMaxPrepareJobs];
  int count_ = 0;
};

#if defined(__CUDACC__) || defined(REVNET_EMULATED)

__device__ inline ChannelNorm channelNorm(const NormArguments& norm, int channel, float step) {
  const Affine affine = normAffine(norm, channel, step), standard = standardizer(norm, channel, step);
  return {affine.scale, affine.shift, standard.scale, standard.shift};
}

#endif

}  // namespace revnet::cuda

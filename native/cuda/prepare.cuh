// What convolutions read instead of parameters: weights in the order and type in which kernels want them, and batch norms as
// multiplications and additions. Each is made once a program, not once an op: all that can be made at its start in one launch
// there, and the norm of a tensor by the pass that writes the tensor (StatisticsTarget), for the forward pass and the backward pass
// alike.
#pragma once

#include <cstddef>
#include <vector>

#include "core/ops.h"
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

// Everything that a program's ops want prepared, and where it lies in the memory for it.
class PreparedProgram {
 public:
  // `types`: of the program's operands, by id.
  PreparedProgram(const std::vector<Op>& ops, const std::vector<ElementType>& types, Precision precision);

  // Of the memory.
  size_t bytes() const { return bytes_; }

  // Says where everything is, and when it is made. `memory` outlives this.
  void place(const std::vector<Op>& ops, const Memory& memory);
  // Jobs [first, last) are one launch that comes before op `op`. A usual program has one launch; others follow where ops change
  // parameters, or statistics without making the norm.
  struct Launch {
    size_t op, first, last;
  };
  const std::vector<PrepareJob>& jobs() const { return jobs_; }
  const std::vector<Launch>& launches() const { return launches_; }

  // Once placed:
  const std::byte* weights(Operand weight, const WeightLayout& layout) const;
  // [c]; null where there is no norm.
  ChannelNorm* norm(const Norm& norm, Operand x) const;
  // What an op that writes `statistics`, those of `y`, makes of them.
  StatisticsTarget statisticsTarget(Operand statistics, Operand y) const;

 private:
  // A weight in one layout, or the norm of real or of fixed numbers.
  struct Item {
    Operand weight;
    WeightLayout layout{};
    Norm norm;
    bool fixed = false;
    int c = 0;
    size_t offset = 0;
  };
  // `made`: by the op itself; otherwise it must be there when the op starts.
  struct Use {
    size_t item;
    bool made;
  };
  struct OpUses {
    std::vector<Use> uses;
    Operand statistics, y;  // of statisticsTarget; absent: the op writes none
  };
  static constexpr size_t kNone = static_cast<size_t>(-1);

  void addUses(const Op& op);
  void useWeights(OpUses& uses, Operand weight, const WeightLayout& layout);
  void useNorm(OpUses& uses, const Norm& norm, Operand x, int c, bool made);
  void use(OpUses& uses, size_t found, const Item& item, size_t bytes, bool made);
  bool isFixed(Operand x) const { return types_[static_cast<size_t>(x.id)] == ElementType::Fixed; }
  size_t findWeights(Operand weight, const WeightLayout& layout) const;
  size_t findNorm(const Norm& norm, bool fixed) const;
  size_t findReader(Operand statistics, bool fixed) const;
  PrepareJob jobOf(const Item& item) const;

  const std::vector<ElementType>& types_;
  const Precision precision_;
  std::vector<Item> items_;
  std::vector<OpUses> uses_;  // by op
  size_t bytes_ = 0;
  const Memory* memory_ = nullptr;
  std::vector<PrepareJob> jobs_;
  std::vector<Launch> launches_;
};

// Enqueues a launch of `count` jobs, `jobs` on the host and `table` the same on the device.
void prepare(cudaStream_t stream, const PrepareJob* jobs, size_t count, const PrepareJob* table);

#if defined(__CUDACC__) || defined(REVNET_EMULATED)

__device__ inline ChannelNorm channelNorm(const NormArguments& norm, int channel, float step) {
  const Affine affine = normAffine(norm, channel, step), standard = standardizer(norm, channel, step);
  return {affine.scale, affine.shift, standard.scale, standard.shift};
}

#endif

}  // namespace revnet::cuda

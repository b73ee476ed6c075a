// Convolution forward and backward data as one implicit matrix product: rows are output pixels, columns output channels, and the
// sum runs over taps and input channels. What is read (gather.cuh) and what is written is described here; convolution.cu has the
// kernel, prepare.cu what must be ready before it.
#pragma once

#include "core/carver.h"
#include "cuda/gather.cuh"
#include "cuda/reduce.cuh"

namespace revnet::cuda {

// Blocks that have room at once on the 132 multiprocessors of an H100, two on each. Whatever the device: plans, and with them the
// order of sums, depend on the shape alone. Two passes that share a launch have half of them each, so that none has to wait.
constexpr int kBlocks = 264;
constexpr int kBlocksBeside = kBlocks / 2;

// ---- Shape of a pass -----------------------------------------------------------------------------------------------------

// How the weights of a pass lie in memory, made by prepare.cu: one slab after the other as the kernel reads them,
// [column tile][chunk][tap], of which a slab holds `columns` output channels times `chunk` input channels, padded with zeros. On
// tensor cores [columns][chunk] operands (each column's inputs side by side; of each 16 columns in the order of weightRowChannel),
// otherwise [chunk][columns] floats.
struct WeightLayout {
  int kernel;           // edge of the square kernel
  int inputs, outputs;  // channels that are summed over, and that are written
  int columns, chunk;
  bool transposed;  // backward data: inputs are the convolution's k, outputs its c

  constexpr int taps() const { return kernel * kernel; }
  constexpr int chunks() const { return ceilDiv(inputs, chunk); }
  constexpr int columnTiles() const { return ceilDiv(outputs, columns); }
  constexpr int64_t elements() const { return int64_t{columnTiles()} * chunks() * taps() * columns * chunk; }
  bool operator==(const WeightLayout& other) const = default;
};

// How the 8 warps of a block share a tile: each has 32 pixels and 16 output channels, `columnWarps` (1, 2 or 4) of them side by
// side.
struct BlockShape {
  int columnWarps;
  constexpr int columns() const { return 16 * columnWarps; }
  constexpr int pixels() const { return 256 / columnWarps; }
};

struct ConvolutionPlan {
  Gather gather;
  WeightLayout layout;
  BlockShape shape;
  bool resident;  // all weights of a column tile stay in shared memory; otherwise those of so many rows of taps come and go,
  bool ahead;     // and those of the next rows while these are used
  int rowsAtOnce;
  int pixelsAt;  // bytes, in shared memory: which pixels a patch and a tile have
  int blocks;    // that share the tiles of one phase; each has a run of neighbouring ones
  size_t sharedBytes;

  // Blocks whose partial sums are added up for a channel.
  int partialBlocks() const { return blocks * gather.phases * gather.phases; }
};

// For at most `blocks` blocks, or as many as there are column tiles and phases. What is said of weights does not depend on it.
ConvolutionPlan planForward(const Convolution& conv, Precision precision, int blocks = kBlocks);
ConvolutionPlan planBackwardData(const Convolution& conv, Precision precision, int blocks = kBlocks);

// Calls body(math) with the arithmetic of a precision.
template <class Body>
auto withMath(Precision precision, const Body& body) {
  if (precision == Precision::Tf32) return body(Tf32{});
  if (precision == Precision::Bfloat16) return body(Bfloat16{});
  return body(Float32{});
}

// Scratch of one pass, undefined before and after it.
struct PartialSums {
  float2* sums;   // ChannelPartials
  float* counts;  // [column tiles][partial blocks]

  // Room for the largest of the passes that the caller names.
  class Extent {
   public:
    void cover(const ConvolutionPlan& plan) {
      const auto blocks = static_cast<size_t>(plan.partialBlocks());
      sums_ = std::max(sums_, blocks * static_cast<size_t>(plan.layout.outputs));
      counts_ = std::max(counts_, blocks * static_cast<size_t>(plan.layout.columnTiles()));
    }
    PartialSums carve(Carver& carver) const { return {carver.take<float2>(sums_), carver.take<float>(counts_)}; }

   private:
    size_t sums_ = 0, counts_ = 0;
  };
};

// ---- What is written -------------------------------------------------------------------------------------------------------

// The statistics of a tensor, and the norm that reads it next, both made by the pass that writes the tensor.
struct StatisticsTarget {
  float* statistics = nullptr;  // [2][k] overwritten; null: not asked for
  NormArguments next;           // its statistics are `statistics`, or absent
  ChannelNorm* norm = nullptr;  // [k] overwritten; null where there is no next norm
};

enum class Writing {
  Add,   // y = base + sign * q(sums)
  Mask,  // dz = sums where relu(norm(x)) let its input through, else 0; and the gradients of that norm
};

struct Target {
  Writing writing = Writing::Add;
  StreamPointer y;  // Add: overwritten; may be base. Mask: dz, of hiddenBytes, overwritten
  // Add
  StreamPointer base;  // not narrow; absent: 0
  int sign = 1;
  int* outOfRange = nullptr;  // [1] += elements outside the fixed-point range; null: not counted
  StatisticsTarget statistics;
  // Mask
  StreamPointer x;
  const ChannelNorm* norm = nullptr;  // [k] of x
  NormArguments normArguments;
  float *gammaGradient = nullptr, *betaGradient = nullptr;  // [k] overwritten
  NormGradientVectors vectors;                              // [k] overwritten
};

// Enqueues a pass. `weights`: laid out as plan.layout says.
void convolve(const Context& context, const ConvolutionPlan& plan, const Source& source, const std::byte* weights,
              const Target& target, const PartialSums& partials);

// ---- Weights gradient (weights_gradient.cu) ----------------------------------------------------------------------------------

// Elements from one split's partial sums to the next: they are read four at a time.
constexpr int64_t partialStride(int64_t elements) { return (elements + 3) / 4 * 4; }

struct WeightsGradientPlan {
  Convolution convolution;  // flattened where it can be
  Gather gather;
  int chunk, columns;  // input and output channels of a block
  int tapsPerBlock;
  int rowGroups;  // units of work among which a block's taps and input channels are shared out
  int splits;     // blocks that share the pixels
  size_t sharedBytes;

  // Blocks of each split.
  int parts() const {
    return ceilDiv(convolution.taps(), tapsPerBlock) * ceilDiv(convolution.c, chunk) * ceilDiv(convolution.k, columns);
  }
  int64_t elements() const { return convolution.weightElements(); }
  size_t partialFloats() const {
    return splits > 1 ? static_cast<size_t>(splits) * static_cast<size_t>(partialStride(elements())) : 0;
  }
};

// For at most `blocks` blocks, or as many as there are parts.
WeightsGradientPlan planBackwardWeights(const Convolution& conv, Precision precision, int blocks = kBlocks);

// A sum over splits that is still to be made: of `partials`, [splits][partialStride(elements)], into `gradient` [elements],
// overwritten.
struct PendingSum {
  const float* partials;
  float* gradient;
  int splits;
  int64_t elements;
};

// Enqueues dw = sum over pixels of x times dy. Where plan.splits is 1 it writes `gradient`, else `partials`, which have to be
// summed.
void convolveBackwardWeights(const Context& context, const WeightsGradientPlan& plan, const Source& x, const Source& dy,
                             float* gradient, float* partials);
constexpr int kMaxPendingSums = 3;

// ---- Backward passes of a residual function (backward.cu) ----------------------------------------------------------------------

// dx += source, of [pixels][c].
struct GradientSum {
  Source source;
  StreamPointer dx;
  int64_t pixels;
  int c;
};

// Enqueues a layer's backward pass: what convolve does for `target`, which masks, and what convolveBackwardWeights does, both
// reading dy; in one launch, where blocks of the one take the multiprocessors that those of the other leave.
void backwardLayer(const Context& context, const ConvolutionPlan& data, const std::byte* weights, const Target& target,
                   const PartialSums& partials, const WeightsGradientPlan& weightsGradient, const Source& x, const Source& dy,
                   float* gradient, float* weightPartials);
// What ends a function's backward pass: sums of its weights' gradients, and the gradient of its input's stream.
struct BackwardEnd {
  PendingSum sums[kMaxPendingSums];  // those of one split are left out
  int count;
  GradientSum gradient;
};
// Enqueues it.
void endBackward(const Context& context, const BackwardEnd& end);
// Enqueues it and a pass of convolve that adds, and is asked for no statistics and no count, which neither reads nor writes what
// the other writes, in one launch.
void endBackwardAndConvolve(const Context& context, const BackwardEnd& end, const ConvolutionPlan& plan, const Source& source,
                            const std::byte* weights, const Target& target, const PartialSums& partials);

}  // namespace revnet::cuda

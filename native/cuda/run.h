// What each op enqueues, and the scratch it needs. Every function only launches kernels on context.stream: no allocation, no
// copy from or to the host, no waiting, so that all of a program can be captured into one graph.
#pragma once

#include <cstddef>
#include <span>

#include "core/ops.h"
#include "cuda/context.h"

namespace revnet::cuda {

// data.cu
void run(const GatherBatch& op, const Context& context);
// convolution.cu, weights_gradient.cu
void run(const ConvolutionForward& op, const Context& context);
void run(const ConvolutionBackwardData& op, const Context& context);
void run(const ConvolutionBackwardWeights& op, const Context& context);
// norm.cu
void run(const BatchNormReluForward& op, const Context& context);
void run(const BatchNormReluBackward& op, const Context& context);
// Any number of them: none reads what another writes.
void run(std::span<const UpdateRunningStatistics* const> ops, const Context& context);
// pooling.cu
// One, or two of one shape: neither reads what the other writes.
void run(std::span<const ShortcutForward* const> ops, const Context& context);
void run(std::span<const ShortcutBackward* const> ops, const Context& context);
void run(const MaxPoolForward& op, const Context& context);
void run(const MaxPoolBackward& op, const Context& context);
void run(const GlobalAveragePoolForward& op, const Context& context);
void run(const GlobalAveragePoolBackward& op, const Context& context);
// classifier.cu
void run(const LinearForward& op, const Context& context);
void run(const LinearBackward& op, const Context& context);
void run(const SoftmaxCrossEntropy& op, const Context& context);
// residual.cu
void run(const ResidualForward& op, const Context& context);
void run(const ResidualBackward& op, const Context& context);
void run(const ReversibleForward& op, const Context& context);
void run(const ReversibleInverse& op, const Context& context);
void run(const ReversibleBackward& op, const Context& context);
// optimizer.cu
void run(const SgdUpdate& op, const Context& context);
void run(const AdamwUpdate& op, const Context& context);
void run(const ClipGradientNorm& op, const Context& context);
void run(const Copy& op, const Context& context);
void run(const MaximumDifference& op, const Context& context);

// Those that need scratch.
size_t workspaceBytes(const ConvolutionForward& op, Precision precision);
size_t workspaceBytes(const ConvolutionBackwardWeights& op, Precision precision);
size_t workspaceBytes(const BatchNormReluBackward& op, Precision precision);
size_t workspaceBytes(const GlobalAveragePoolBackward& op, Precision precision);
size_t workspaceBytes(const SoftmaxCrossEntropy& op, Precision precision);
size_t workspaceBytes(const MaximumDifference& op, Precision precision);
size_t workspaceBytes(const ClipGradientNorm& op, Precision precision);
size_t workspaceBytes(const ResidualForward& op, Precision precision);
size_t workspaceBytes(const ResidualBackward& op, Precision precision);
size_t workspaceBytes(const ReversibleForward& op, Precision precision);
size_t workspaceBytes(const ReversibleInverse& op, Precision precision);
size_t workspaceBytes(const ReversibleBackward& op, Precision precision);

template <class Record>
concept NeedsWorkspace = requires(const Record& op, Precision precision) {
  workspaceBytes(op, precision);
};

}  // namespace revnet::cuda

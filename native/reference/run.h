// One function for each op record: its definition. core/ops.h says what each does; the .cc files here say how, by family.
#pragma once

#include "context.h"
#include "core/ops.h"

namespace revnet::reference {

// data.cc
void run(const Context& context, const GatherBatch& op);

// convolution.cc
void run(const Context& context, const ConvolutionForward& op);
void run(const Context& context, const ConvolutionBackwardData& op);
void run(const Context& context, const ConvolutionBackwardWeights& op);

// norm.cc
void run(const Context& context, const BatchNormReluForward& op);
void run(const Context& context, const BatchNormReluBackward& op);
void run(const Context& context, const UpdateRunningStatistics& op);

// pooling.cc
void run(const Context& context, const ShortcutForward& op);
void run(const Context& context, const ShortcutBackward& op);
void run(const Context& context, const MaxPoolForward& op);
void run(const Context& context, const MaxPoolBackward& op);
void run(const Context& context, const GlobalAveragePoolForward& op);
void run(const Context& context, const GlobalAveragePoolBackward& op);

// classifier.cc
void run(const Context& context, const LinearForward& op);
void run(const Context& context, const LinearBackward& op);
void run(const Context& context, const SoftmaxCrossEntropy& op);

// residual.cc
void run(const Context& context, const ResidualForward& op);
void run(const Context& context, const ResidualBackward& op);
void run(const Context& context, const ReversibleForward& op);
void run(const Context& context, const ReversibleInverse& op);
void run(const Context& context, const ReversibleBackward& op);

// optimizer.cc
void run(const Context& context, const SgdUpdate& op);
void run(const Context& context, const AdamwUpdate& op);
void run(const Context& context, const ClipGradientNorm& op);

// streams.cc
void run(const Context& context, const Copy& op);
void run(const Context& context, const MaximumDifference& op);

}  // namespace revnet::reference

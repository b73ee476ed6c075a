// Batch normalisation with given statistics, followed by ReLU, and its backward pass through the statistics of the batch
// (Ioffe and Szegedy 2015, section 3). Tensors are [pixels][c], where pixels = n * h * w.
#pragma once

#include "context.h"
#include "core/ops.h"

namespace revnet::reference {

// statistics [2][c] = mean, biased variance of x over pixels, in two passes; overwritten
void computeStatistics(View x, int c, MutableView statistics);

// relu(gamma * (x - mean) / sqrt(variance + epsilon) + beta), or x where the norm is absent
Values normForward(const Context& context, const Norm& norm, int c, View x);

// With dy = d loss / d norm(x): returns dx and overwrites the gradients of gamma and beta. Where the norm is absent, dx = dy.
Values normBackward(const Context& context, const Norm& norm, const NormGradient& gradient, int c, View x, View dy);

}  // namespace revnet::reference

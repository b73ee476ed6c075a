// Which kernel runs which op. An op that needs scratch has a Layout, which carves it out of the workspace; built on a null
// base, the same layout says how much is needed.
#pragma once

#include <algorithm>

#include "cpu/backend.h"
#include "cpu/kernels/classifier.h"
#include "cpu/kernels/convolution_ops.h"
#include "cpu/kernels/data.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/norm_ops.h"
#include "cpu/kernels/pooling.h"
#include "cpu/kernels/residual.h"

namespace revnet::REVNET_ISA {

template <class Record>
struct LayoutOf {
  using type = void;
};
#define REVNET_LAYOUT(Record)    \
  template <>                    \
  struct LayoutOf<Record> {      \
    using type = Record##Layout; \
  };
REVNET_LAYOUT(ConvolutionForward)
REVNET_LAYOUT(ConvolutionBackwardData)
REVNET_LAYOUT(ConvolutionBackwardWeights)
REVNET_LAYOUT(BatchNormReluForward)
REVNET_LAYOUT(BatchNormReluBackward)
REVNET_LAYOUT(MaxPoolForward)
REVNET_LAYOUT(GlobalAveragePoolForward)
REVNET_LAYOUT(GlobalAveragePoolBackward)
REVNET_LAYOUT(SoftmaxCrossEntropy)
REVNET_LAYOUT(MaximumDifference)
REVNET_LAYOUT(ClipGradientNorm)
#undef REVNET_LAYOUT

// Residual functions carve for themselves, one after the other in the same workspace.
inline size_t forwardBytes(const ResidualFunction& function, int threads) {
  Carver carver(nullptr);
  const Hidden none;
  const ResidualForwardLayout layout(function, {}, none, threads, carver);
  return carver.used();
}
inline size_t backwardBytes(const ResidualFunction& function, int threads) {
  Carver carver(nullptr);
  const Hidden none;
  const ResidualBackwardLayout layout(function, {}, none, threads, carver);
  return carver.used();
}
inline size_t residualBytes(const ResidualForward& op, int threads) { return forwardBytes(op.function, threads); }
inline size_t residualBytes(const ResidualBackward& op, int threads) { return backwardBytes(op.function, threads); }
inline size_t residualBytes(const ReversibleForward& op, int threads) {
  return std::max(forwardBytes(op.f, threads), forwardBytes(op.g, threads));
}
inline size_t residualBytes(const ReversibleInverse& op, int threads) {
  return std::max(forwardBytes(op.f, threads), forwardBytes(op.g, threads));
}
inline size_t residualBytes(const ReversibleBackward& op, int threads) {
  return std::max(backwardBytes(op.f, threads), backwardBytes(op.g, threads));
}

template <class Record>
concept Residual = requires(const Record& op) {
  residualBytes(op, 1);
};

inline size_t workspaceBytes(const Op& op, int threads) {
  return std::visit(
      [&](const auto& record) -> size_t {
        using Record = std::remove_cvref_t<decltype(record)>;
        using Layout = typename LayoutOf<Record>::type;
        if constexpr (Residual<Record>) {
          return residualBytes(record, threads);
        } else if constexpr (!std::is_void_v<Layout>) {
          Carver carver(nullptr);
          const Layout layout(record, threads, carver);
          return carver.used();
        } else {
          return 0;
        }
      },
      op);
}

inline void runOp(const Op& op, const Memory& memory, ThreadPool& pool) {
  std::visit(
      [&](const auto& record) {
        using Record = std::remove_cvref_t<decltype(record)>;
        using Layout = typename LayoutOf<Record>::type;
        if constexpr (std::is_void_v<Layout>) {
          run(record, memory, pool);
        } else {
          Carver carver(memory.workspace);
          Layout layout(record, pool.threads(), carver);
          run(record, memory, pool, layout);
        }
      },
      op);
}

}  // namespace revnet::REVNET_ISA

// The register tile in which all products are summed: P rows (pixels, Winograd tiles or input channels) by V vectors of output
// channels. Its size is chosen here for each instruction set, and its inner loops are here.
//
// All of it is inlined: a sum that is passed by reference to a function lies in memory.
// A tile adds one input channel (or one pixel) after the other, so its size does not show in the bits.
#pragma once

#include <bit>

#include "cpu/kernels/vector.h"

namespace revnet::REVNET_ISA {

// Rows of a tile of V vectors. A tile spans up to kTileVectors vectors, in whose groups packed weights lie (cpu/registers/).
template <int V>
constexpr int tileRows() {
  return kTileAccumulators / (kRegisters * V);
}
// Rows of the next smaller tile, for the rest: a power of two.
constexpr int fewerRows(int rows) { return static_cast<int>(std::bit_floor(static_cast<unsigned>(rows - 1))); }
// Input channels of a weight gradient's tile: they divide a vector's.
template <int V>
constexpr int tileChannels() {
  return static_cast<int>(std::bit_floor(static_cast<unsigned>(tileRows<V>())));
}

// Calls body(vector, V) for all `vectors` vectors in groups of V = kTileVectors, the rest one by one; V is a compile-time constant.
template <class Body>
inline void forEachVectorGroup(int vectors, const Body& body) {
  int vector = 0;
  if constexpr (kTileVectors > 1) {
    for (; vector + kTileVectors <= vectors; vector += kTileVectors) body(vector, std::integral_constant<int, kTileVectors>{});
  }
  for (; vector < vectors; ++vector) body(vector, std::integral_constant<int, 1>{});
}
// Vectors of the group that starts at `vector`.
constexpr int groupVectors(int vector, int vectors) { return vectors - vector >= kTileVectors ? kTileVectors : 1; }

// sum[p][v] += x[p * stride + i] * weights[i][v] for i in [0, count), one i after the other; weights: [count][V vectors].
template <int P, int V, int stride>
REVNET_INLINE inline void accumulateProducts(Vec (&sum)[P][V], const float* x, const float* weights, int count) {
  const auto addOne = [&](const auto& multiplyAdd) REVNET_INLINE {
    Vec w[V];
    unrolled<V>([&](auto v) REVNET_INLINE { w[v] = load(weights + v * kLanes); });
    weights += V * kLanes;
    unrolled<P>([&](auto p)
                    REVNET_INLINE { unrolled<V>([&](auto v) REVNET_INLINE { sum[p][v] = multiplyAdd(p, w[v], sum[p][v]); }); });
  };
  int i = 0;
#if defined(REVNET_FMA_BY_LANE)
  // Inputs of a register at a time, each taken from its lane.
  for (; i + kRegisterLanes <= count; i += kRegisterLanes) {
    FloatRegister inputs[P];
    unrolled<P>([&](auto p) REVNET_INLINE { __builtin_memcpy(&inputs[p], x + p * stride + i, sizeof inputs[p]); });
    unrolled<kRegisterLanes>([&](auto lane) REVNET_INLINE {
      addOne([&](auto p, const Vec& w, const Vec& before) REVNET_INLINE { return fmaByLane<lane>(inputs[p], w, before); });
    });
  }
#pragma GCC unroll 1  // fewer than a register's
#endif
  for (; i < count; ++i)
    addOne([&](auto p, const Vec& w, const Vec& before) REVNET_INLINE { return fma(x[p * stride + i], w, before); });
}

// sum[i][v] += x[i] * g[v].
template <int I, int V>
REVNET_INLINE inline void accumulateOuterProduct(Vec (&sum)[I][V], const float* x, const Vec (&g)[V]) {
#if defined(REVNET_FMA_BY_LANE)
  if constexpr (I % kRegisterLanes == 0) {
    unrolled<I / kRegisterLanes>([&](auto r) REVNET_INLINE {
      FloatRegister inputs;
      __builtin_memcpy(&inputs, x + r * kRegisterLanes, sizeof inputs);
      unrolled<kRegisterLanes>([&](auto lane) REVNET_INLINE {
        unrolled<V>([&](auto v) REVNET_INLINE {
          Vec& to = sum[r * kRegisterLanes + lane][v];
          to = fmaByLane<lane>(inputs, g[v], to);
        });
      });
    });
    return;
  }
#endif
  unrolled<I>([&](auto i) REVNET_INLINE {
    const Vec factor = broadcast(x[i]);
    unrolled<V>([&](auto v) REVNET_INLINE { sum[i][v] = fma(factor, g[v], sum[i][v]); });
  });
}

template <int P, int V>
REVNET_INLINE inline void storeTile(const Vec (&sum)[P][V], float* out, size_t rowStride) {
  unrolled<P>([&](auto p) REVNET_INLINE {
    unrolled<V>([&](auto v) REVNET_INLINE { store(out + static_cast<size_t>(p) * rowStride + v * kLanes, sum[p][v]); });
  });
}

}  // namespace revnet::REVNET_ISA

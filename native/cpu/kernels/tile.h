// The register tile in which all products are summed: P rows (pixels, Winograd tiles or input channels) by V vectors of output
// channels. Its size is chosen here for each instruction set, and its inner loops are here.
//
// The loops are inlined always: a sum that is passed by reference to a function lies in memory.
// A tile adds one input channel (or one pixel) after the other, so its size does not show in the bits.
#pragma once

#include <array>
#include <utility>

#include "cpu/kernels/vector.h"

namespace revnet::REVNET_ISA {

// Rows of a tile of V vectors. A tile spans up to kTileVectors vectors, in whose groups packed weights lie (cpu/registers/).
template <int V>
constexpr int tileRows() {
  return kTileAccumulators / (kRegisters * V);
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

#if defined(REVNET_FMA_BY_LANE)
// The factors of four neighbouring inputs, each taken from its lane.
struct FourInputs {
  FloatRegister x;
  explicit FourInputs(const float* p) { __builtin_memcpy(&x, p, sizeof x); }
  template <int lane>
  Vec fma(const Vec& a, const Vec& b) const {
    return eachRegister<float>([&](FloatRegister y, FloatRegister z) { return fmaByLane<lane>(x, y, z); }, a, b);
  }
};
// Calls body(lane) with each lane as a compile-time constant.
template <class Body>
inline void forEachLane(const Body& body) {
  body(std::integral_constant<int, 0>{});
  body(std::integral_constant<int, 1>{});
  body(std::integral_constant<int, 2>{});
  body(std::integral_constant<int, 3>{});
}
#endif

// sum[p][v] += x[p * stride + i] * weights[i][v] for i in [0, count), one i after the other; weights: [count][V vectors].
template <int P, int V, int stride>
[[gnu::always_inline]] inline void accumulateProducts(Vec (&sum)[P][V], const float* x, const float* weights, int count) {
  int i = 0;
  const auto addOne = [&](const auto& multiplyAdd) {
    Vec w[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) w[v] = load(weights + v * kLanes);
    weights += V * kLanes;
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[p][v] = multiplyAdd(p, w[v], sum[p][v]);
  };
#if defined(REVNET_FMA_BY_LANE)
  for (; i + 4 <= count; i += 4) {
    const auto four = [&]<size_t... p>(std::index_sequence<p...>) {
      return std::array<FourInputs, P>{FourInputs(x + static_cast<int>(p) * stride + i)...};
    }
    (std::make_index_sequence<P>{});
    forEachLane([&](auto lane) {
      addOne([&](int p, const Vec& w, const Vec& before) { return four[static_cast<size_t>(p)].template fma<lane>(w, before); });
    });
  }
#endif
  for (; i < count; ++i) addOne([&](int p, const Vec& w, const Vec& before) { return fma(x[p * stride + i], w, before); });
}

// sum[i][v] += x[i] * g[v].
template <int I, int V>
[[gnu::always_inline]] inline void accumulateOuterProduct(Vec (&sum)[I][V], const float* x, const Vec (&g)[V]) {
#if defined(REVNET_FMA_BY_LANE)
  if constexpr (I % 4 == 0) {
#pragma GCC unroll 4
    for (int first = 0; first < I; first += 4) {
      const FourInputs four(x + first);
      forEachLane([&](auto lane) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[first + lane][v] = four.template fma<lane>(g[v], sum[first + lane][v]);
      });
    }
    return;
  }
#endif
#pragma GCC unroll 16
  for (int i = 0; i < I; ++i) {
    const Vec factor = broadcast(x[i]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v] = fma(factor, g[v], sum[i][v]);
  }
}

template <int P, int V>
inline void storeTile(const Vec (&sum)[P][V], float* out, size_t rowStride) {
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(out + static_cast<size_t>(p) * rowStride + v * kLanes, sum[p][v]);
}

}  // namespace revnet::REVNET_ISA

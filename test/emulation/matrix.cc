// The collectives of a warp, written from the fragment tables of the PTX manual ("Warp-level matrix instructions").
#include "emulation/block.h"

namespace revnet::emulation {
namespace {

// Tensor cores read the upper 19 bits of a tf32 operand.
float tf32(uint32_t word) { return __uint_as_float(word & 0xFFFFE000u); }

// d (16 x 8) += a (16 x depth) b (depth x 8). `a(row, k)`, `b(k, column)`. Products are exact; their sum is rounded once. A tensor
// core's own summation order and rounding are not documented: what is compared with this needs a tolerance.
template <int depth, class A, class B>
void multiply(LaneOperands (&lanes)[32], const A& a, const B& b) {
  double left[16][depth], right[depth][8];
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < depth; ++k) left[row][k] = a(row, k);
  for (int k = 0; k < depth; ++k)
    for (int column = 0; column < 8; ++column) right[k][column] = b(k, column);
  for (int row = 0; row < 16; ++row) {
    double sums[8] = {};
    for (int k = 0; k < depth; ++k)
      for (int column = 0; column < 8; ++column) sums[column] += left[row][k] * right[k][column];
    for (int column = 0; column < 8; ++column) {
      // Element (row, column) is d[2 * (row / 8) + column % 2] of the lane of this group and member.
      float& d = static_cast<float*>(lanes[row % 8 * 4 + column / 2].output)[row / 8 * 2 + column % 2];
      d = static_cast<float>(static_cast<double>(d) + sums[column]);
    }
  }
}

}  // namespace

void evaluateNothing(LaneOperands (&)[32]) {}

void evaluateShuffle(LaneOperands (&lanes)[32]) {
  for (int lane = 0; lane < 32; ++lane) {
    const LaneOperands& to = lanes[lane];
    // A source lane outside the warp gives the lane its own value back.
    const int source = lane ^ to.lanes;
    std::memcpy(to.output, lanes[source >= 0 && source < 32 ? source : lane].input, to.bytes);
  }
}

void evaluateLoadMatrices(LaneOperands (&lanes)[32]) {
  for (int lane = 0; lane < 32; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix)
      static_cast<uint32_t*>(lanes[lane].output)[matrix] = lanes[8 * matrix + lane / 4].words[lane % 4];
}

void evaluateLoadMatricesTransposed(LaneOperands (&lanes)[32]) {
  const auto element = [&](int matrix, int row, int column) {
    return lanes[8 * matrix + row].words[column / 2] >> (column % 2 * 16) & 0xFFFFu;
  };
  for (int lane = 0; lane < 32; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix)
      static_cast<uint32_t*>(lanes[lane].output)[matrix] =
          element(matrix, lane % 4 * 2, lane / 4) | element(matrix, lane % 4 * 2 + 1, lane / 4) << 16;
}

void evaluateMultiplyTf32(LaneOperands (&lanes)[32]) {
  multiply<8>(
      lanes,
      // Register i of a: row group + 8 (i % 2), column member + 4 (i / 2).
      [&](int row, int k) { return tf32(lanes[row % 8 * 4 + k % 4].words[row / 8 + k / 4 * 2]); },
      [&](int k, int column) { return tf32(lanes[column * 4 + k % 4].words[4 + k / 4]); });
}

void evaluateMultiplyBfloat16(LaneOperands (&lanes)[32]) {
  // Element k of a row is half k % 2 of its word k / 2.
  const auto half = [](uint32_t word, int k) { return __uint_as_float(k % 2 ? word & 0xFFFF0000u : word << 16); };
  multiply<16>(
      lanes, [&](int row, int k) { return half(lanes[row % 8 * 4 + k / 2 % 4].words[row / 8 + k / 8 * 2], k); },
      [&](int k, int column) { return half(lanes[column * 4 + k / 2 % 4].words[4 + k / 8], k); });
}

}  // namespace revnet::emulation

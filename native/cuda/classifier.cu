// The classifier: a linear layer, and softmax with cross-entropy. A thousandth of a step's work.
//
//   kernel                 computes                                  bytes (once from DRAM)               flops
//   multiply               y = x weight^T + bias                     4 (n in + out in + n out)            2 n in out
//   multiply, of two       dx = dy weight; dweight = dy^T x, dbias   4 (3 n in + 2 n out + 2 out in)      4 n in out
//   softmaxCrossEntropy    loss, correct, dx                         4 n classes + 4 n classes (dx)       6 n classes, 2 exp
//
// multiply: one product, or two in one launch; blocks of 256 threads, one for each tile of the result, 16 x 16 elements or, where
// those would be many, 64 x 64. softmaxCrossEntropy: a warp a row, 8 rows a block. Linear layers are float32 in every precision.
#include "cuda/elementwise.cuh"
#include "cuda/reduce.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

// ---- Linear layer -----------------------------------------------------------------------------------------------------------

// An operand of a product: element (i, j) is data[i * rowStride + j * columnStride].
struct Matrix {
  const float* data;
  int rows, columns;
  int rowStride, columnStride;

  __host__ __device__ Matrix transposed() const { return {data, columns, rows, columnStride, rowStride}; }
  __device__ float at(int i, int j) const {
    return i < rows && j < columns ? data[static_cast<int64_t>(i) * rowStride + static_cast<int64_t>(j) * columnStride] : 0.0f;
  }
};
Matrix rowMajor(const float* data, int rows, int columns) { return {data, rows, columns, columns, 1}; }

constexpr int kEdge = 16;   // of the threads of a block
constexpr int kDepth = 32;  // of the sum, between barriers

// A tile [kEdge * each][kDepth] of a matrix, at (i, k), into shared memory [kDepth][pitch]. Neighbouring threads read neighbouring
// addresses, whichever way they lie.
template <int each>
__device__ void loadTile(const Matrix& of, int i, int k, float* tile) {
  constexpr int kTile = kEdge * each, kPitch = kTile + 1;
  for (int element = static_cast<int>(threadIdx.x); element < kTile * kDepth; element += kThreads) {
    const bool alongRow = of.columnStride == 1;
    const int row = alongRow ? element / kDepth : element % kTile, column = alongRow ? element % kDepth : element / kTile;
    tile[column * kPitch + row] = of.at(i + row, k + column);
  }
}

// c [a.rows][b.columns] = a b + bias, overwritten; bias [b.columns], or null. rowSums [a.rows], or null: of a, overwritten.
struct Product {
  Matrix a, b;
  const float* bias;
  float *c, *rowSums;

  constexpr int64_t elements() const { return int64_t{a.rows} * b.columns; }
};
struct Products {
  Product list[2];
};

// Product blockIdx.z. A thread sums each x each elements, kEdge apart, each over k in ascending order: the bits do not depend on
// the tile.
template <int each>
__global__ void multiply(Products products) {
  waitForPrevious();
  const auto& [a, b, bias, c, rowSums] = products.list[blockIdx.z];
  constexpr int kTile = kEdge * each, kPitch = kTile + 1;
  float* aTile = reinterpret_cast<float*>(sharedMemory());
  float* bTile = aTile + kDepth * kPitch;
  const int x = static_cast<int>(threadIdx.x) % kEdge, y = static_cast<int>(threadIdx.x) / kEdge;
  const int row = static_cast<int>(blockIdx.y) * kTile, column = static_cast<int>(blockIdx.x) * kTile;
  if (row >= a.rows || column >= b.columns) return;  // the other product is larger

  float sum[each][each] = {}, aSum[each] = {};
  for (int k = 0; k < a.columns; k += kDepth) {
    loadTile<each>(a, row, k, aTile);
    loadTile<each>(b.transposed(), column, k, bTile);
    syncBlock();
#pragma unroll 8
    for (int l = 0; l < kDepth; ++l) {
      float left[each], right[each];
      for (int i = 0; i < each; ++i) left[i] = aTile[l * kPitch + y + i * kEdge];
      for (int j = 0; j < each; ++j) right[j] = bTile[l * kPitch + x + j * kEdge];
      for (int i = 0; i < each; ++i) {
        aSum[i] += left[i];
        for (int j = 0; j < each; ++j) sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
      }
    }
    syncBlock();
  }

  for (int i = 0; i < each; ++i) {
    const int m = row + y + i * kEdge;
    if (m >= a.rows) continue;
    for (int j = 0; j < each; ++j) {
      const int n = column + x + j * kEdge;
      if (n < b.columns) c[static_cast<int64_t>(m) * b.columns + n] = sum[i][j] + (bias ? bias[n] : 0.0f);
    }
    if (rowSums && column == 0 && x == 0) rowSums[m] = aSum[i];
  }
}

template <size_t count>
void enqueueProducts(const Context& context, const Product (&products)[count]) {
  Products list{};
  int rows = 0, columns = 0;
  int64_t elements = 0;
  for (size_t i = 0; i < count; ++i) {
    list.list[i] = products[i];
    rows = std::max(rows, products[i].a.rows), columns = std::max(columns, products[i].b.columns);
    elements = std::max(elements, products[i].elements());
  }
  const auto enqueue = [&](auto constant) {
    constexpr int each = decltype(constant)::value, tile = kEdge * each;
    launch(context.stream, multiply<each>, dim3(blocksFor(columns, tile), blocksFor(rows, tile), count), kThreads,
           sizeof(float) * 2 * kDepth * (tile + 1), list);
  };
  // Small tiles give a small product enough blocks; large ones read less.
  constexpr int64_t kManyElements = 1 << 17;
  if (elements >= kManyElements)
    enqueue(std::integral_constant<int, 4>{});
  else
    enqueue(std::integral_constant<int, 1>{});
}

// ---- Softmax and cross-entropy ----------------------------------------------------------------------------------------------

struct SoftmaxArguments {
  int n, classes;
  const float* x;     // [n][classes]
  const int* labels;  // [n]
  float *loss, *dx;   // [1], [n][classes]: overwritten; dx may be null
  int* correct;       // [1] overwritten
  __device__ bool counts(int label) const { return label >= 0 && label < classes; }
};

constexpr int kRows = kThreads / kWarp;  // of a block

// The largest logit and its class, the first one of equals. NaN wins over all: it has to reach the loss.
struct Largest {
  float logit;
  int index;
  __device__ void take(const Largest& other) {
    const bool isNan = other.logit != other.logit;
    if (other.logit > logit || isNan || (other.logit == logit && other.index < index)) *this = other;
  }
};

__device__ inline float sumOverWarp(float value) {
  for (int lanes = 1; lanes < kWarp; lanes *= 2) value += shuffleXor(value, lanes);
  return value;
}

// The number of rows that count. All threads of the block take part. `ofWarps`: [kRows], shared memory.
__device__ inline int countRows(const SoftmaxArguments& of, int* ofWarps) {
  int count = 0;
  for (int row = static_cast<int>(threadIdx.x); row < of.n; row += kThreads) count += of.counts(of.labels[row]);
  for (int lanes = 1; lanes < kWarp; lanes *= 2) count += shuffleXor(count, lanes);
  if (threadIdx.x % kWarp == 0) ofWarps[threadIdx.x / kWarp] = count;
  syncBlock();
  count = 0;
  for (int warp = 0; warp < kRows; ++warp) count += ofWarps[warp];
  return count;
}

// One row, by one warp: its loss, whether its label's logit is the largest, and its dx (divided by `counted`). Works with the sums
// of all exponentials but the largest, and but the label's: what is near 1, or is subtracted from 1, would lose what matters.
__device__ inline void softmaxRow(const SoftmaxArguments& of, int row, int label, float counted, float& loss, float& hit) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float* x = of.x + static_cast<int64_t>(row) * of.classes;
  Largest largest{lane < of.classes ? x[lane] : -INFINITY, lane};
  for (int j = lane + kWarp; j < of.classes; j += kWarp) largest.take({x[j], j});
  for (int lanes = 1; lanes < kWarp; lanes *= 2) largest.take({shuffleXor(largest.logit, lanes), shuffleXor(largest.index, lanes)});

  float otherThanLargest = 0, otherThanLabel = 0;
  for (int j = lane; j < of.classes; j += kWarp) {
    const float e = expf(x[j] - largest.logit);
    if (j != largest.index) otherThanLargest += e;
    if (j != label) otherThanLabel += e;
  }
  otherThanLargest = sumOverWarp(otherThanLargest);
  otherThanLabel = sumOverWarp(otherThanLabel);
  loss = log1pf(otherThanLargest) + (largest.logit - x[label]);
  hit = largest.index == label ? 1.0f : 0.0f;

  if (of.dx == nullptr) return;
  float* dx = of.dx + static_cast<int64_t>(row) * of.classes;
  const float sum = 1.0f + otherThanLargest;
  for (int j = lane; j < of.classes; j += kWarp)
    dx[j] = (j == label ? -otherThanLabel : expf(x[j] - largest.logit)) / sum / counted;
}

// rows [n]: scratch for each row's loss and hit.
__global__ void softmaxCrossEntropy(SoftmaxArguments of, ChannelPartials rows, unsigned* counter) {
  waitForPrevious();
  auto* totals = reinterpret_cast<float4*>(sharedMemory());
  auto* word = reinterpret_cast<unsigned*>(totals + kThreads);
  auto* ofWarps = reinterpret_cast<int*>(totals);
  const int counted = countRows(of, ofWarps);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row = static_cast<int>(blockIdx.x) * kRows + static_cast<int>(threadIdx.x) / kWarp;
  if (row < of.n) {
    const int label = of.labels[row];
    float loss = 0, hit = 0;
    if (of.counts(label)) {
      softmaxRow(of, row, label, static_cast<float>(counted), loss, hit);
    } else if (of.dx != nullptr) {
      for (int j = lane; j < of.classes; j += kWarp) of.dx[static_cast<int64_t>(row) * of.classes + j] = 0;
    }
    if (lane == 0) rows.at(row, 0) = make_float2(loss, hit);
  }
  if (!isLastBlock(counter, gridDim.x, word)) return;
  forEachPairTotal(rows, 0, 1, totals, [&](int, float loss, float hits) {
    *of.loss = counted > 0 ? loss / static_cast<float>(counted) : 0.0f;
    *of.correct = static_cast<int>(hits);  // exact: there are at most kMaxRows
  });
}

struct SoftmaxLayout {
  ChannelPartials rows;
  SoftmaxLayout(const SoftmaxCrossEntropy& op, Carver& carver) : rows{carver.take<float2>(static_cast<size_t>(op.n)), op.n, 1} {}
};

}  // namespace

void run(const LinearForward& op, const Context& context) {
  const Matrix x = rowMajor(context.at<const float>(op.x), op.n, op.in);
  const Matrix weight = rowMajor(context.at<const float>(op.weight), op.out, op.in);
  enqueueProducts(context, {{x, weight.transposed(), context.at<const float>(op.bias), context.at<float>(op.y), nullptr}});
}

void run(const LinearBackward& op, const Context& context) {
  const Matrix x = rowMajor(context.at<const float>(op.x), op.n, op.in);
  const Matrix weight = rowMajor(context.at<const float>(op.weight), op.out, op.in);
  const Matrix dy = rowMajor(context.at<const float>(op.dy), op.n, op.out);
  enqueueProducts(context,
                  {{dy, weight, nullptr, context.at<float>(op.dx), nullptr},
                   {dy.transposed(), x, nullptr, context.at<float>(op.weightGradient), context.at<float>(op.biasGradient)}});
}

size_t workspaceBytes(const SoftmaxCrossEntropy& op, Precision) { return carvedBytes<SoftmaxLayout>(op); }

void run(const SoftmaxCrossEntropy& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const SoftmaxLayout layout(op, carver);
  const SoftmaxArguments arguments{op.n,
                                   op.classes,
                                   context.at<const float>(op.x),
                                   context.at<const int>(op.labels),
                                   context.at<float>(op.loss),
                                   context.at<float>(op.dx),
                                   context.at<int>(op.correct)};
  launch(context.stream, softmaxCrossEntropy, dim3(blocksFor(op.n, kRows)), kThreads, sizeof(float4) * kThreads + sizeof(unsigned),
         arguments, layout.rows, context.counters);
}

}  // namespace revnet::cuda

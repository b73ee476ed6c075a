// Flat passes over whole buffers: the optimizer, copies, and the comparison of streams.
//
//   kernel               computes                                    bytes an element                 flops   blocks of 256 threads
//   sgdUpdate            m = momentum m + g', p -= rate m            12 (p, g, m) + 8 (p, m)          6       elements / 1024
//   adamwUpdate          ops.h                                       16 (p, g, mean, square) + 12     14       elements / 1024
//   gradientNorm         sum of g g by block                         4                                2       at most 1024
//   clipGradients        sum of these; g *= min(1, max / norm)       4 + 4                            1       at most 1024
//   copy                 y = x                                       4 + 4                            0       elements / 4096
//   maximumDifference    max |a - b|, in two stages                  8                                2       at most 1024
#include "cuda/elementwise.cuh"
#include "cuda/reduce.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

// Of the elements that a thread takes, those of its `index`-th access start here: neighbours in a warp are neighbours in memory.
template <int width>
__device__ int64_t elementOf(int accesses, int index) {
  return ((static_cast<int64_t>(blockIdx.x) * accesses + index) * kThreads + threadIdx.x) * width;
}

// parameters, momenta: updated. hyperparameters [4]: learning rate, momentum, weight decay of the first `decayed` elements,
// whether the momentum is Nesterov's.
// notFinite [1]: set where a parameter is not finite; or null.
template <int width>
__global__ void sgdUpdate(float* parameters, const float* gradients, float* momenta, const float* hyperparameters, int64_t elements,
                          int64_t decayed, int* notFinite) {
  waitForPrevious();
  const int64_t first = elementOf<width>(1, 0);
  const int64_t count = elements - first;
  if (count <= 0) return;
  Vector<width> p = loadUpTo<width>(count, parameters + first), m = loadUpTo<width>(count, momenta + first);
  const Vector<width> g = loadUpTo<width>(count, gradients + first);
  const float learningRate = hyperparameters[0], momentum = hyperparameters[1], weightDecay = hyperparameters[2];
  const bool nesterov = hyperparameters[3] != 0.0f;
  for (int i = 0; i < width; ++i) {
    const float gradient = first + i < decayed ? fmaf(weightDecay, p.v[i], g.v[i]) : g.v[i];
    m.v[i] = fmaf(momentum, m.v[i], gradient);
    p.v[i] = fmaf(-learningRate, nesterov ? fmaf(momentum, m.v[i], gradient) : m.v[i], p.v[i]);
    checkFinite(p.v[i], notFinite);
  }
  storeUpTo(count, momenta + first, m);
  storeUpTo(count, parameters + first, p);
}

// parameters, mean, square: updated. hyperparameters: AdamwUpdate's. notFinite as above.
template <int width>
__global__ void adamwUpdate(float* parameters, const float* gradients, float* mean, float* square, const float* hyperparameters,
                            int64_t elements, int64_t decayed, int* notFinite) {
  waitForPrevious();
  const int64_t first = elementOf<width>(1, 0);
  const int64_t count = elements - first;
  if (count <= 0) return;
  Vector<width> p = loadUpTo<width>(count, parameters + first);
  Vector<width> m = loadUpTo<width>(count, mean + first), s = loadUpTo<width>(count, square + first);
  const Vector<width> g = loadUpTo<width>(count, gradients + first);
  const float shrink = hyperparameters[0], stepSize = hyperparameters[1];
  const float beta1 = hyperparameters[2], rest1 = hyperparameters[3], beta2 = hyperparameters[4], rest2 = hyperparameters[5];
  const float correction = hyperparameters[6], epsilon = hyperparameters[7];
  for (int i = 0; i < width; ++i) {
    m.v[i] = fmaf(rest1, g.v[i], beta1 * m.v[i]);
    s.v[i] = fmaf(rest2 * g.v[i], g.v[i], beta2 * s.v[i]);
    const float kept = first + i < decayed ? fmaf(-shrink, p.v[i], p.v[i]) : p.v[i];
    p.v[i] = fmaf(-stepSize, m.v[i] / (sqrtf(s.v[i]) / correction + epsilon), kept);
    checkFinite(p.v[i], notFinite);
  }
  storeUpTo(count, mean + first, m);
  storeUpTo(count, square + first, s);
  storeUpTo(count, parameters + first, p);
}

// Of the block's threads, by a tree; in all threads. `sums`: [kThreads], shared memory.
__device__ inline double sumOfBlock(double value, double* sums) {
  sums[threadIdx.x] = value;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    syncBlock();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  syncBlock();
  return sums[0];
}

// partials: [gridDim.x] overwritten. In float64, where squares neither overflow nor vanish.
__global__ void gradientNorm(const float* gradients, int64_t elements, double* partials) {
  waitForPrevious();
  double sum = 0;
  for (int64_t i = elementOf<1>(1, 0); i < elements; i += static_cast<int64_t>(gridDim.x) * kThreads)
    sum += static_cast<double>(gradients[i]) * static_cast<double>(gradients[i]);
  sum = sumOfBlock(sum, reinterpret_cast<double*>(sharedMemory()));
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// gradients: updated; norm [1] overwritten. partials: [gridDim.x], which each block adds for itself, in the same order.
__global__ void clipGradients(float* gradients, int64_t elements, double maxNorm, const double* partials, float* norm) {
  waitForPrevious();
  double sum = 0;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += kThreads) sum += partials[i];
  const double root = sqrt(sumOfBlock(sum, reinterpret_cast<double*>(sharedMemory())));
  const auto factor = static_cast<float>(ClipGradientNorm::factor(maxNorm, root));
  for (int64_t i = elementOf<1>(1, 0); i < elements; i += static_cast<int64_t>(gridDim.x) * kThreads) gradients[i] *= factor;
  if (blockIdx.x == 0 && threadIdx.x == 0) *norm = static_cast<float>(root);
}

constexpr int kCopies = 4;  // accesses of a thread, all loaded before the first is stored

// y: overwritten. Bits move as floats, which changes none.
template <int width>
__global__ void copy(const float* x, float* y, int64_t elements) {
  waitForPrevious();
  Vector<width> v[kCopies];
#pragma unroll
  for (int i = 0; i < kCopies; ++i) {
    const int64_t first = elementOf<width>(kCopies, i);
    if (first < elements) v[i] = loadUpTo<width>(elements - first, x + first);
  }
#pragma unroll
  for (int i = 0; i < kCopies; ++i) {
    const int64_t first = elementOf<width>(kCopies, i);
    if (first < elements) storeUpTo(elements - first, y + first, v[i]);
  }
}

// NaN wins over all, and stays.
__device__ inline float larger(float a, float b) { return b > a || b != b ? b : a; }

// Of the block's threads, in a fixed order; valid in thread 0. `sums`: [kThreads / kWarp], shared memory.
__device__ inline float largestOfBlock(float value, float* ofWarps) {
  for (int lanes = 1; lanes < kWarp; lanes *= 2) value = larger(value, shuffleXor(value, lanes));
  if (threadIdx.x % kWarp == 0) ofWarps[threadIdx.x / kWarp] = value;
  syncBlock();
  if (threadIdx.x == 0)
    for (int warp = 1; warp < kThreads / kWarp; ++warp) value = larger(value, ofWarps[warp]);
  return value;
}

__device__ inline float distance(float a, float b) { return fabsf(a - b); }
// Exact in unsigned numbers, rounded once.
__device__ inline float distance(int a, int b) {
  const auto ua = static_cast<unsigned>(a), ub = static_cast<unsigned>(b);
  return static_cast<float>(a > b ? ua - ub : ub - ua) * kFixedStep;
}

// y [1] overwritten; partials: [gridDim.x]
template <class T>
__global__ void maximumDifference(const T* a, const T* b, int64_t elements, float* partials, unsigned* counter, float* y) {
  waitForPrevious();
  auto* ofWarps = reinterpret_cast<float*>(sharedMemory());
  auto* word = reinterpret_cast<unsigned*>(ofWarps + kThreads / kWarp);
  float largest = 0;
#pragma unroll 4
  for (int64_t i = elementOf<1>(1, 0); i < elements; i += static_cast<int64_t>(gridDim.x) * kThreads)
    largest = larger(largest, distance(a[i], b[i]));
  largest = largestOfBlock(largest, ofWarps);
  if (threadIdx.x == 0) partials[blockIdx.x] = largest;
  if (!isLastBlock(counter, gridDim.x, word)) return;

  largest = 0;
  for (unsigned block = threadIdx.x; block < gridDim.x; block += kThreads) largest = larger(largest, loadFresh(partials + block));
  largest = largestOfBlock(largest, ofWarps);
  if (threadIdx.x == 0) *y = largest;
}

// Of passes in which a block takes several times its threads' elements.
template <class Op>
unsigned stridingBlocks(const Op& op) {
  constexpr int64_t kMost = 1024;
  return static_cast<unsigned>(std::clamp<int64_t>((op.elements + 4 * kThreads - 1) / (4 * kThreads), 1, kMost));
}

struct MaximumDifferenceLayout {
  float* partials;  // [blocks]
  MaximumDifferenceLayout(const MaximumDifference& op, Carver& carver) : partials(carver.take<float>(stridingBlocks(op))) {}
};

struct ClipGradientNormLayout {
  double* partials;  // [blocks]
  ClipGradientNormLayout(const ClipGradientNorm& op, Carver& carver) : partials(carver.take<double>(stridingBlocks(op))) {}
};

}  // namespace

void run(const SgdUpdate& op, const Context& context) {
  if (op.elements == 0) return;
  float *parameters = context.at<float>(op.parameters), *momenta = context.at<float>(op.momenta);
  const float *gradients = context.at<const float>(op.gradients), *hyperparameters = context.at<const float>(op.hyperparameters);
  withWidth(isAligned(parameters, momenta, gradients), [&](auto constant) {
    constexpr int width = decltype(constant)::value;
    launch(context.stream, sgdUpdate<width>, dim3(blocksFor(op.elements, kThreads * width)), kThreads, 0, parameters, gradients,
           momenta, hyperparameters, op.elements, op.decayed, context.at<int>(op.notFinite));
  });
}

void run(const AdamwUpdate& op, const Context& context) {
  if (op.elements == 0) return;
  auto *parameters = context.at<float>(op.parameters), *mean = context.at<float>(op.mean), *square = context.at<float>(op.square);
  const float *gradients = context.at<const float>(op.gradients), *hyperparameters = context.at<const float>(op.hyperparameters);
  withWidth(isAligned(parameters, mean, square, gradients), [&](auto constant) {
    constexpr int width = decltype(constant)::value;
    launch(context.stream, adamwUpdate<width>, dim3(blocksFor(op.elements, kThreads * width)), kThreads, 0, parameters, gradients,
           mean, square, hyperparameters, op.elements, op.decayed, context.at<int>(op.notFinite));
  });
}

size_t workspaceBytes(const ClipGradientNorm& op, Precision) { return carvedBytes<ClipGradientNormLayout>(op); }

void run(const ClipGradientNorm& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const ClipGradientNormLayout layout(op, carver);
  float* gradients = context.at<float>(op.gradients);
  const dim3 grid(stridingBlocks(op));
  const size_t shared = kThreads * sizeof(double);
  launch(context.stream, gradientNorm, grid, kThreads, shared, gradients, op.elements, layout.partials);
  launch(context.stream, clipGradients, grid, kThreads, shared, gradients, op.elements, op.maxNorm, layout.partials,
         context.at<float>(op.norm));
}

void run(const Copy& op, const Context& context) {
  if (op.elements == 0) return;
  const float* x = context.at<const float>(op.x);
  float* y = context.at<float>(op.y);
  withWidth(isAligned(x, y), [&](auto constant) {
    constexpr int width = decltype(constant)::value;
    launch(context.stream, copy<width>, dim3(blocksFor(op.elements, kThreads * width * kCopies)), kThreads, 0, x, y, op.elements);
  });
}

size_t workspaceBytes(const MaximumDifference& op, Precision) { return carvedBytes<MaximumDifferenceLayout>(op); }

void run(const MaximumDifference& op, const Context& context) {
  Carver carver(context.memory.workspace);
  const MaximumDifferenceLayout layout(op, carver);
  const auto compare = [&](const auto* a, const auto* b) {
    using T = std::remove_cvref_t<decltype(*a)>;
    launch(context.stream, maximumDifference<T>, dim3(stridingBlocks(op)), kThreads,
           sizeof(float) * (kThreads / kWarp) + sizeof(unsigned), a, b, op.elements, layout.partials, context.counters,
           context.at<float>(op.y));
  };
  if (context.memory.isFixed(op.a))
    compare(context.at<const int>(op.a), context.at<const int>(op.b));
  else
    compare(context.at<const float>(op.a), context.at<const float>(op.b));
}

}  // namespace revnet::cuda

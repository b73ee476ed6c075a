// From a data set's bytes to a batch of normalised, shifted and mirrored images.
//
//   kernel         computes                                             bytes an element         flops   blocks of 256 threads
//   gatherBatch    y = (crop(images[index]) - mean) * scale, and the    1 (image) + 4 (y);       2       images x h w c / 1024
//                  batch's labels                                       the mean stays in L2
#include "core/philox.h"
#include "cuda/elementwise.cuh"
#include "cuda/run.h"

namespace revnet::cuda {
namespace {

struct GatherArguments {
  Extent extent;  // of the batch
  int count, padding;
  bool flip;
  float scale;
  const uint8_t* images;        // [count][h][w][c]
  const int *labels, *indices;  // [count], [n]
  const float* mean;            // [h][w][c]
  const int* counter;           // [4], see drawAugmentation
  float* y;                     // [n][h][w][c] overwritten
  int* yLabels;                 // [n] overwritten
  int* notFinite;               // [1] set where an element of y is not finite; or null
};

constexpr int kElements = 4;  // of a thread, neighbours

// A block works on one image; `chunks` blocks share it.
template <bool vectors>
__global__ void gatherBatch(GatherArguments of, int chunks) {
  waitForPrevious();
  const int sample = static_cast<int>(blockIdx.x) / chunks, chunk = static_cast<int>(blockIdx.x) % chunks;
  const int h = of.extent.h, w = of.extent.w, c = of.extent.c;
  const int64_t elements = static_cast<int64_t>(h) * w * c;
  auto* draw = reinterpret_cast<Augmentation*>(sharedMemory());
  const int index = of.indices[sample];
  const bool present = index >= 0 && index < of.count;
  if (threadIdx.x == 0) {
    *draw = drawAugmentation(of.counter, static_cast<uint32_t>(sample), of.padding, of.flip);
    if (chunk == 0) of.yLabels[sample] = present ? of.labels[index] : -1;
  }
  syncBlock();

  const int64_t first = (static_cast<int64_t>(chunk) * kThreads + threadIdx.x) * kElements;
  if (first >= elements) return;
  const int down = draw->row - of.padding, right = draw->column - of.padding;  // where the crop starts in the image
  const bool flip = draw->flip;
  const uint8_t* image = of.images + (present ? index : 0) * elements;
  int channel = static_cast<int>(first % c), column = static_cast<int>(first / c % w), row = static_cast<int>(first / c / w);

  Vector<kElements> y{};
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    // The crop is taken from the padded image first and mirrored then.
    const int fromRow = row + down, fromColumn = (flip ? w - 1 - column : column) + right;
    if (present && first + i < elements && fromRow >= 0 && fromRow < h && fromColumn >= 0 && fromColumn < w) {
      const int64_t from = (static_cast<int64_t>(fromRow) * w + fromColumn) * c + channel;
      y.v[i] = (static_cast<float>(image[from]) - of.mean[from]) * of.scale;
      checkFinite(y.v[i], of.notFinite);
    }
    if (++channel == c) {
      channel = 0;
      if (++column == w) {
        column = 0;
        ++row;
      }
    }
  }
  float* to = of.y + sample * elements + first;
  if constexpr (vectors)
    store(to, y);
  else
    for (int i = 0; i < kElements && first + i < elements; ++i) to[i] = y.v[i];
}

}  // namespace

void run(const GatherBatch& op, const Context& context) {
  const int64_t elements = int64_t{op.extent.h} * op.extent.w * op.extent.c;
  const GatherArguments arguments{op.extent,
                                  op.count,
                                  op.padding,
                                  op.flip,
                                  static_cast<float>(op.scale),
                                  context.at<const uint8_t>(op.images),
                                  context.at<const int>(op.labels),
                                  context.at<const int>(op.indices),
                                  context.at<const float>(op.mean),
                                  context.at<const int>(op.counter),
                                  context.at<float>(op.y),
                                  context.at<int>(op.yLabels),
                                  context.at<int>(op.notFinite)};
  const unsigned chunks = blocksFor(elements, int64_t{kThreads} * kElements);
  const bool vectors = elements % kElements == 0 && isAligned(arguments.y);
  launch(context.stream, vectors ? gatherBatch<true> : gatherBatch<false>, dim3(static_cast<unsigned>(op.extent.n) * chunks),
         kThreads, sizeof(Augmentation), arguments, chunks);
}

}  // namespace revnet::cuda

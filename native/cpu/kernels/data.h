// From a data set's bytes to a batch of normalised, shifted and mirrored images.
#pragma once

#include <cstring>

#include "core/ops.h"
#include "core/philox.h"
#include "cpu/kernels/finite.h"
#include "cpu/kernels/vector.h"
#include "cpu/thread_pool.h"

namespace revnet::REVNET_ISA {

inline void run(const GatherBatch& op, const Memory& memory, ThreadPool& pool) {
  const int h = op.extent.h, w = op.extent.w, c = op.extent.c;
  const size_t pixel = static_cast<size_t>(c), row = static_cast<size_t>(w) * pixel, image = static_cast<size_t>(h) * row;
  const uint8_t* images = memory.at<const uint8_t>(op.images);
  const float* mean = memory.at<const float>(op.mean);
  const int32_t *indices = memory.at<const int32_t>(op.indices), *labels = memory.at<const int32_t>(op.labels);
  const auto scale = static_cast<float>(op.scale);

  NotFinite notFinite;
  pool.parallelFor(op.extent.n, [&](int n, int) {
    float* y = memory.at<float>(op.y) + static_cast<size_t>(n) * image;
    std::memset(y, 0, image * sizeof(float));
    const int index = indices[n];
    const bool valid = index >= 0 && index < op.count;
    memory.at<int32_t>(op.yLabels)[n] = valid ? labels[index] : -1;
    if (!valid) return;
    const uint8_t* from = images + static_cast<size_t>(index) * image;
    const Augmentation draw = drawAugmentation(memory.at<const int32_t>(op.counter), static_cast<uint32_t>(n), op.padding, op.flip);
    const int down = draw.row - op.padding, right = draw.column - op.padding;  // where the crop starts in the image
    bool finite = true;
    for (int i = maxOf(0, -down); i < minOf(h, h - down); ++i) {
      for (int j = maxOf(0, -right); j < minOf(w, w - right); ++j) {
        const size_t in = static_cast<size_t>(i + down) * row + static_cast<size_t>(j + right) * pixel;
        float* to = y + static_cast<size_t>(i) * row + static_cast<size_t>(draw.flip ? w - 1 - j : j) * pixel;
        for (size_t k = 0; k < pixel; ++k) {
          to[k] = (static_cast<float>(from[in + k]) - mean[in + k]) * scale;
          finite &= isFinite(to[k]);
        }
      }
    }
    notFinite.note(finite);
  });
  notFinite.write(memory, op.notFinite);
}

}  // namespace revnet::REVNET_ISA

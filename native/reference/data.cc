// From bytes to normalised, augmented images.
#include <algorithm>

#include "core/philox.h"
#include "run.h"

namespace revnet::reference {

void run(const Context& context, const GatherBatch& op) {
  const auto& [n, h, w, c] = op.extent;
  const int64_t image = int64_t{h} * w * c;
  const auto images = context.bytes(op.images, op.count * image);
  const auto labels = context.indices(op.labels, op.count), indices = context.indices(op.indices, n);
  const View mean = context.reals(op.mean, image);
  const auto counter = context.indices(op.counter, 4), yLabels = context.indices(op.yLabels, n);
  const MutableView y = context.reals(op.y, op.extent.elements());
  std::fill(y.begin(), y.end(), 0.0);
  for (int i = 0; i < n; ++i) {
    const int64_t index = indices[i];
    const bool present = index >= 0 && index < op.count;
    yLabels[i] = present ? labels[index] : -1;
    if (!present) continue;
    // The crop is taken from the padded image first and mirrored then.
    const auto [rowShift, columnShift, flipped] = drawAugmentation(counter.data(), static_cast<uint32_t>(i), op.padding, op.flip);
    for (int64_t row = 0; row < h; ++row) {
      for (int64_t column = 0; column < w; ++column) {
        const int64_t fromRow = row + rowShift - op.padding;
        const int64_t fromColumn = (flipped ? w - 1 - column : column) + columnShift - op.padding;
        if (fromRow < 0 || fromRow >= h || fromColumn < 0 || fromColumn >= w) continue;
        for (int64_t j = 0; j < c; ++j) {
          const int64_t from = (fromRow * w + fromColumn) * c + j;
          y[i * image + (row * w + column) * c + j] = (images[index * image + from] - mean[from]) * op.scale;
        }
      }
    }
  }
  context.checkFinite(y, op.notFinite);
}

}  // namespace revnet::reference

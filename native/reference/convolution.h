// The three passes of a convolution. x: [n][h][w][c]  weight: [kernel][kernel][c][k]  y: [n][outH][outW][k]
#pragma once

#include "context.h"
#include "core/convolution.h"

namespace revnet::reference {

// Calls visit(in, tap, out) for every input pixel that a tap of the kernel connects to an output pixel: pixels are numbered
// (image * height + row) * width + column, taps row * kernel + column. All taps of an output pixel come in order, one after the
// other. What lies in the padding is zero and is left out.
template <class Visit>
void forEachTap(const Context& context, const Convolution& shape, Visit visit) {
  for (int image = 0; image < shape.n; ++image) {
    context.checkCancelled();
    for (int outRow = 0; outRow < shape.outH(); ++outRow) {
      for (int outColumn = 0; outColumn < shape.outW(); ++outColumn) {
        const int64_t out = (int64_t{image} * shape.outH() + outRow) * shape.outW() + outColumn;
        for (int tap = 0; tap < shape.taps(); ++tap) {
          const int row = outRow * shape.stride - shape.padding() + tap / shape.kernel;
          const int column = outColumn * shape.stride - shape.padding() + tap % shape.kernel;
          if (row < 0 || row >= shape.h || column < 0 || column >= shape.w) continue;
          visit((int64_t{image} * shape.h + row) * shape.w + column, tap, out);
        }
      }
    }
  }
}

// y = convolution(x)
Values convolutionForward(const Context& context, const Convolution& shape, View x, View weight);
// dx: the transpose of the convolution, applied to dy
Values convolutionBackwardData(const Context& context, const Convolution& shape, View weight, View dy);
// weightGradient = sum over images and output pixels of x times dy; overwritten
void convolutionBackwardWeights(const Context& context, const Convolution& shape, View x, View dy, MutableView weightGradient);

}  // namespace revnet::reference

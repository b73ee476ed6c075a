// Pooling and the parameter-free shortcut.
#include <algorithm>
#include <cmath>
#include <limits>

#include "convolution.h"
#include "norm.h"
#include "run.h"

namespace revnet::reference {
namespace {

// Calls visit(x element, y element) for each pair that the shortcut connects, with weight 1 / stride^2.
template <class Visit>
void forEachShortcut(const PoolShortcut& shortcut, Visit visit) {
  const auto& [n, h, w, c] = shortcut.extent;
  const int64_t outH = h / shortcut.stride, outW = w / shortcut.stride, before = (shortcut.k - c) / 2;
  for (int64_t in = 0; in < shortcut.extent.pixels(); ++in) {
    const int64_t image = in / (int64_t{h} * w), row = in / w % h, column = in % w;
    const int64_t out = (image * outH + row / shortcut.stride) * outW + column / shortcut.stride;
    for (int64_t j = 0; j < c; ++j) visit(in * c + j, out * shortcut.k + before + j);
  }
}

// A max pool connects pixels as a 3x3 convolution of stride 2 does.
Convolution maxPoolWindow(const Extent& extent) { return {extent.n, extent.h, extent.w, extent.c, extent.c, 3, 2}; }

}  // namespace

void run(const Context& context, const ShortcutForward& op) {
  const double area = static_cast<double>(op.shortcut.stride) * op.shortcut.stride;
  const Values x = context.stream(op.x, op.shortcut.extent.elements());
  Values y(static_cast<size_t>(op.shortcut.outputElements()), 0.0);
  forEachShortcut(op.shortcut, [&](int64_t in, int64_t out) { y[out] += x[in]; });
  for (double& value : y) value /= area;
  context.store(op.y, y);
}

void run(const Context& context, const ShortcutBackward& op) {
  const double area = static_cast<double>(op.shortcut.stride) * op.shortcut.stride;
  const View dy = context.reals(op.dy, op.shortcut.outputElements());
  Values dx(static_cast<size_t>(op.shortcut.extent.elements()));
  forEachShortcut(op.shortcut, [&](int64_t in, int64_t out) { dx[in] = dy[out] / area; });
  context.store(op.dx, dx);
}

void run(const Context& context, const MaxPoolForward& op) {
  const int c = op.extent.c;
  const Values x = normForward(context, op.norm, c, context.reals(op.x, op.extent.elements()));
  Values y(static_cast<size_t>(op.outputElements()), -std::numeric_limits<double>::infinity());
  const auto argmax = context.bytes(op.argmax, op.outputElements());
  forEachTap(context, maxPoolWindow(op.extent), [&](int64_t in, int tap, int64_t out) {
    for (int j = 0; j < c; ++j) {
      const double value = x[in * c + j];
      double& best = y[out * c + j];
      if (!(value > best || std::isnan(value))) continue;
      best = value;
      argmax[out * c + j] = static_cast<uint8_t>(tap);
    }
  });
  storeChannels(context, op.y, y, c, op.outOfRange);
}

void run(const Context& context, const MaxPoolBackward& op) {
  const int c = op.extent.c;
  const Values dy = joinChannels(context, op.dy, op.outputElements() / c, c);
  const auto argmax = context.bytes(op.argmax, op.outputElements());
  const MutableView dx = context.reals(op.dx, op.extent.elements());
  std::fill(dx.begin(), dx.end(), 0.0);
  forEachTap(context, maxPoolWindow(op.extent), [&](int64_t in, int tap, int64_t out) {
    for (int j = 0; j < c; ++j)
      if (argmax[out * c + j] == tap) dx[in * c + j] += dy[out * c + j];
  });
}

void run(const Context& context, const GlobalAveragePoolForward& op) {
  const auto& [n, h, w, c] = op.extent;
  const int64_t area = int64_t{h} * w, parts = static_cast<int64_t>(op.parts.size());
  const MutableView y = context.reals(op.y, parts * n * c);
  std::fill(y.begin(), y.end(), 0.0);
  for (int64_t part = 0; part < parts; ++part) {
    const auto& [norm, operand] = op.parts[part];
    const Values x = normForward(context, norm, c, context.stream(operand, op.extent.elements()));
    for (int64_t pixel = 0; pixel < op.extent.pixels(); ++pixel)
      for (int64_t j = 0; j < c; ++j) y[(pixel / area * parts + part) * c + j] += x[pixel * c + j];
  }
  for (double& value : y) value /= static_cast<double>(area);
}

void run(const Context& context, const GlobalAveragePoolBackward& op) {
  const auto& [n, h, w, c] = op.extent;
  const int64_t area = int64_t{h} * w, parts = static_cast<int64_t>(op.parts.size());
  const View dy = context.reals(op.dy, parts * n * c);
  for (int64_t index = 0; index < parts; ++index) {
    const auto& part = op.parts[index];
    Values dPixels(static_cast<size_t>(op.extent.elements()));
    for (int64_t pixel = 0; pixel < op.extent.pixels(); ++pixel)
      for (int64_t j = 0; j < c; ++j)
        dPixels[pixel * c + j] = dy[(pixel / area * parts + index) * c + j] / static_cast<double>(area);
    const Values x = context.stream(part.x, op.extent.elements());
    context.store(part.dx, normBackward(context, part.norm, part.gradient, c, x, dPixels));
  }
}

}  // namespace revnet::reference

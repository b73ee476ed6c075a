// The typed op records: what a step is made of. TypeScript sends them as plain objects with these field names
// (binding.d.ts), the plan reads their operands' lifetimes, backends run them; native/reference defines each one's arithmetic.
//
// A record's `visit` names every field once, in order, with each operand's access (read, overwritten, updated), its allowed
// element types and its element count. Reading records from JavaScript, validation and planning are visitors.
//
// Element types: where nothing is said, real. Hidden tensors may have the type `hidden` instead, and gradients of streams, which an
// op gets as dy and gives as dx, the type `gradient` (buffer.h).
//
// Layouts: images and activations are NHWC, convolution weights [kernel][kernel][c][k] (HWIO), statistics [2][c]: batch mean,
// then biased batch variance. "Norm" is batch normalisation with given statistics followed by ReLU:
//   relu(gamma * (x - mean) / sqrt(variance + epsilon) + beta).
// With statistics of the batch that is training, with running statistics it is inference; the op is the same.
//
// `notFinite`: [1], set to 1 where the op writes a value that is NaN, infinite or beyond kLargestValue, otherwise left as it is;
// optional. The ops that have it see, between them, each pixel, each statistic and each parameter of a step, so a step finds what
// is not finite without a pass of its own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "buffer.h"
#include "convolution.h"
#include "error.h"

namespace revnet {

// Pixels, statistics and parameters are at most so large: no network needs more, and float32 cannot hold the squares of larger
// ones, which variances are made of. On all devices, the reference included, whose own range is far wider: what it trains is saved
// as float32.
inline constexpr float kLargestValue = 0x1p64F;

// Batch norm and ReLU applied to a tensor of c channels as it is read. Absent as a whole when `statistics` is absent: the
// tensor is then read as it is.
struct Norm {
  Operand statistics;  // [2][c] mean, biased variance
  Operand gamma;       // [c]
  Operand beta;        // [c]
  double epsilon = 1e-3;
  explicit operator bool() const { return static_cast<bool>(statistics); }

  template <class V>
  void visit(V& v, Access statisticsAccess, int c) {
    v.optional("statistics", statistics, statisticsAccess, kReal, 2 * int64_t{c});
    if (!statistics) return;
    v.operand("gamma", gamma, Access::Read, kReal, c);
    v.operand("beta", beta, Access::Read, kReal, c);
    v.number("epsilon", epsilon);
  }
};

// The gradients of a Norm's parameters, overwritten.
struct NormGradient {
  Operand gamma;  // [c]
  Operand beta;   // [c]
  template <class V>
  void visit(V& v, int c) {
    v.operand("gammaGradient", gamma, Access::Write, kReal, c);
    v.operand("betaGradient", beta, Access::Write, kReal, c);
  }
};

// A residual function F of the paper: (norm) - convolution, two or three times. Only the first layer of a network's first
// block has no norm. Between the layers lie the hidden tensors: hidden[i] is the output of convolution i, before its norm.
struct ResidualFunction {
  struct Layer {
    Convolution convolution;
    Norm norm;       // of the convolution's input
    Operand weight;  // [kernel][kernel][c][k]
  };
  std::vector<Layer> layers;

  const Convolution& first() const { return layers.front().convolution; }
  const Convolution& last() const { return layers.back().convolution; }
  int64_t inputElements() const { return first().inputElements(); }
  int64_t outputElements() const { return last().outputElements(); }

  // `innerStatistics`: Write where the pass computes the statistics of the hidden tensors, Read where it uses saved ones.
  // The first layer's statistics are those of x, computed by whichever op wrote x.
  template <class V>
  void visit(V& v, const char* key, Access innerStatistics) {
    v.list(key, layers, [&](Layer& layer, size_t i) {
      v.convolution("convolution", layer.convolution);
      layer.norm.visit(v, i == 0 ? Access::Read : innerStatistics, layer.convolution.c);
      v.operand("weight", layer.weight, Access::Read, kReal, layer.convolution.weightElements());
    });
    validate(key);
  }

 private:
  void validate(const char* key) const {
    if (layers.empty() || layers.size() > 3) throw invalid(std::string(key) + ": expected 1 to 3 layers");
    for (size_t i = 1; i < layers.size(); ++i) {
      const Convolution &a = layers[i - 1].convolution, &b = layers[i].convolution;
      if (a.n != b.n || a.outH() != b.h || a.outW() != b.w || a.k != b.c)
        throw invalid(std::string(key) + ": layer " + std::to_string(i) + " does not take what the layer before it gives");
      if (!layers[i].norm) throw invalid(std::string(key) + ": only the first layer may have no norm");
    }
  }
};

// The gradients of a residual function's parameters, overwritten: one entry a layer.
struct ResidualGradient {
  struct Layer {
    Operand weight;     // [kernel][kernel][c][k]
    NormGradient norm;  // where the layer has a norm
  };
  std::vector<Layer> layers;

  template <class V>
  void visit(V& v, const char* key, const ResidualFunction& function) {
    v.list(key, layers, [&](Layer& layer, size_t i) {
      if (i >= function.layers.size()) throw invalid(std::string(key) + ": more entries than the function has layers");
      const auto& of = function.layers[i];
      v.operand("weightGradient", layer.weight, Access::Write, kReal, of.convolution.weightElements());
      if (of.norm) layer.norm.visit(v, of.convolution.c);
    });
    if (layers.size() != function.layers.size()) throw invalid(std::string(key) + ": expected one entry for each layer");
  }
};

// hidden[i]: the output of layer i of a residual function, [n][outH][outW][k], for every layer but the last.
using Hidden = std::vector<Operand>;
template <class V>
void visitHidden(V& v, Hidden& hidden, const ResidualFunction& function, Access access) {
  v.operands("hidden", hidden, access, kHidden,
             [&](size_t i) { return i < function.layers.size() ? function.layers[i].convolution.outputElements() : 0; });
  if (hidden.size() + 1 != function.layers.size()) throw invalid("hidden: expected one tensor fewer than layers");
}

// A tensor of c channels held as one tensor, or as two of one type with half the channels each; `elements` of all together.
template <class V>
void visitHalves(V& v, const char* name, std::vector<Operand>& halves, Access access, Types types, int64_t elements, int c) {
  v.operands(name, halves, access, types, [&](size_t) { return v.split(elements, c, halves.size()); });
  if (halves.empty()) throw invalid(std::string(name) + ": expected one tensor, or two with half the channels each");
  for (size_t i = 1; i < halves.size(); ++i) v.sameType(halves[0], halves[i]);
}

// An image tensor's shape, for ops that keep it.
struct Extent {
  int n = 0, h = 0, w = 0, c = 0;
  bool operator==(const Extent& other) const = default;
  int64_t pixels() const { return int64_t{n} * h * w; }
  int64_t elements() const { return pixels() * c; }
  template <class V>
  void visit(V& v) {
    v.dimension("n", n);
    v.dimension("h", h, kMaxEdge);
    v.dimension("w", w, kMaxEdge);
    v.dimension("c", c, kMaxEdge);
  }
};

// ---- Data ---------------------------------------------------------------------------------------------------------------

// y[i] = (crop(images[indices[i]]) - mean) * scale, shifted by up to `padding` pixels (zeros outside, after the mean is
// subtracted) and mirrored with probability 1/2 if `flip`. An index outside [0, count) gives a zero image and label -1.
struct GatherBatch {
  static constexpr std::string_view kName = "gatherBatch";
  Extent extent;  // of the batch
  int count = 0;  // images in the data set
  int padding = 0;
  bool flip = false;
  double scale = 1;
  Operand images;     // [count][h][w][c] bytes
  Operand labels;     // [count]
  Operand indices;    // [n]
  Operand mean;       // [h][w][c], in bytes' units
  Operand counter;    // [4] seed low, seed high, step low, step high: the key of the random draws
  Operand y;          // [n][h][w][c] overwritten
  Operand yLabels;    // [n] overwritten
  Operand notFinite;  // for y

  template <class V>
  void visit(V& v) {
    extent.visit(v);
    v.dimension("count", count);
    v.count("padding", padding);
    v.flag("flip", flip);
    v.number("scale", scale);
    const int64_t image = int64_t{extent.h} * extent.w * extent.c;
    v.operand("images", images, Access::Read, kByte, count * image);
    v.operand("labels", labels, Access::Read, kIndex, count);
    v.operand("indices", indices, Access::Read, kIndex, extent.n);
    v.operand("mean", mean, Access::Read, kReal, image);
    v.operand("counter", counter, Access::Read, kIndex, 4);
    v.operand("y", y, Access::Write, kReal, extent.elements());
    v.operand("yLabels", yLabels, Access::Write, kIndex, extent.n);
    v.optional("notFinite", notFinite, Access::Update, kIndex, 1);
  }
};

// ---- Convolution --------------------------------------------------------------------------------------------------------

// y = convolution(norm(x)); and, if asked, the statistics of y.
struct ConvolutionForward {
  static constexpr std::string_view kName = "convolutionForward";
  Convolution convolution;
  Norm norm;
  Operand x;           // [n][h][w][c] real, hidden or stream
  Operand weight;      // [kernel][kernel][c][k]
  Operand y;           // [n][outH][outW][k] real or hidden, or stream (rounded to fixed point), overwritten
  Operand statistics;  // [2][k] of y, overwritten; optional
  Operand outOfRange;  // [1] += elements of y outside the fixed-point range; optional

  template <class V>
  void visit(V& v) {
    v.convolution("convolution", convolution);
    norm.visit(v, Access::Read, convolution.c);
    v.operand("x", x, Access::Read, kStream | kHidden, convolution.inputElements());
    v.operand("weight", weight, Access::Read, kReal, convolution.weightElements());
    v.operand("y", y, Access::Write, kStream | kHidden, convolution.outputElements());
    v.optional("yStatistics", statistics, Access::Write, kReal, 2 * int64_t{convolution.k});
    v.optional("outOfRange", outOfRange, Access::Update, kIndex, 1);
  }
};

// dx = transpose of the convolution, applied to dy.
struct ConvolutionBackwardData {
  static constexpr std::string_view kName = "convolutionBackwardData";
  Convolution convolution;
  Operand weight;  // [kernel][kernel][c][k]
  Operand dy;      // [n][outH][outW][k]
  Operand dx;      // [n][h][w][c] overwritten

  template <class V>
  void visit(V& v) {
    v.convolution("convolution", convolution);
    v.operand("weight", weight, Access::Read, kReal, convolution.weightElements());
    v.operand("dy", dy, Access::Read, kGradient, convolution.outputElements());
    v.operand("dx", dx, Access::Write, kGradient, convolution.inputElements());
  }
};

// dw = sum over images and pixels of norm(x) times dy.
struct ConvolutionBackwardWeights {
  static constexpr std::string_view kName = "convolutionBackwardWeights";
  Convolution convolution;
  Norm norm;
  Operand x;               // [n][h][w][c] real or stream
  Operand dy;              // [n][outH][outW][k]
  Operand weightGradient;  // [kernel][kernel][c][k] overwritten

  template <class V>
  void visit(V& v) {
    v.convolution("convolution", convolution);
    norm.visit(v, Access::Read, convolution.c);
    v.operand("x", x, Access::Read, kStream, convolution.inputElements());
    v.operand("dy", dy, Access::Read, kGradient, convolution.outputElements());
    v.operand("weightGradient", weightGradient, Access::Write, kReal, convolution.weightElements());
  }
};

// ---- Batch norm and ReLU ------------------------------------------------------------------------------------------------

// y = norm(x), its channels split evenly over the outputs: one tensor, or the two halves x1, x2 of a RevNet.
struct BatchNormReluForward {
  static constexpr std::string_view kName = "batchNormReluForward";
  Extent extent;
  Norm norm;
  Operand x;               // [n][h][w][c]
  std::vector<Operand> y;  // each [n][h][w][c / outputs] real or stream, overwritten
  Operand outOfRange;      // [1] += elements outside the fixed-point range; optional

  template <class V>
  void visit(V& v) {
    extent.visit(v);
    norm.visit(v, Access::Read, extent.c);
    if (!norm) throw invalid("batchNormReluForward: statistics are missing");
    v.operand("x", x, Access::Read, kHidden, extent.elements());
    visitHalves(v, "y", y, Access::Write, kStream, extent.elements(), extent.c);
    v.optional("outOfRange", outOfRange, Access::Update, kIndex, 1);
  }
};

// With dy = d loss / d norm(x):  dx, and the gradients of gamma and beta; the derivative runs through the batch statistics.
struct BatchNormReluBackward {
  static constexpr std::string_view kName = "batchNormReluBackward";
  Extent extent;
  Norm norm;
  NormGradient gradient;
  Operand x;                // [n][h][w][c]
  std::vector<Operand> dy;  // each [n][h][w][c / inputs]
  Operand dx;               // [n][h][w][c] overwritten

  template <class V>
  void visit(V& v) {
    extent.visit(v);
    norm.visit(v, Access::Read, extent.c);
    if (!norm) throw invalid("batchNormReluBackward: statistics are missing");
    gradient.visit(v, extent.c);
    v.operand("x", x, Access::Read, kHidden, extent.elements());
    visitHalves(v, "dy", dy, Access::Read, kGradient, extent.elements(), extent.c);
    v.operand("dx", dx, Access::Write, kGradient, extent.elements());
  }
};

// running = (1 - momentum) * running + momentum * [mean, unbiased variance]: PyTorch's rule, once a training step.
struct UpdateRunningStatistics {
  static constexpr std::string_view kName = "updateRunningStatistics";
  int c = 0;
  int64_t count = 0;  // values per channel that the statistics are over: n * h * w
  double momentum = 0;
  Operand statistics;  // [2][c]
  Operand running;     // [2][c] updated
  Operand notFinite;   // for running

  template <class V>
  void visit(V& v) {
    v.dimension("c", c, kMaxEdge);
    v.count("count", count);
    v.number("momentum", momentum);
    v.operand("statistics", statistics, Access::Read, kReal, 2 * int64_t{c});
    v.operand("running", running, Access::Update, kReal, 2 * int64_t{c});
    v.optional("notFinite", notFinite, Access::Update, kIndex, 1);
  }
};

// ---- Pooling and shortcuts ----------------------------------------------------------------------------------------------

// The shape of a parameter-free shortcut: average pool stride x stride, then zero channels equally on both sides.
struct PoolShortcut {
  Extent extent;   // of x
  int k = 0;       // channels of y, k >= c, k - c even
  int stride = 0;  // h and w are multiples of it

  bool operator==(const PoolShortcut& other) const = default;
  int64_t outputElements() const { return extent.pixels() / (int64_t{stride} * stride) * k; }
  template <class V>
  void visit(V& v) {
    extent.visit(v);
    v.dimension("k", k, kMaxEdge);
    v.dimension("stride", stride, kMaxEdge);
    if (k < extent.c || (k - extent.c) % 2 != 0) throw invalid("shortcut: k - c must be even and not negative");
    if (extent.h % stride != 0 || extent.w % stride != 0) throw invalid("shortcut: h and w must be multiples of the stride");
  }
};

struct ShortcutForward {
  static constexpr std::string_view kName = "shortcutForward";
  PoolShortcut shortcut;
  Operand x;  // [n][h][w][c] stream
  Operand y;  // [n][h / stride][w / stride][k] stream of the same type, overwritten

  template <class V>
  void visit(V& v) {
    shortcut.visit(v);
    v.operand("x", x, Access::Read, kStream, shortcut.extent.elements());
    v.operand("y", y, Access::Write, kStream, shortcut.outputElements());
    v.sameType(x, y);
  }
};

struct ShortcutBackward {
  static constexpr std::string_view kName = "shortcutBackward";
  PoolShortcut shortcut;
  Operand dy;  // [n][h / stride][w / stride][k]
  Operand dx;  // [n][h][w][c] overwritten

  template <class V>
  void visit(V& v) {
    shortcut.visit(v);
    v.operand("dy", dy, Access::Read, kGradient, shortcut.outputElements());
    v.operand("dx", dx, Access::Write, kGradient, shortcut.extent.elements());
  }
};

// Max pool 3x3, stride 2, padding 1, of norm(x): the ImageNet stem. Channels split over the outputs as in BatchNormReluForward.
struct MaxPoolForward {
  static constexpr std::string_view kName = "maxPoolForward";
  Extent extent;  // of x
  Norm norm;
  Operand x;               // [n][h][w][c]
  std::vector<Operand> y;  // each [n][outH][outW][c / outputs] real or stream, overwritten
  Operand argmax;          // [n][outH][outW][c] tap 0..8 of the largest value (the first one of equals), overwritten
  Operand outOfRange;      // [1] += elements of y outside the fixed-point range; optional

  static int out(int size) { return (size - 1) / 2 + 1; }
  int64_t outputElements() const { return int64_t{extent.n} * out(extent.h) * out(extent.w) * extent.c; }
  template <class V>
  void visit(V& v) {
    extent.visit(v);
    norm.visit(v, Access::Read, extent.c);
    if (!norm) throw invalid("maxPoolForward: statistics are missing");
    v.operand("x", x, Access::Read, kHidden, extent.elements());
    visitHalves(v, "y", y, Access::Write, kStream, outputElements(), extent.c);
    v.operand("argmax", argmax, Access::Write, kByte, outputElements());
    v.optional("outOfRange", outOfRange, Access::Update, kIndex, 1);
  }
};

// dx = d loss / d norm(x): each dy goes to the pixel that was largest.
struct MaxPoolBackward {
  static constexpr std::string_view kName = "maxPoolBackward";
  Extent extent;            // of dx
  std::vector<Operand> dy;  // each [n][outH][outW][c / inputs]
  Operand argmax;           // [n][outH][outW][c]
  Operand dx;               // [n][h][w][c] overwritten

  int64_t outputElements() const {
    return int64_t{extent.n} * MaxPoolForward::out(extent.h) * MaxPoolForward::out(extent.w) * extent.c;
  }
  template <class V>
  void visit(V& v) {
    extent.visit(v);
    visitHalves(v, "dy", dy, Access::Read, kGradient, outputElements(), extent.c);
    v.operand("argmax", argmax, Access::Read, kByte, outputElements());
    v.operand("dx", dx, Access::Write, kGradient, extent.elements());
  }
};

inline void checkParts(size_t count) {
  if (count < 1 || count > 2) throw invalid("globalAveragePool: expected one or two parts, got " + std::to_string(count));
}

// y = mean over pixels of norm(x) for each part, the parts' channels side by side: a RevNet's two streams meet here.
struct GlobalAveragePoolForward {
  static constexpr std::string_view kName = "globalAveragePoolForward";
  struct Part {
    Norm norm;
    Operand x;  // [n][h][w][c] stream
  };
  Extent extent;  // of one part
  std::vector<Part> parts;
  Operand y;  // [n][parts * c] overwritten

  template <class V>
  void visit(V& v) {
    extent.visit(v);
    v.list("parts", parts, [&](Part& part, size_t) {
      part.norm.visit(v, Access::Read, extent.c);
      if (!part.norm) throw invalid("globalAveragePoolForward: statistics are missing");
      v.operand("x", part.x, Access::Read, kStream, extent.elements());
    });
    checkParts(parts.size());
    v.operand("y", y, Access::Write, kReal, static_cast<int64_t>(parts.size()) * extent.n * extent.c);
  }
};

struct GlobalAveragePoolBackward {
  static constexpr std::string_view kName = "globalAveragePoolBackward";
  struct Part {
    Norm norm;
    NormGradient gradient;
    Operand x;   // [n][h][w][c] stream
    Operand dx;  // [n][h][w][c] overwritten
  };
  Extent extent;
  std::vector<Part> parts;
  Operand dy;  // [n][parts * c]

  template <class V>
  void visit(V& v) {
    extent.visit(v);
    v.list("parts", parts, [&](Part& part, size_t) {
      part.norm.visit(v, Access::Read, extent.c);
      if (!part.norm) throw invalid("globalAveragePoolBackward: statistics are missing");
      part.gradient.visit(v, extent.c);
      v.operand("x", part.x, Access::Read, kStream, extent.elements());
      v.operand("dx", part.dx, Access::Write, kGradient, extent.elements());
    });
    checkParts(parts.size());
    v.operand("dy", dy, Access::Read, kReal, static_cast<int64_t>(parts.size()) * extent.n * extent.c);
  }
};

// ---- Classifier ---------------------------------------------------------------------------------------------------------

// y = x weight^T + bias
struct LinearForward {
  static constexpr std::string_view kName = "linearForward";
  int n = 0, in = 0, out = 0;
  Operand x;       // [n][in]
  Operand weight;  // [out][in]
  Operand bias;    // [out]
  Operand y;       // [n][out] overwritten

  template <class V>
  void visit(V& v) {
    v.dimension("n", n);
    v.dimension("in", in);
    v.dimension("out", out);
    v.operand("x", x, Access::Read, kReal, int64_t{n} * in);
    v.operand("weight", weight, Access::Read, kReal, int64_t{out} * in);
    v.operand("bias", bias, Access::Read, kReal, out);
    v.operand("y", y, Access::Write, kReal, int64_t{n} * out);
  }
};

struct LinearBackward {
  static constexpr std::string_view kName = "linearBackward";
  int n = 0, in = 0, out = 0;
  Operand x;               // [n][in]
  Operand weight;          // [out][in]
  Operand dy;              // [n][out]
  Operand dx;              // [n][in] overwritten
  Operand weightGradient;  // [out][in] overwritten
  Operand biasGradient;    // [out] overwritten

  template <class V>
  void visit(V& v) {
    v.dimension("n", n);
    v.dimension("in", in);
    v.dimension("out", out);
    v.operand("x", x, Access::Read, kReal, int64_t{n} * in);
    v.operand("weight", weight, Access::Read, kReal, int64_t{out} * in);
    v.operand("dy", dy, Access::Read, kReal, int64_t{n} * out);
    v.operand("dx", dx, Access::Write, kReal, int64_t{n} * in);
    v.operand("weightGradient", weightGradient, Access::Write, kReal, int64_t{out} * in);
    v.operand("biasGradient", biasGradient, Access::Write, kReal, out);
  }
};

// loss = mean over rows of -log softmax(x)[label]. Rows with a label outside [0, classes) do not count.
struct SoftmaxCrossEntropy {
  static constexpr std::string_view kName = "softmaxCrossEntropy";
  int n = 0, classes = 0;
  Operand x;        // [n][classes] logits
  Operand labels;   // [n]
  Operand loss;     // [1] overwritten; 0 where no row counts
  Operand correct;  // [1] rows whose largest logit (the first one of equals) is the label's, overwritten
  Operand dx;       // [n][classes] d loss / dx, overwritten; optional

  template <class V>
  void visit(V& v) {
    v.dimension("n", n);
    v.dimension("classes", classes);
    v.operand("x", x, Access::Read, kReal, int64_t{n} * classes);
    v.operand("labels", labels, Access::Read, kIndex, n);
    v.operand("loss", loss, Access::Write, kReal, 1);
    v.operand("correct", correct, Access::Write, kIndex, 1);
    v.optional("dx", dx, Access::Write, kReal, int64_t{n} * classes);
  }
};

// ---- Residual and reversible blocks -------------------------------------------------------------------------------------

// y = base + q(F(x)): q rounds to the stream's step (round to nearest even), or is the identity on real streams.
struct ResidualForward {
  static constexpr std::string_view kName = "residualForward";
  ResidualFunction function;
  bool computeStatistics = true;  // of the hidden tensors and of y; otherwise the given (running) ones are used
  Operand x;                      // [n][h][w][c] stream
  Operand base;                   // [n][outH][outW][k] stream; may be y itself
  Operand y;                      // [n][outH][outW][k] stream, overwritten
  Hidden hidden;                  // overwritten
  Operand statistics;             // [2][k] of y, overwritten; optional
  Operand outOfRange;             // [1] += elements of y whose sum left the fixed-point range; optional

  template <class V>
  void visit(V& v) {
    v.flag("computeStatistics", computeStatistics);
    function.visit(v, "function", computeStatistics ? Access::Write : Access::Read);
    v.operand("x", x, Access::Read, kStream, function.inputElements());
    v.operand("base", base, Access::Read, kStream, function.outputElements());
    v.operand("y", y, base == y ? Access::Update : Access::Write, kStream, function.outputElements());
    v.sameType(base, y);
    v.sameType(x, y);
    visitHidden(v, hidden, function, Access::Write);
    v.optional("yStatistics", statistics, Access::Write, kReal, 2 * int64_t{function.last().k});
    if (statistics && !computeStatistics) throw invalid("residualForward: yStatistics go with computeStatistics");
    v.optional("outOfRange", outOfRange, Access::Update, kIndex, 1);
  }
};

// dx += (dF/dx)^T dy, and the gradients of F's parameters.
struct ResidualBackward {
  static constexpr std::string_view kName = "residualBackward";
  ResidualFunction function;
  ResidualGradient gradient;
  Operand x;      // [n][h][w][c] stream
  Hidden hidden;  // as the forward pass left them
  Operand dy;     // [n][outH][outW][k]
  Operand dx;     // [n][h][w][c] accumulated into; may be dy itself, which is then read before it is changed

  template <class V>
  void visit(V& v) {
    function.visit(v, "function", Access::Read);
    gradient.visit(v, "gradient", function);
    v.operand("x", x, Access::Read, kStream, function.inputElements());
    visitHidden(v, hidden, function, Access::Read);
    v.operand("dy", dy, Access::Read, kGradient, function.outputElements());
    v.operand("dx", dx, Access::Update, kGradient, function.inputElements());
  }
};

// y1 = x1 + q(F(x2)); y2 = x2 + q(G(y1)), in place.
struct ReversibleForward {
  static constexpr std::string_view kName = "reversibleForward";
  ResidualFunction f, g;
  bool computeStatistics = true;     // of the hidden tensors, y1 and y2; otherwise the given (running) ones are used
  Operand stream1, stream2;          // [n][h][w][c] stream; x1, x2 become y1, y2
  Hidden hidden;                     // scratch, for F and then for G
  Operand statistics1, statistics2;  // [2][c] of y1 (G's first norm) and of y2, overwritten; only if computeStatistics
  Operand outOfRange;                // [1] += elements whose sum left the fixed-point range; optional

  template <class V>
  void visit(V& v) {
    v.flag("computeStatistics", computeStatistics);
    const Access inner = computeStatistics ? Access::Write : Access::Read;
    f.visit(v, "f", inner);
    v.operand("stream1", stream1, Access::Update, kStream, f.outputElements());
    v.operand("stream2", stream2, Access::Update, kStream, f.inputElements());
    v.sameType(stream1, stream2);
    visitHidden(v, hidden, f, Access::Write);
    if (computeStatistics) v.operand("statistics1", statistics1, Access::Write, kReal, 2 * int64_t{f.last().k});
    g.visit(v, "g", inner);
    requireInvertible(f, g);
    if (computeStatistics) v.operand("statistics2", statistics2, Access::Write, kReal, 2 * int64_t{g.last().k});
    v.optional("outOfRange", outOfRange, Access::Update, kIndex, 1);
  }

  static void requireInvertible(const ResidualFunction& f, const ResidualFunction& g) {
    const auto shapes = [](const ResidualFunction& a) {
      return std::vector<int64_t>{a.first().n, a.first().h, a.first().w, a.first().c};
    };
    if (f.inputElements() != f.outputElements() || g.inputElements() != g.outputElements() || shapes(f) != shapes(g) ||
        f.layers.size() != g.layers.size() || f.first().c != f.last().k || g.first().c != g.last().k)
      throw invalid("a reversible block keeps its shape: F and G must map c channels to c at stride 1");
    for (size_t i = 0; i < f.layers.size(); ++i)
      if (f.layers[i].convolution.outputElements() != g.layers[i].convolution.outputElements())
        throw invalid("hidden: F and G share these tensors, so their layers must have outputs of equal size");
  }
};

// x2 = y2 - q(G(y1)); x1 = y1 - q(F(x2)), in place, with the statistics that the forward pass saved.
struct ReversibleInverse {
  static constexpr std::string_view kName = "reversibleInverse";
  ResidualFunction f, g;
  Operand stream1, stream2;  // [n][h][w][c] stream; y1, y2 become x1, x2
  Hidden hidden;             // scratch

  template <class V>
  void visit(V& v) {
    f.visit(v, "f", Access::Read);
    g.visit(v, "g", Access::Read);
    ReversibleForward::requireInvertible(f, g);
    v.operand("stream1", stream1, Access::Update, kStream, f.outputElements());
    v.operand("stream2", stream2, Access::Update, kStream, f.inputElements());
    v.sameType(stream1, stream2);
    visitHidden(v, hidden, f, Access::Write);
  }
};

// The paper's Algorithm 1, with one recompute of F and of G: reconstructs x1, x2 and turns dy1, dy2 into dx1, dx2.
//   x2 = y2 - q(G(y1));  dy1 += (dG/dy1)^T dy2;  x1 = y1 - q(F(x2));  dx2 = dy2 + (dF/dx2)^T dy1;  dx1 = dy1
struct ReversibleBackward {
  static constexpr std::string_view kName = "reversibleBackward";
  ResidualFunction f, g;
  ResidualGradient fGradient, gGradient;
  Operand stream1, stream2;      // [n][h][w][c] stream; y1, y2 become x1, x2
  Operand gradient1, gradient2;  // [n][h][w][c]; dy1, dy2 become dx1, dx2
  Hidden hidden;                 // scratch

  template <class V>
  void visit(V& v) {
    f.visit(v, "f", Access::Read);
    g.visit(v, "g", Access::Read);
    ReversibleForward::requireInvertible(f, g);
    fGradient.visit(v, "fGradient", f);
    gGradient.visit(v, "gGradient", g);
    v.operand("stream1", stream1, Access::Update, kStream, f.outputElements());
    v.operand("stream2", stream2, Access::Update, kStream, f.inputElements());
    v.sameType(stream1, stream2);
    v.operand("gradient1", gradient1, Access::Update, kGradient, f.outputElements());
    v.operand("gradient2", gradient2, Access::Update, kGradient, f.inputElements());
    visitHidden(v, hidden, f, Access::Write);
  }
};

// ---- Optimizer and study ------------------------------------------------------------------------------------------------

// SGD with momentum on the flat buffers, PyTorch's rule:
//   g' = g + weightDecay * p (the first `decayed` elements only);  m = momentum * m + g';  p -= learningRate * m
// with Nesterov's momentum  p -= learningRate * (g' + momentum * m)
struct SgdUpdate {
  static constexpr std::string_view kName = "sgdUpdate";
  int64_t elements = 0, decayed = 0;
  Operand parameters;       // [elements] updated
  Operand gradients;        // [elements]
  Operand momenta;          // [elements] updated
  Operand hyperparameters;  // [4] learning rate, momentum, weight decay, 1 for Nesterov's momentum or 0
  Operand notFinite;        // for parameters

  template <class V>
  void visit(V& v) {
    v.count("elements", elements);
    v.count("decayed", decayed);
    if (decayed > elements) throw invalid("sgdUpdate: decayed exceeds elements");
    v.operand("parameters", parameters, Access::Update, kReal, elements);
    v.operand("gradients", gradients, Access::Read, kReal, elements);
    v.operand("momenta", momenta, Access::Update, kReal, elements);
    v.operand("hyperparameters", hyperparameters, Access::Read, kReal, 4);
    v.optional("notFinite", notFinite, Access::Update, kIndex, 1);
  }
};

// AdamW on the flat buffers, PyTorch's rule. What depends on the step alone is worked out by the caller, in float64:
//   p -= shrink * p (the first `decayed` elements only);  mean = beta1 * mean + (1 - beta1) * g
//   square = beta2 * square + (1 - beta2) * g * g;        p -= stepSize * mean / (sqrt(square) / correction + epsilon)
struct AdamwUpdate {
  static constexpr std::string_view kName = "adamwUpdate";
  static constexpr int kHyperparameters = 8;
  int64_t elements = 0, decayed = 0;
  Operand parameters;       // [elements] updated
  Operand gradients;        // [elements]
  Operand mean, square;     // [elements] updated
  Operand hyperparameters;  // [8] shrink, stepSize, beta1, 1 - beta1, beta2, 1 - beta2, correction, epsilon
  Operand notFinite;        // for parameters

  template <class V>
  void visit(V& v) {
    v.count("elements", elements);
    v.count("decayed", decayed);
    if (decayed > elements) throw invalid("adamwUpdate: decayed exceeds elements");
    v.operand("parameters", parameters, Access::Update, kReal, elements);
    v.operand("gradients", gradients, Access::Read, kReal, elements);
    v.operand("mean", mean, Access::Update, kReal, elements);
    v.operand("square", square, Access::Update, kReal, elements);
    v.operand("hyperparameters", hyperparameters, Access::Read, kReal, kHyperparameters);
    v.optional("notFinite", notFinite, Access::Update, kIndex, 1);
  }
};

// norm = the root of the sum of g * g over all elements; g *= min(1, maxNorm / (norm + 1e-6)): PyTorch's clip_grad_norm_.
// The order of the sum depends on the number of elements alone.
struct ClipGradientNorm {
  static constexpr std::string_view kName = "clipGradientNorm";
  static constexpr double kEpsilon = 1e-6;
  int64_t elements = 0;
  double maxNorm = 0;
  Operand gradients;  // [elements] updated
  Operand norm;       // [1] overwritten

  template <class V>
  void visit(V& v) {
    v.count("elements", elements);
    v.number("maxNorm", maxNorm);
    v.operand("gradients", gradients, Access::Update, kReal, elements);
    v.operand("norm", norm, Access::Write, kReal, 1);
  }

  // What gradients of this norm are multiplied by; NaN where the norm is.
  static constexpr double factor(double maxNorm, double norm) {
    const double ratio = maxNorm / (norm + kEpsilon);
    return ratio > 1 ? 1 : ratio;
  }
};

// y = x
struct Copy {
  static constexpr std::string_view kName = "copy";
  int64_t elements = 0;
  Operand x;  // [elements] stream
  Operand y;  // [elements] of the same type, overwritten

  template <class V>
  void visit(V& v) {
    v.count("elements", elements);
    v.operand("x", x, Access::Read, kStream, elements);
    v.operand("y", y, Access::Write, kStream, elements);
    v.sameType(x, y);
  }
};

// y = max |a - b|, in the streams' units: the reconstruction error.
struct MaximumDifference {
  static constexpr std::string_view kName = "maximumDifference";
  int64_t elements = 0;
  Operand a, b;  // [elements] stream, of one type
  Operand y;     // [1] overwritten

  template <class V>
  void visit(V& v) {
    v.count("elements", elements);
    v.operand("a", a, Access::Read, kStream, elements);
    v.operand("b", b, Access::Read, kStream, elements);
    v.sameType(a, b);
    v.operand("y", y, Access::Write, kReal, 1);
  }
};

using Op = std::variant<GatherBatch, ConvolutionForward, ConvolutionBackwardData, ConvolutionBackwardWeights, BatchNormReluForward,
                        BatchNormReluBackward, UpdateRunningStatistics, ShortcutForward, ShortcutBackward, MaxPoolForward,
                        MaxPoolBackward, GlobalAveragePoolForward, GlobalAveragePoolBackward, LinearForward, LinearBackward,
                        SoftmaxCrossEntropy, ResidualForward, ResidualBackward, ReversibleForward, ReversibleInverse,
                        ReversibleBackward, SgdUpdate, AdamwUpdate, ClipGradientNorm, Copy, MaximumDifference>;

inline std::string_view opName(const Op& op) {
  return std::visit([](const auto& record) { return std::remove_reference_t<decltype(record)>::kName; }, op);
}

}  // namespace revnet

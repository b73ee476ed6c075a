#include "initial_values.h"

#include <cmath>
#include <string>

#include "elementary.h"
#include "error.h"
#include "philox.h"

namespace revnet {
namespace {

// The words of a tensor's stream, one after the other.
class Words {
 public:
  Words(uint64_t seed, uint32_t stream) : seed_(seed), stream_(stream) {}
  // 32 random bits in (-1, 1), symmetrically: neither end nor 0 is hit. Exact.
  double symmetric() {
    if (next_ == 4) {
      block_ = philox(static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32), position_++, stream_, 0,
                      RandomPurpose::Initialization);
      next_ = 0;
    }
    return (2.0 * block_.value[next_++] + 1.0) * 0x1p-32 - 1.0;
  }

 private:
  uint64_t seed_;
  uint32_t stream_, position_ = 0;
  PhiloxBlock block_{};
  int next_ = 4;
};

// Where the elements of a tensor lie, in the order in which they are drawn.
template <class Real>
class Elements {
 public:
  Elements(const InitialTensor& tensor, Real* to) : tensor_(tensor), to_(to + tensor.offset), left_(tensor.elements()) {}
  int64_t left() const { return left_; }
  void put(double value) {
    to_[(tap_ * tensor_.in + in_) * tensor_.out + out_] = static_cast<float>(value);
    --left_;
    if (++tap_ < tensor_.taps) return;
    tap_ = 0;
    if (++in_ < tensor_.in) return;
    in_ = 0;
    ++out_;
  }

 private:
  const InitialTensor& tensor_;
  Real* to_;
  int64_t left_, out_ = 0, in_ = 0, tap_ = 0;
};

// Normals by Marsaglia's polar method, those beyond two standard deviations rejected.
template <class Real>
void drawNormals(Words words, double deviation, Elements<Real> elements) {
  while (elements.left() > 0) {
    const double u = words.symmetric(), v = words.symmetric(), s = u * u + v * v;
    if (s >= 1) continue;
    const double radius = std::sqrt(-2.0 * logarithm(s) / s);
    if (std::abs(u * radius) <= 2) elements.put(u * radius * deviation);
    if (std::abs(v * radius) <= 2 && elements.left() > 0) elements.put(v * radius * deviation);
  }
}

template <class Real>
void draw(uint64_t seed, std::span<const InitialTensor> tensors, Real* to, const std::atomic<bool>& cancelled) {
  for (const InitialTensor& tensor : tensors) {
    if (cancelled) return;
    Elements<Real> elements(tensor, to);
    Words words(seed, tensor.stream);
    switch (tensor.distribution) {
      case Distribution::Constant:
        while (elements.left() > 0) elements.put(tensor.value);
        break;
      case Distribution::Uniform:
        while (elements.left() > 0) elements.put(tensor.value * words.symmetric());
        break;
      case Distribution::TruncatedNormal: drawNormals(words, tensor.value, elements); break;
    }
  }
}

}  // namespace

void checkInitialTensors(std::span<const InitialTensor> tensors, int64_t elements) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const InitialTensor& tensor = tensors[i];
    int64_t count = 0;
    if (__builtin_mul_overflow(tensor.out, tensor.in, &count) || __builtin_mul_overflow(count, tensor.taps, &count) ||
        tensor.offset > elements || count > elements - tensor.offset)
      throw invalid("tensors[" + std::to_string(i) + "]: lies beyond the " + std::to_string(elements) + " elements of the buffer");
  }
}

void drawInitial(uint64_t seed, std::span<const InitialTensor> tensors, float* to, const std::atomic<bool>& cancelled) {
  draw(seed, tensors, to, cancelled);
}
void drawInitial(uint64_t seed, std::span<const InitialTensor> tensors, double* to, const std::atomic<bool>& cancelled) {
  draw(seed, tensors, to, cancelled);
}

}  // namespace revnet

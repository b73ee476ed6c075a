#include "host_array.h"

#include <cmath>

#include "bfloat16.h"

namespace revnet {
namespace {

template <class To, class From>
std::vector<To> convert(const std::vector<From>& values) {
  return std::vector<To>(values.begin(), values.end());
}

// bfloat16. A double is rounded to a float first.
template <class T>
std::vector<Bfloat16Bits> toNarrow(const std::vector<T>& values) {
  std::vector<Bfloat16Bits> narrow(values.size());
  for (size_t i = 0; i < values.size(); ++i) narrow[i] = toBfloat16(static_cast<float>(values[i]));
  return narrow;
}

std::vector<float> fromNarrow(const std::vector<Bfloat16Bits>& narrow) {
  std::vector<float> values(narrow.size());
  for (size_t i = 0; i < narrow.size(); ++i) values[i] = fromBfloat16(narrow[i]);
  return values;
}

template <class T>
std::vector<T> toFixed(const std::vector<double>& values, int fractionBits, const std::string& name) {
  std::vector<T> fixed(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    // The range is [-512, 512) whatever the step: 2^9.
    const double steps = std::nearbyint(std::ldexp(values[i], fractionBits)), bound = std::ldexp(512.0, fractionBits);
    if (!(steps >= -bound && steps < bound))
      throw invalid("buffer '" + name + "': a fixed-point stream takes values from -512 up to, not including, 512");
    fixed[i] = static_cast<T>(steps);
  }
  return fixed;
}

template <class T>
std::vector<double> fromFixed(const std::vector<T>& fixed, int fractionBits) {
  std::vector<double> values(fixed.size());
  for (size_t i = 0; i < fixed.size(); ++i) values[i] = std::ldexp(static_cast<double>(fixed[i]), -fractionBits);
  return values;
}

}  // namespace

void toMachine(const Backend& backend, const BufferSpec& spec, const HostArray& values,
               const std::function<void(const void* data, size_t bytes)>& take) {
  const size_t count = std::visit([](const auto& v) { return v.size(); }, values);
  if (count != static_cast<size_t>(spec.elements))
    throw invalid("buffer '" + spec.name + "': expected " + std::to_string(spec.elements) + " values, got " +
                  std::to_string(count));
  const size_t elementBytes = backend.elementBytes(spec.type);
  const auto send = [&](const auto& data) { take(data.data(), data.size() * sizeof(data[0])); };
  const auto refuse = [&](const char* expected) { return invalid("buffer '" + spec.name + "': expected " + expected); };

  // Reals of any size, from those of the size `own`.
  const auto sendReals = [&](const auto& reals, size_t own) {
    if (elementBytes == own) return send(reals);
    if (elementBytes == 2) return send(toNarrow(reals));
    return elementBytes == 4 ? send(convert<float>(reals)) : send(convert<double>(reals));
  };
  switch (spec.type) {
    case ElementType::Real:
    case ElementType::Hidden:
    case ElementType::Gradient:
      if (const auto* f = std::get_if<std::vector<float>>(&values)) return sendReals(*f, sizeof(float));
      if (const auto* d = std::get_if<std::vector<double>>(&values)) return sendReals(*d, sizeof(double));
      throw refuse("a Float32Array or Float64Array");
    case ElementType::Fixed:
      if (const auto* d = std::get_if<std::vector<double>>(&values)) {
        if (elementBytes == 4) return send(toFixed<int32_t>(*d, backend.fractionBits(), spec.name));
        return send(toFixed<int64_t>(*d, backend.fractionBits(), spec.name));
      }
      throw refuse("a Float64Array");
    case ElementType::Index:
      if (const auto* i = std::get_if<std::vector<int32_t>>(&values)) return send(*i);
      throw refuse("an Int32Array");
    case ElementType::Byte:
      if (const auto* b = std::get_if<std::vector<uint8_t>>(&values)) return send(*b);
      throw refuse("a Uint8Array");
  }
}

HostArray fromMachine(const Backend& backend, const BufferSpec& spec, const std::function<void(void* to, size_t bytes)>& get) {
  const auto count = static_cast<size_t>(spec.elements);
  const auto fetch = [&](auto values) {
    get(values.data(), count * sizeof(values[0]));
    return values;
  };
  const size_t elementBytes = backend.elementBytes(spec.type);
  switch (spec.type) {
    case ElementType::Real:
    case ElementType::Hidden:
    case ElementType::Gradient:
      if (elementBytes == 2) return fromNarrow(fetch(std::vector<Bfloat16Bits>(count)));
      if (elementBytes == 4) return fetch(std::vector<float>(count));
      return fetch(std::vector<double>(count));
    case ElementType::Fixed:
      if (elementBytes == 4) return fromFixed(fetch(std::vector<int32_t>(count)), backend.fractionBits());
      return fromFixed(fetch(std::vector<int64_t>(count)), backend.fractionBits());
    case ElementType::Index: return fetch(std::vector<int32_t>(count));
    case ElementType::Byte: break;
  }
  return fetch(std::vector<uint8_t>(count));
}

}  // namespace revnet

#include "context.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace revnet::reference {
namespace {

constexpr double kScale = static_cast<double>(int64_t{1} << kFractionBits);
constexpr int64_t kRange = int64_t{512} << kFractionBits;

// q(v): round to nearest, ties to even (the default rounding mode). Saturates at 2^62, far outside the range, and maps NaN to
// 0, so that it is defined for every v.
int64_t quantize(double v) {
  if (std::isnan(v)) return 0;
  return static_cast<int64_t>(std::clamp(std::nearbyint(v * kScale), -0x1p62, 0x1p62));
}

}  // namespace

Values Context::stream(Operand operand, int64_t elements) const {
  if (!memory_.isFixed(operand)) {
    const auto from = span<double>(operand, elements);
    return Values(from.begin(), from.end());
  }
  Values values;
  values.reserve(static_cast<size_t>(elements));
  for (const int64_t fixed : span<int64_t>(operand, elements)) values.push_back(static_cast<double>(fixed) / kScale);
  return values;
}

void Context::add(Operand base, Operand y, View values, int sign, Operand outOfRange) const {
  if (!memory_.isFixed(y)) {
    const double* from = memory_.at<double>(base);
    double* to = memory_.at<double>(y);
    for (size_t i = 0; i < values.size(); ++i) to[i] = (from ? from[i] : 0) + sign * values[i];
    return;
  }
  const int64_t* from = memory_.at<int64_t>(base);
  int64_t* to = memory_.at<int64_t>(y);
  int64_t count = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    int64_t sum;  // wrapped if it overflows
    const bool overflow = __builtin_add_overflow(from ? from[i] : 0, sign * quantize(values[i]), &sum);
    if (overflow || sum < -kRange || sum >= kRange || std::isnan(values[i])) ++count;
    to[i] = sum;
  }
  if (int32_t* counter = memory_.at<int32_t>(outOfRange))
    *counter = static_cast<int32_t>(std::min<int64_t>(*counter + count, std::numeric_limits<int32_t>::max()));
}

void Context::checkFinite(View values, Operand notFinite) const {
  int32_t* flag = memory_.at<int32_t>(notFinite);
  if (flag && !std::all_of(values.begin(), values.end(), [](double value) { return std::abs(value) <= kLargestValue; })) *flag = 1;
}

Values joinChannels(const Context& context, const std::vector<Operand>& parts, int64_t pixels, int c) {
  const auto width = static_cast<size_t>(c) / parts.size();
  Values joined(static_cast<size_t>(pixels * c));
  for (size_t part = 0; part < parts.size(); ++part) {
    const View from = context.reals(parts[part], pixels * static_cast<int64_t>(width));
    for (size_t i = 0; i < from.size(); ++i) joined[(i / width * parts.size() + part) * width + i % width] = from[i];
  }
  return joined;
}

void storeChannels(const Context& context, const std::vector<Operand>& parts, View values, int c, Operand outOfRange) {
  const auto width = static_cast<size_t>(c) / parts.size();
  Values share(values.size() / parts.size());
  for (size_t part = 0; part < parts.size(); ++part) {
    for (size_t i = 0; i < share.size(); ++i) share[i] = values[(i / width * parts.size() + part) * width + i % width];
    context.store(parts[part], share, outOfRange);
  }
}

}  // namespace revnet::reference

// Copies and comparisons of residual streams, for checks of the reconstruction.
#include <algorithm>
#include <cmath>

#include "run.h"

namespace revnet::reference {

void run(const Context& context, const Copy& op) { context.store(op.y, context.stream(op.x, op.elements)); }

void run(const Context& context, const MaximumDifference& op) {
  const Values a = context.stream(op.a, op.elements), b = context.stream(op.b, op.elements);
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    if (difference > largest || std::isnan(difference)) largest = difference;
  }
  context.reals(op.y, 1)[0] = largest;
}

}  // namespace revnet::reference

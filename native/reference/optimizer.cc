#include "run.h"

namespace revnet::reference {

void run(const Context& context, const SgdUpdate& op) {
  const MutableView parameters = context.reals(op.parameters, op.elements), momenta = context.reals(op.momenta, op.elements);
  const View gradients = context.reals(op.gradients, op.elements), hyperparameters = context.reals(op.hyperparameters, 3);
  const double learningRate = hyperparameters[0], momentum = hyperparameters[1], weightDecay = hyperparameters[2];
  for (int64_t i = 0; i < op.elements; ++i) {
    const double gradient = gradients[i] + (i < op.decayed ? weightDecay * parameters[i] : 0);
    momenta[i] = momentum * momenta[i] + gradient;
    parameters[i] -= learningRate * momenta[i];
  }
  context.checkFinite(parameters, op.notFinite);
}

}  // namespace revnet::reference

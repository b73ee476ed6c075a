#include <cmath>

#include "run.h"

namespace revnet::reference {

void run(const Context& context, const SgdUpdate& op) {
  const MutableView parameters = context.reals(op.parameters, op.elements), momenta = context.reals(op.momenta, op.elements);
  const View gradients = context.reals(op.gradients, op.elements), hyperparameters = context.reals(op.hyperparameters, 4);
  const double learningRate = hyperparameters[0], momentum = hyperparameters[1], weightDecay = hyperparameters[2];
  const bool nesterov = hyperparameters[3] != 0;
  for (int64_t i = 0; i < op.elements; ++i) {
    const double gradient = gradients[i] + (i < op.decayed ? weightDecay * parameters[i] : 0);
    momenta[i] = momentum * momenta[i] + gradient;
    parameters[i] -= learningRate * (nesterov ? gradient + momentum * momenta[i] : momenta[i]);
  }
  context.checkFinite(parameters, op.notFinite);
}

void run(const Context& context, const AdamwUpdate& op) {
  const MutableView parameters = context.reals(op.parameters, op.elements);
  const MutableView mean = context.reals(op.mean, op.elements), square = context.reals(op.square, op.elements);
  const View gradients = context.reals(op.gradients, op.elements), h = context.reals(op.hyperparameters, op.kHyperparameters);
  const double shrink = h[0], stepSize = h[1], beta1 = h[2], rest1 = h[3], beta2 = h[4], rest2 = h[5], correction = h[6],
               epsilon = h[7];
  for (int64_t i = 0; i < op.elements; ++i) {
    const double g = gradients[i];
    if (i < op.decayed) parameters[i] -= shrink * parameters[i];
    mean[i] = beta1 * mean[i] + rest1 * g;
    square[i] = beta2 * square[i] + rest2 * g * g;
    parameters[i] -= stepSize * mean[i] / (std::sqrt(square[i]) / correction + epsilon);
  }
  context.checkFinite(parameters, op.notFinite);
}

void run(const Context& context, const ClipGradientNorm& op) {
  const MutableView gradients = context.reals(op.gradients, op.elements);
  double sum = 0;
  for (const double g : gradients) sum += g * g;
  const double norm = std::sqrt(sum), factor = op.factor(op.maxNorm, norm);
  for (double& g : gradients) g *= factor;
  context.reals(op.norm, 1)[0] = norm;
}

}  // namespace revnet::reference

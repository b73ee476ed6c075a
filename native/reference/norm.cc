#include "norm.h"

#include <algorithm>
#include <cmath>

#include "run.h"

namespace revnet::reference {
namespace {

// What normalisation needs to know of one channel.
struct Channel {
  double mean, inverseDeviation, gamma, beta;
  double normalized(double x) const { return (x - mean) * inverseDeviation; }
  double activation(double x) const { return gamma * normalized(x) + beta; }  // before the ReLU
};

std::vector<Channel> channelsOf(const Context& context, const Norm& norm, int c) {
  const View statistics = context.reals(norm.statistics, 2 * int64_t{c});
  const View gamma = context.reals(norm.gamma, c), beta = context.reals(norm.beta, c);
  std::vector<Channel> channels;
  for (int j = 0; j < c; ++j)
    channels.push_back({statistics[j], 1 / std::sqrt(statistics[c + j] + norm.epsilon), gamma[j], beta[j]});
  return channels;
}

}  // namespace

void computeStatistics(View x, int c, MutableView statistics) {
  const auto width = static_cast<size_t>(c);
  const double count = static_cast<double>(x.size() / width);
  const MutableView mean = statistics.first(width), variance = statistics.last(width);
  std::fill(statistics.begin(), statistics.end(), 0.0);
  for (size_t i = 0; i < x.size(); ++i) mean[i % width] += x[i];
  for (double& value : mean) value /= count;
  for (size_t i = 0; i < x.size(); ++i) variance[i % width] += (x[i] - mean[i % width]) * (x[i] - mean[i % width]);
  for (double& value : variance) value /= count;
}

Values normForward(const Context& context, const Norm& norm, int c, View x) {
  Values y(x.begin(), x.end());
  if (!norm) return y;
  const std::vector<Channel> channels = channelsOf(context, norm, c);
  for (size_t i = 0; i < y.size(); ++i) {
    const double a = channels[i % channels.size()].activation(x[i]);
    y[i] = a < 0 ? 0 : a;  // keeps NaN
  }
  return y;
}

Values normBackward(const Context& context, const Norm& norm, const NormGradient& gradient, int c, View x, View dy) {
  Values dz(dy.begin(), dy.end());  // through the ReLU: d loss / d (gamma * xhat + beta)
  if (!norm) return dz;
  const std::vector<Channel> channels = channelsOf(context, norm, c);
  const auto width = static_cast<size_t>(c);
  const MutableView dGamma = context.reals(gradient.gamma, c), dBeta = context.reals(gradient.beta, c);
  std::fill(dGamma.begin(), dGamma.end(), 0.0);
  std::fill(dBeta.begin(), dBeta.end(), 0.0);
  for (size_t i = 0; i < x.size(); ++i) {
    const Channel& channel = channels[i % width];
    if (channel.activation(x[i]) <= 0) dz[i] = 0;
    dGamma[i % width] += dz[i] * channel.normalized(x[i]);
    dBeta[i % width] += dz[i];
  }
  // dx = gamma / deviation * (dz - mean(dz) - xhat * mean(dz * xhat)): the means are how x moves its own batch's statistics.
  const double count = static_cast<double>(x.size() / width);
  Values dx(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const Channel& channel = channels[i % width];
    const double centred = dz[i] - dBeta[i % width] / count - channel.normalized(x[i]) * dGamma[i % width] / count;
    dx[i] = channel.gamma * channel.inverseDeviation * centred;
  }
  return dx;
}

void run(const Context& context, const BatchNormReluForward& op) {
  const int c = op.extent.c;
  storeChannels(context, op.y, normForward(context, op.norm, c, context.reals(op.x, op.extent.elements())), c, op.outOfRange);
}

void run(const Context& context, const BatchNormReluBackward& op) {
  const int c = op.extent.c;
  const Values dy = joinChannels(context, op.dy, op.extent.pixels(), c);
  context.store(op.dx, normBackward(context, op.norm, op.gradient, c, context.reals(op.x, op.extent.elements()), dy));
}

// A single value has no unbiased variance; its biased one, zero, is used.
void run(const Context& context, const UpdateRunningStatistics& op) {
  const View statistics = context.reals(op.statistics, 2 * int64_t{op.c});
  const MutableView running = context.reals(op.running, 2 * int64_t{op.c});
  const double bessel = op.count > 1 ? static_cast<double>(op.count) / static_cast<double>(op.count - 1) : 1;
  for (int i = 0; i < 2 * op.c; ++i) {
    const double value = i < op.c ? statistics[i] : statistics[i] * bessel;
    running[i] = (1 - op.momentum) * running[i] + op.momentum * value;
  }
  context.checkFinite(running, op.notFinite);
}

}  // namespace revnet::reference

/**
 * Whole-network gradient checks: analytic gradients against central differences, in float64 on the reference device, where
 * rounding leaves eight digits and more to compare.
 */

import { Draws } from "../data/random.js";
import { createNetwork, type Network } from "../network/network.js";
import type { NetworkSpec } from "../network/spec.js";

export interface GradientCheck {
  name: string;
  /** Elements of this parameter that were checked. */
  checked: number;
  /** Largest |analytic - numeric| over the largest |analytic| of the parameter's gradient. */
  error: number;
}

/** Half widths of the difference. Where a ReLU's kink lies inside the wider interval, the narrower one tells it from a wrong gradient. */
const STEPS = [1e-5, 1e-6] as const;
/** Gradients below this are zero but for rounding (a bias before a batch norm, say), and errors are taken as absolute. */
const FLOOR = 1e-4;

/**
 * A network of the same kind, stem and blocks as `spec`, small enough for thousands of evaluations: narrow, two blocks a stage,
 * images just large enough for its strides.
 */
export function shrink(spec: NetworkSpec): NetworkSpec {
  const stemStride = spec.stem === "imagenet" ? 4 : 1;
  const edge = 2 * stemStride * spec.strides.reduce((product, stride) => product * stride, 1);
  return {
    ...spec,
    name: `${spec.name} (shrunken)`,
    input: [edge, edge, spec.input[2]],
    classes: Math.min(spec.classes, 5),
    filters: spec.filters.map((_, i) => 4 * Math.max(1, i)),
    units: spec.units.map(() => 2),
  };
}

/** Checks up to `samples` elements of every parameter on one batch of `batchSize` random images. */
export async function checkGradients(spec: NetworkSpec, { samples = 8, batchSize = 3, seed = 0 } = {}): Promise<GradientCheck[]> {
  const network = await createNetwork(spec, { device: "reference", streams: "float32", seed });
  try {
    const elements = batchSize * spec.input[0] * spec.input[1] * spec.input[2];
    const draws = new Draws(seed, 0, 0, elements + batchSize);
    const images = Float64Array.from({ length: elements }, () => draws.uniform(-1, 1));
    const labels = Int32Array.from({ length: batchSize }, () => draws.integer(spec.classes));
    const loss = async () => (await network.lossAndGradients(images, labels)).loss;
    const { gradients } = await network.lossAndGradients(images, labels);
    const checks: GradientCheck[] = [];
    for (const [name, gradient] of gradients) checks.push(await checkParameter(network, name, gradient.data, samples, loss));
    return checks;
  } finally {
    network.dispose();
  }
}

async function checkParameter(
  network: Network,
  name: string,
  gradient: ArrayLike<number>,
  samples: number,
  loss: () => Promise<number>,
): Promise<GradientCheck> {
  const { shape, data } = network.parameters.get(name)!;
  const checked = Math.min(samples, data.length);
  const scale = Math.max(FLOOR, ...Array.from(gradient, Math.abs));
  const at = async (index: number, value: number) => {
    const moved = Float64Array.from(data);
    moved[index] = value;
    await network.setParameters(new Map([[name, { shape, data: moved }]]));
    return loss();
  };
  let error = 0;
  for (let i = 0; i < checked; i++) {
    const index = Math.floor((i * data.length) / checked);
    let nearest = Number.POSITIVE_INFINITY;
    for (const h of STEPS) {
      const numeric = ((await at(index, data[index]! + h)) - (await at(index, data[index]! - h))) / (2 * h);
      nearest = Math.min(nearest, Math.abs(numeric - gradient[index]!) / scale);
      if (nearest < 1e-7) break;
    }
    // Not Math.max alone: it must not lose a NaN.
    error = Number.isNaN(nearest) ? Number.NaN : Math.max(error, nearest);
  }
  await network.setParameters(new Map([[name, { shape, data }]]));
  return { name, checked, error };
}

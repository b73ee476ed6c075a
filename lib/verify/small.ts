/** Small networks of each family, random images for them, and networks whose parameters hide nothing. */
import type { Split } from "../data/dataset.js";
import { createNetwork, type Network, type NetworkOptions } from "../network/network.js";
import type { NetworkSpec } from "../network/spec.js";
import { Random } from "./random.js";

const common = { stem: "cifar", input: [8, 8, 3], classes: 5, strides: [1, 2], bottleneck: false } as const;

/** One of each family, small enough for the reference. */
export const SMALL_NETWORKS: Readonly<Record<string, NetworkSpec>> = {
  revnet: { ...common, name: "tiny-revnet", kind: "revnet", filters: [8, 8, 12], units: [2, 3] },
  "revnet, bottleneck": {
    ...common,
    name: "tiny-revnet-bottleneck",
    kind: "revnet",
    filters: [8, 4, 6],
    units: [2, 2],
    bottleneck: true,
  },
  "revnet, wider first stage": { ...common, name: "tiny-revnet-wider", kind: "revnet", filters: [4, 8, 12], units: [2, 2] },
  "revnet, ImageNet stem": {
    ...common,
    name: "tiny-revnet-imagenet",
    kind: "revnet",
    stem: "imagenet",
    input: [15, 18, 3],
    filters: [8, 4, 6],
    units: [2, 2],
    bottleneck: true,
  },
  resnet: { ...common, name: "tiny-resnet", kind: "resnet", filters: [4, 4, 6], units: [2, 2] },
  "resnet, bottleneck": {
    ...common,
    name: "tiny-resnet-bottleneck",
    kind: "resnet",
    filters: [4, 2, 3],
    units: [2, 2],
    bottleneck: true,
  },
  "resnet, ImageNet stem": {
    ...common,
    name: "tiny-resnet-imagenet",
    kind: "resnet",
    stem: "imagenet",
    input: [16, 13, 3],
    filters: [4, 2, 3],
    units: [2, 2],
    bottleneck: true,
  },
};

export function randomSplit({ input: [h, w, c], classes }: NetworkSpec, count: number, seed = 1): Split {
  const random = new Random(seed);
  const images = Uint8Array.from({ length: count * h * w * c }, () => 256 * random.uniform());
  return { count, images, labels: Int32Array.from({ length: count }, () => classes * random.uniform()) };
}

/** Normalised images, [count][h][w][c], about as large as real ones. */
export function randomImages({ input: [h, w, c] }: NetworkSpec, count: number, seed = 2): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: count * h * w * c }, () => random.uniform() - 0.5);
}

/**
 * A network whose norms and biases are not at their initial 1 and 0 (nor its running statistics), so that a norm that is left
 * out, or two that are exchanged, show.
 */
export function roughNetwork(spec: NetworkSpec, options: NetworkOptions, seed = 3): Network {
  const network = createNetwork(spec, options);
  const random = new Random(seed);
  const rough = [...network.parameters].map(([name, { shape, data }]) => {
    const vector = shape.length === 1;
    const offset = (value: number) => value + (name.endsWith("running_var") ? random.uniform() : 0.4 * (random.uniform() - 0.5));
    return [name, { shape, data: vector ? Float64Array.from(data, offset) : data }] as const;
  });
  network.setParameters(new Map(rough));
  return network;
}

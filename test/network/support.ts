/** What the network suites share: the devices that they run on, small networks, and measures of agreement. */
import { expect } from "chai";
import type { Split } from "../../lib/data/dataset.js";
import { RevNetError } from "../../lib/errors.js";
import { native } from "../../lib/native/index.js";
import { createNetwork, type Network, type NetworkOptions } from "../../lib/network/network.js";
import type { NetworkSpec } from "../../lib/network/spec.js";

export interface TestDevice {
  readonly name: string;
  readonly options: NetworkOptions;
  /** Computes in float64. */
  readonly exact: boolean;
}

/** A suite is a function of the device and runs on every one there is; those that are missing are skipped aloud. */
export function onEveryDevice(title: string, suite: (device: TestDevice) => void): void {
  const found = native.devices();
  for (const name of ["reference", "cpu", "cuda"]) {
    const device = found.find((candidate) => candidate.name === name || candidate.name.startsWith(`${name}:`));
    describe(`${title} (${name})`, () => {
      if (device?.available)
        suite({ name: device.name, options: { device: device.name, threads: 2, poison: true }, exact: name === "reference" });
      else
        it(`skipped: no such device here${device ? `: ${device.description}` : ""}`, function () {
          this.skip();
        });
    });
  }
}

const common = { stem: "cifar", input: [8, 8, 3], classes: 5, strides: [1, 2], bottleneck: false } as const;

/** One of each family, small enough for the reference. */
export const TINY: Readonly<Record<string, NetworkSpec>> = {
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

/** A generator of numbers in [0, 1): mulberry32. */
export function uniform(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function randomSplit({ input: [h, w, c], classes }: NetworkSpec, count: number, seed = 1): Split {
  const next = uniform(seed);
  const images = Uint8Array.from({ length: count * h * w * c }, () => 256 * next());
  return { count, images, labels: Int32Array.from({ length: count }, () => classes * next()) };
}

/** Normalised images, [count][h][w][c], about as large as real ones. */
export function randomImages({ input: [h, w, c] }: NetworkSpec, count: number, seed = 2): Float64Array {
  const next = uniform(seed);
  return Float64Array.from({ length: count * h * w * c }, () => next() - 0.5);
}

/**
 * A network whose norms and biases are not at their initial 1 and 0 (nor its running statistics), so that a norm that is left
 * out, or two that are exchanged, show.
 */
export function roughNetwork(spec: NetworkSpec, options: NetworkOptions): Network {
  const network = createNetwork(spec, options);
  const next = uniform(3);
  const rough = [...network.parameters].map(([name, { shape, data }]) => {
    const vector = shape.length === 1;
    const offset = (value: number) => value + (name.endsWith("running_var") ? next() : 0.4 * (next() - 0.5));
    return [name, { shape, data: vector ? Float64Array.from(data, offset) : data }] as const;
  });
  network.setParameters(new Map(rough));
  return network;
}

/** ||a - b|| / ||b||, with 0 / 0 = 0. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).to.equal(b.length);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < b.length; ++i) {
    difference += (a[i]! - b[i]!) ** 2;
    norm += b[i]! ** 2;
  }
  return difference === 0 ? 0 : Math.sqrt(difference / norm);
}

export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).to.equal(b.length);
  let largest = 0;
  // Written so that NaN counts as a difference.
  for (let i = 0; i < b.length; ++i) if (!(Math.abs(a[i]! - b[i]!) <= largest)) largest = Math.abs(a[i]! - b[i]!);
  return largest;
}

/** Calls `body`, expects it to throw a RevNetError of this code, and returns the message. */
export function thrown(code: string, body: () => unknown): string {
  let error: unknown;
  try {
    body();
  } catch (caught) {
    error = caught;
  }
  expect(error, `expected ${code}`).to.be.instanceOf(RevNetError);
  expect((error as RevNetError).code, (error as RevNetError).message).to.equal(code);
  return (error as RevNetError).message;
}

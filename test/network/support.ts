/** What the network suites share: the devices that they run on, small networks, and measures of agreement. */
import { expect } from "chai";
import { RevNetError } from "../../lib/errors.js";
import { native } from "../../lib/native/index.js";
import { createNetwork, type Network, type NetworkOptions } from "../../lib/network/network.js";
import type { Activations } from "../../lib/network/recorder.js";
import type { NetworkSpec } from "../../lib/network/spec.js";
import { Random } from "../../lib/verify/random.js";
import { randomSplit } from "../../lib/verify/small.js";

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

export { randomImages, randomSplit, roughNetwork, SMALL_NETWORKS as TINY } from "../../lib/verify/small.js";

/** Of numbers in [0, 1). */
export function uniform(seed: number): () => number {
  const random = new Random(seed);
  return () => random.uniform();
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

export const BATCH = 6;
export const STEP = { learningRate: 0.1, momentum: 0.9, weightDecay: 2e-4, seed: 7n };

/** A network after some steps on random images, shifted and mirrored. */
export async function trained(spec: NetworkSpec, options: NetworkOptions, activations: Activations, steps = 5): Promise<Network> {
  const network = createNetwork(spec, options);
  const split = randomSplit(spec, 20);
  const training = await network.prepareTraining({ batchSize: BATCH, activations, data: split, padding: 2, flip: true });
  for (let step = 0; step < steps; ++step)
    await training.run({ ...STEP, step, indices: Int32Array.from({ length: BATCH }, (_, i) => (7 * step + 3 * i) % split.count) });
  await network.refreshParameters();
  return network;
}

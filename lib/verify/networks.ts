/** Whole networks on a device: their results against the float64 reference's, and what has to hold to the bit. */
import type { Precision } from "../network/device.js";
import { createNetwork, type Network } from "../network/network.js";
import type { RealArray } from "../network/parameters.js";
import type { Activations } from "../network/recorder.js";
import type { NetworkSpec } from "../network/spec.js";
import { type Budget, type Check, Failure, type Outcome, type Subject } from "./check.js";
import { OPERAND_ROUNDING } from "./expectation.js";
import { Random } from "./random.js";
import { randomImages, randomSplit, roughNetwork, SMALL_NETWORKS } from "./small.js";

export const BATCH = 6;
/** What float32's own rounding makes of the small networks at most; the golden tests' too. */
const TOLERANCE = 1e-4;
/** Times a precision's rounding: so far that ReLUs which the rounding may decide either way are likely to be among the changes. */
const MOVEMENT = 8;
const REPLAYS = 20;

export function networkChecks(subject: Subject): Check[] {
  const each = (name: string, run: (precision: Precision, budget: Budget) => Promise<Outcome>) =>
    subject.precisions.map((precision): Check => ({ name: `${name}, ${precision}`, run: (budget) => run(precision, budget) }));
  return [
    ...each("networks = reference", (precision, budget) => againstReference(subject, precision, budget)),
    ...each("reversible = stored", (precision, budget) => reversibleEqualsStored(subject, precision, budget)),
    ...each(`${REPLAYS} equal replays`, (precision, budget) => equalReplays(subject, precision, budget)),
  ];
}

// ---- Against the reference -----------------------------------------------------------------------------------------------------

/** All gradients, the logits of the batch and the loss, one after the other under their names. */
type Results = ReadonlyMap<string, ArrayLike<number>>;

async function resultsOf(network: Network, images: RealArray, activations: Activations): Promise<Results> {
  const labels = Int32Array.from({ length: BATCH }, (_, i) => i % network.spec.classes);
  const { gradients, logits, loss } = await network.lossAndGradients(images, labels, { activations });
  const named = [...gradients].map(([name, { data }]) => [`the gradient of ${name}`, data] as const);
  return new Map<string, ArrayLike<number>>([["the loss", [loss]], ["the logits", logits], ...named]);
}

/** By name: ||a - b|| / ||b||. */
function errors(a: Results, b: Results): Map<string, number> {
  return new Map(
    [...b].map(([name, expected]) => {
      const actual = a.get(name)!;
      let [difference, norm] = [0, 0];
      for (let i = 0; i < expected.length; ++i) {
        difference += (actual[i]! - expected[i]!) ** 2;
        norm += expected[i]! ** 2;
      }
      return [name, difference === 0 ? 0 : Math.sqrt(difference / norm)] as const;
    }),
  );
}

async function againstReference({ device }: Subject, precision: Precision, budget: Budget): Promise<Outcome> {
  const specs = Object.values(SMALL_NETWORKS);
  let worst = { error: 0, where: "" };
  for (const [i, spec] of specs.entries()) {
    budget.require(`${i} of ${specs.length} networks`);
    const { seed, images, expected, tolerances } = await golden(spec, OPERAND_ROUNDING[precision], budget);
    await budget.within(roughNetwork(spec, { ...device, precision }, seed), async (network) => {
      for (const activations of ["reversible", "stored"] as const)
        for (const [name, error] of errors(await resultsOf(network, images, activations), expected)) {
          const relative = error / tolerances.get(kindOf(name))!;
          // Written so that NaN counts as the worst.
          if (!(relative <= worst.error)) worst = { error: relative, where: `${name} of ${spec.name}, ${activations}` };
        }
    });
  }
  const detail = `${worst.error.toFixed(2)} x tolerance: ${worst.where}`;
  const figures = { networks: specs.length, error: worst.error };
  if (!(worst.error < 1)) throw new Failure(`off by ${detail}`, figures);
  return { detail: `${specs.length} networks, largest error ${detail}`, figures };
}

interface Golden {
  readonly seed: number;
  readonly images: Float64Array;
  readonly expected: Results;
  /** Of the relative error, by kind of result. */
  readonly tolerances: ReadonlyMap<string, number>;
}

/** A ReLU that jumps does so for some of the gradients, and not for the same ones in each draw: they have one tolerance. */
const kindOf = (name: string): string => (name.startsWith("the gradient") ? "the gradients" : name);

/**
 * A network's results on the reference, and how much they may differ where convolutions round what they multiply: twice what moving
 * weights and images several times as far changes them. Parameters with which a movement of the size of float32's own rounding
 * decides about a ReLU are drawn again.
 */
async function golden(spec: NetworkSpec, rounding: number, budget: Budget): Promise<Golden> {
  for (let seed = 1; ; ++seed) {
    budget.require();
    const images = randomImages(spec, BATCH, seed).map(Math.fround);
    const result = await budget.within(roughNetwork(spec, { device: "reference" }, seed), async (network) => {
      const before = new Map(
        [...network.parameters].map(([name, { shape, data }]) => [name, { shape, data: data.map(Math.fround) }]),
      );
      const random = new Random(seed);
      const move = (values: RealArray, by: number) => Float64Array.from(values, (x) => x * (1 + by * (2 * random.uniform() - 1)));
      const moved = async (by: number): Promise<Results> => {
        network.setParameters(new Map([...before].map(([name, { shape, data }]) => [name, { shape, data: move(data, by) }])));
        return resultsOf(network, move(images, by), "stored");
      };
      const expected = await moved(0);
      const largest = async (by: number) => {
        const most = new Map([...expected.keys()].map((name) => [kindOf(name), 0]));
        for (let i = 0; i < 5 && by > 0; ++i)
          for (const [name, error] of errors(await moved(by), expected))
            most.set(kindOf(name), Math.max(most.get(kindOf(name))!, error));
        return most;
      };
      if (Math.max(...(await largest(2 ** -22)).values()) > TOLERANCE / 2) return undefined;
      const changes = await largest(MOVEMENT * rounding);
      const tolerances = new Map([...changes].map(([kind, change]) => [kind, TOLERANCE + 2 * change]));
      return { seed, images, expected, tolerances };
    });
    if (result) return result;
  }
}

// ---- To the bit ----------------------------------------------------------------------------------------------------------------

/**
 * SHA-256 of a network's weights after so many steps that depend on nothing but the device: the bits of a kind of device, which
 * another device of that kind can be compared with.
 */
export async function trainedHash(network: Network, activations: Activations, steps: number, batchSize: number): Promise<string> {
  const data = randomSplit(network.spec, batchSize + 3);
  const training = await network.prepareTraining({ batchSize, activations, data, padding: 2, flip: true });
  for (let step = 0; step < steps; ++step) {
    const indices = Int32Array.from({ length: batchSize }, (_, i) => (7 * step + i) % data.count);
    await training.run({ learningRate: 0.1, momentum: 0.9, weightDecay: 2e-4, seed: 7n, step, indices });
  }
  await network.refreshParameters();
  return network.weightsSha256();
}

async function reversibleEqualsStored({ device }: Subject, precision: Precision, budget: Budget): Promise<Outcome> {
  const specs = Object.values(SMALL_NETWORKS).filter(({ kind }) => kind === "revnet");
  const steps = 3;
  let hash = "";
  for (const [i, spec] of specs.entries()) {
    budget.require(`${i} of ${specs.length} networks`);
    const after = (activations: Activations) =>
      budget.within(createNetwork(spec, { ...device, precision }), (network) => trainedHash(network, activations, steps, BATCH));
    const [reversible, stored] = [await after("reversible"), await after("stored")];
    if (reversible !== stored)
      throw new Failure(
        `${spec.name}: after ${steps} steps the weights are ${short(reversible)} reversible and ${short(stored)} stored`,
      );
    if (i === 0) hash = reversible;
  }
  return { detail: `${specs.length} networks, ${steps} steps; the first one's weights ${short(hash)}`, figures: { sha256: hash } };
}

async function equalReplays({ device }: Subject, precision: Precision, budget: Budget): Promise<Outcome> {
  const spec = SMALL_NETWORKS.revnet!;
  const images = randomImages(spec, BATCH);
  return budget.within(roughNetwork(spec, { ...device, precision }), async (network) => {
    const first = await resultsOf(network, images, "reversible");
    for (let i = 2; i <= REPLAYS; ++i) {
      budget.require(`${i - 1} of ${REPLAYS}`);
      const again = await resultsOf(network, images, "reversible");
      for (const [name, values] of first) {
        const other = again.get(name)!;
        for (let j = 0; j < values.length; ++j)
          if (!Object.is(values[j], other[j])) throw new Failure(`${name} differs between run 1 and run ${i}`);
      }
    }
    return { detail: `loss, logits and ${first.size - 2} gradients of ${spec.name}` };
  });
}

const short = (hash: string): string => hash.slice(0, 12);

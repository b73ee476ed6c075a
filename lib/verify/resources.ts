/** A device's memory, and networks that are stopped in mid-step. */
import { setTimeout as sleep } from "node:timers/promises";
import { RevNetError } from "../errors.js";
import { native } from "../native/index.js";
import { memoryPlan } from "../network/memory.js";
import { createNetwork, type Network } from "../network/network.js";
import { bytes } from "../text.js";
import { trainRevNet } from "../training/train.js";
import { type Budget, type Check, Failure, type Outcome, type Subject } from "./check.js";
import { BATCH, trainedHash } from "./networks.js";
import { randomSplit, SMALL_NETWORKS } from "./small.js";

const SPEC = SMALL_NETWORKS.revnet!;
/** A driver hands memory out in pages of 2 MiB, and keeps some for the code of kernels. */
const DRIVER_SLACK = 64 << 20;
/** Several times the slack. */
const SPLIT_IMAGES = 2 ** 20;
const STOPS = 5;

export function resourceChecks(subject: Subject): Check[] {
  return [
    { name: "memory counted = planned = taken", run: (budget) => memory(subject, budget) },
    { name: "abort in mid-step", run: (budget) => abort(subject, budget) },
    { name: "dispose in mid-step", run: (budget) => dispose(subject, budget) },
  ];
}

/** One step on a data set of 196 MiB. What the driver says is known of CUDA devices alone: the host's memory is everybody's. */
async function memory({ device, precisions }: Subject, budget: Budget): Promise<Outcome> {
  const options = { ...device, precision: precisions[0] };
  const available = () => native.availableMemory(device.device);
  const oneStep = async (network: Network, count: number) => {
    const image = network.spec.input.reduce((a, b) => a * b);
    const data = { count, images: new Uint8Array(count * image), labels: new Int32Array(count) };
    const training = await network.prepareTraining({ batchSize: BATCH, data });
    await training.run({ learningRate: 0, momentum: 0, weightDecay: 0, indices: Int32Array.from({ length: BATCH }, (_, i) => i) });
  };
  // The first network stays meanwhile: the driver's own memory, and the code of kernels, are there before anything is measured.
  return budget.within(createNetwork(SPEC, options), async (first) => {
    await oneStep(first, BATCH);
    const before = available();
    const planned = memoryPlan(SPEC, { ...options, batchSize: BATCH, images: SPLIT_IMAGES });
    const [counted, taken] = await budget.within(createNetwork(SPEC, options), async (network) => {
      await oneStep(network, SPLIT_IMAGES);
      return [network.memory(), before - available()] as const;
    });
    if (counted.total !== planned.total) throw new Failure(`planned ${bytes(planned.total)}, counted ${bytes(counted.total)}`);
    const figures = { planned: planned.total, counted: counted.total };
    if (!device.device.startsWith("cuda")) return { detail: `${bytes(planned.total)}, planned and counted`, figures };
    const seen = `${bytes(planned.total)} planned and counted, ${bytes(taken)} by the driver's account`;
    if (Math.abs(taken - planned.total) > DRIVER_SLACK) throw new Failure(seen, { ...figures, driver: taken });
    await given(() => before - available() < DRIVER_SLACK, budget, "memory is given back");
    return { detail: `${seen}; given back`, figures: { ...figures, driver: taken } };
  });
}

/** Disposal does not wait for the device, so this does. */
async function given(condition: () => boolean, budget: Budget, what: string): Promise<void> {
  for (const start = performance.now(); !condition(); await sleep(10)) {
    budget.require();
    if (performance.now() - start > 10_000) throw new Failure(`${what}: not within 10 s of the disposal`);
  }
}

/** The weights that the device gives when nothing goes on beside it: whether what was stopped left it as it was. */
const hash = ({ device, precisions }: Subject, budget: Budget) =>
  budget.within(createNetwork(SPEC, { ...device, precision: precisions[0] }), (network) =>
    trainedHash(network, "reversible", 2, BATCH),
  );

async function abort(subject: Subject, budget: Budget): Promise<Outcome> {
  const { device, precisions } = subject;
  const before = await hash(subject, budget);
  const { count, images, labels } = randomSplit(SPEC, 4 * BATCH);
  const split = { count, images, labels };
  const classes = Array.from({ length: SPEC.classes }, (_, i) => String(i));
  for (let i = 0; i < STOPS; ++i) {
    budget.require(`${i} of ${STOPS}`);
    const controller = new AbortController();
    const run = trainRevNet({
      model: SPEC,
      data: { name: "noise", shape: SPEC.input, classes, train: split, test: split },
      device: device.device,
      threads: device.threads,
      precision: precisions[0],
      batchSize: BATCH,
      steps: 1000,
      signal: controller.signal,
    });
    let error: unknown;
    try {
      // The next step is under way when the event comes.
      for await (const event of run) if (event.type === "step" && event.step > i) controller.abort();
      (await run).network.dispose();
    } catch (thrown) {
      error = thrown;
    }
    if (!(error instanceof RevNetError) || error.code !== "ERR_ABORTED")
      throw new Failure(`a run that was aborted after step ${i + 1} ended with ${error ?? "no error"}`);
  }
  return unharmed(before, await hash(subject, budget), "aborted");
}

async function dispose(subject: Subject, budget: Budget): Promise<Outcome> {
  const { device, precisions } = subject;
  const before = await hash(subject, budget);
  for (let i = 0; i < STOPS; ++i) {
    budget.require(`${i} of ${STOPS}`);
    const network = createNetwork(SPEC, { ...device, precision: precisions[0] });
    const data = randomSplit(SPEC, BATCH);
    const training = await network.prepareTraining({ batchSize: BATCH, data });
    const indices = Int32Array.from({ length: BATCH }, (_, j) => j);
    const step = () => training.run({ learningRate: 0.1, momentum: 0.9, weightDecay: 2e-4, indices });
    const outcomes = Array.from({ length: 8 }, () =>
      step().then(
        () => "done",
        (error: RevNetError) => error.code,
      ),
    );
    // The first time before the first step has ended, then after one step, two steps, ...
    if (i > 0) await outcomes[i - 1];
    network.dispose();
    const wrong = (await Promise.all(outcomes)).find((outcome) => outcome !== "done" && outcome !== "ERR_DISPOSED");
    if (wrong !== undefined) throw new Failure(`a step that was under way at the disposal ended with ${wrong}`);
  }
  return unharmed(before, await hash(subject, budget), "disposed of");
}

function unharmed(before: string, after: string, what: string): Outcome {
  if (before !== after) throw new Failure(`networks give other weights after ${STOPS} others were ${what} in mid-step`);
  return { detail: `${STOPS} times; the weights of another network are as before` };
}

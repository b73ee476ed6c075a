/** The training loop. */
import type { Dataset } from "../data/dataset.js";
import { meanImage, take } from "../data/dataset.js";
import { openDataset } from "../data/open.js";
import { RevNetError } from "../errors.js";
import { createNetwork, type Network } from "../network/network.js";
import { Batches } from "./batches.js";
import type { StepEvent, TrainingEvent } from "./events.js";
import { RunFolder } from "./folder.js";
import { resolveOptions, type Settings, specFor, type TrainOptions } from "./options.js";
import { type History, type TrainingResult, TrainingRun } from "./run.js";
import { learningRateAt } from "./schedule.js";
import { mean, type Summary, stepStatistics } from "./summary.js";

/** Images come as bytes and enter the network as (byte - mean) / 255. */
const SCALE = 1 / 255;

/**
 * Trains a network by SGD with momentum. The run begins at once; `await` it for the trained network, its history and the
 * summary, and iterate over it for events (see TrainingRun).
 *
 * The run fails with a RevNetError: ERR_INVALID_ARGUMENT, ERR_INVALID_SPEC, ERR_UNKNOWN_MODEL (options), ERR_INVALID_DATA (data
 * set), ERR_DEVICE_UNAVAILABLE, ERR_OUT_OF_MEMORY, ERR_NOT_FINITE (the loss became NaN or infinite), ERR_ABORTED (`signal`),
 * ERR_FILE (`outDir`).
 */
export function trainRevNet(options: TrainOptions): TrainingRun {
  return new TrainingRun((send) => train(resolveOptions(options), send));
}

type Send = (event: TrainingEvent) => Promise<void>;

async function train(settings: Settings, send: Send): Promise<TrainingResult> {
  throwIfAborted(settings.signal, 0);
  const dataset = await openData(settings);
  throwIfAborted(settings.signal, 0);
  const spec = specFor(settings.model, dataset);
  if (settings.batchSize > dataset.train.count)
    throw new RevNetError(
      "ERR_INVALID_ARGUMENT",
      `batchSize: ${settings.batchSize} is more than the ${dataset.train.count} training images of ${dataset.name}`,
    );
  const image = await meanImage(dataset.train);
  const { device, seed, threads, streams } = settings;
  const network = await createNetwork(spec, { device, seed, threads, streams });
  try {
    network.preprocessing = { mean: image, scale: SCALE };
    return await new Trainer(settings, dataset, network, send).run();
  } catch (error) {
    network.dispose();
    throw error;
  }
}

async function openData({ data, dataDir, trainCount, testCount }: Settings): Promise<Dataset> {
  return typeof data === "string" ? openDataset(data, { dataDir, trainCount, testCount }) : data;
}

function throwIfAborted(signal: AbortSignal | undefined, steps: number): void {
  if (signal?.aborted) throw new RevNetError("ERR_ABORTED", `training was aborted after ${steps} steps`, { cause: signal.reason });
}

const isAbort = (error: unknown) => error instanceof RevNetError && error.code === "ERR_ABORTED";

/** One run on one network. */
class Trainer {
  readonly #settings: Settings;
  readonly #dataset: Dataset;
  readonly #network: Network;
  readonly #send: Send;
  readonly #batches: Batches;
  /** Steps of the whole run. */
  readonly #steps: number;
  readonly #history: History = { steps: [], epochs: [], validations: [] };
  #folder: RunFolder | undefined;
  #outOfRange = 0;

  constructor(settings: Settings, dataset: Dataset, network: Network, send: Send) {
    this.#settings = settings;
    this.#dataset = dataset;
    this.#network = network;
    this.#send = send;
    this.#batches = new Batches(dataset.train.count, settings.batchSize, settings.seed);
    this.#steps = "steps" in settings.length ? settings.length.steps : settings.length.epochs * this.#batches.stepsPerEpoch;
  }

  async run(): Promise<TrainingResult> {
    const { outDir } = this.#settings;
    if (outDir !== undefined) this.#folder = await RunFolder.create(outDir, this.#config());
    try {
      await this.#train();
      return { network: this.#network, history: this.#history, summary: await this.#finish(true) };
    } catch (error) {
      // What was trained so far is worth keeping after an abort; after a failure the weights may be anything.
      if (isAbort(error) && this.#folder) await this.#finish(false);
      throw error;
    } finally {
      await this.#folder?.close();
    }
  }

  async #train(): Promise<void> {
    const { batchSize, activations, optimizer, schedule, augment, seed, signal, validateEvery } = this.#settings;
    const { stepsPerEpoch } = this.#batches;
    const step = await this.#network.prepareTraining({ batchSize, activations, data: this.#dataset.train, ...augment });
    await this.#send({
      type: "start",
      model: this.#network.spec.name,
      device: this.#network.deviceChoice,
      parameters: this.#network.parameterCount,
      steps: this.#steps,
      stepsPerEpoch,
      batchSize,
    });
    const hyperparameters = { momentum: optimizer.momentum, weightDecay: optimizer.weightDecay, seed };
    let indices = this.#batches.at(0);
    let epochStart = performance.now();
    for (let done = 0; done < this.#steps; ) {
      throwIfAborted(signal, done);
      const learningRate = learningRateAt(schedule, optimizer.learningRate, done, this.#steps);
      const start = performance.now();
      const running = step.run({ ...hyperparameters, learningRate, step: done, indices });
      // While the step runs on its own thread, choose the next one's images.
      if (done + 1 < this.#steps) indices = this.#batches.at(done + 1);
      const { loss, correct, outOfRange } = await running;
      done += 1;
      const epoch = Math.ceil(done / stepsPerEpoch);
      if (!Number.isFinite(loss))
        throw new RevNetError(
          "ERR_NOT_FINITE",
          `the loss of step ${done} is ${loss} (learning rate ${learningRate}); try a lower learning rate`,
        );
      const milliseconds = performance.now() - start;
      await this.#report({ type: "step", step: done, epoch, loss, error: 1 - correct / batchSize, learningRate, milliseconds });
      if (outOfRange > 0) {
        this.#outOfRange += outOfRange;
        await this.#report({ type: "outOfRange", step: done, count: outOfRange });
      }
      const endsEpoch = done % stepsPerEpoch === 0;
      if (done % (validateEvery ?? stepsPerEpoch) === 0 || done === this.#steps) await this.#validate(done, epoch);
      if (endsEpoch) {
        const steps = this.#history.steps.slice(-stepsPerEpoch);
        await this.#report({ type: "epoch", epoch, step: done, ...averages(steps), milliseconds: performance.now() - epochStart });
        epochStart = performance.now();
      }
    }
  }

  async #validate(step: number, epoch: number): Promise<void> {
    const { signal, batchSize } = this.#settings;
    throwIfAborted(signal, step);
    const start = performance.now();
    const { loss, error } = await this.#network.evaluate(this.#dataset.test, { batchSize, ...(signal && { signal }) });
    await this.#report({ type: "validation", step, epoch, loss, error, milliseconds: performance.now() - start });
  }

  /** Into the history, metrics.jsonl and the events. */
  async #report(event: TrainingEvent): Promise<void> {
    if (event.type === "step") this.#history.steps.push(event);
    if (event.type === "epoch") this.#history.epochs.push(event);
    if (event.type === "validation") this.#history.validations.push(event);
    await this.#folder?.log(event);
    await this.#send(event);
  }

  /** Writes what remains to be written; `complete`: the run was not aborted. */
  async #finish(complete: boolean): Promise<Summary> {
    await this.#network.refreshParameters();
    const summary = await this.#summary(complete);
    if (this.#folder) {
      await this.#network.save(this.#folder.modelFile);
      await this.#folder.writeSummary(summary);
    }
    if (complete) await this.#send({ type: "done", summary });
    return summary;
  }

  async #summary(complete: boolean): Promise<Summary> {
    const { activations, streams, precision, threads, seed, batchSize } = this.#settings;
    const { steps, validations } = this.#history;
    const { kind, name } = this.#network.spec;
    const stepMilliseconds = stepStatistics(steps.map(({ milliseconds }) => milliseconds));
    const last = validations.at(-1);
    const validation = last?.step === steps.length ? last : undefined;
    // Before `reconstruct`, which keeps a copy of every block's inputs to compare with.
    const memory = this.#network.memory();
    return {
      model: name,
      kind,
      parameters: this.#network.parameterCount,
      activations,
      streams,
      precision,
      device: this.#network.device,
      threads,
      seed,
      batchSize,
      steps: steps.length,
      epochs: steps.length / this.#batches.stepsPerEpoch,
      trainLoss: steps.length > 0 ? averages(steps.slice(-this.#batches.stepsPerEpoch)).loss : null,
      testLoss: validation?.loss ?? null,
      testError: validation?.error ?? null,
      stepMilliseconds,
      imagesPerSecond: stepMilliseconds.median > 0 ? (1000 * batchSize) / stepMilliseconds.median : 0,
      memory,
      reconstruction: {
        exact: complete && activations === "reversible" ? await this.#isExact() : null,
        outOfRange: this.#outOfRange,
      },
      weightsSha256: this.#network.weightsSha256(),
    };
  }

  /** Whether inverting the trained network on a training batch gives back every block's inputs, bit for bit; null where no block is invertible. */
  async #isExact(): Promise<boolean | null> {
    const { kind, units } = this.#network.spec;
    if (kind !== "revnet" || units.every((count) => count === 1)) return null;
    const { images } = take(this.#dataset.train, this.#settings.batchSize);
    return (await this.#network.reconstruct(images)).max === 0;
  }

  #config(): object {
    const { signal: _, length, data, model: __, ...settings } = this.#settings;
    return {
      model: this.#network.spec,
      data: typeof data === "string" ? data : data.name,
      ...settings,
      ...length,
      steps: this.#steps,
    };
  }
}

function averages(steps: readonly StepEvent[]): { loss: number; error: number } {
  return { loss: mean(steps.map(({ loss }) => loss)), error: mean(steps.map(({ error }) => error)) };
}

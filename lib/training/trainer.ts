/** The training loop. */
import type { MemoryReport } from "../../binding.js";
import { type AnyDataset, type BrokenImage, type Dataset, isStreamed, meanImage, readImages } from "../data/dataset.js";
import { openDataset } from "../data/open.js";
import { readDataset } from "../data/sequence.js";
import { RevNetError } from "../errors.js";
import { resolveModel } from "../network/models.js";
import { createNetwork, type Network } from "../network/network.js";
import type { TrainingStep } from "../network/training-step.js";
import type { Findings } from "../report/analysis.js";
import { Batches } from "./batches.js";
import { type Best, type Progress, restore } from "./checkpoint.js";
import type { StepEvent, TrainingEvent, ValidationEvent } from "./events.js";
import { type Fed, type Feed, feedOf } from "./feed.js";
import { identityOf } from "./identity.js";
import { Keeper } from "./keeper.js";
import type { MetricsRecord } from "./metrics.js";
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
 * ERR_FILE, ERR_RUN_EXISTS, ERR_RUN_LOCKED (`outDir`), ERR_RESUME_MISMATCH (`resume` with other options).
 */
export function trainRevNet(options: TrainOptions): TrainingRun {
  return new TrainingRun((send) => train(resolveOptions(options), send));
}

type Send = (event: TrainingEvent) => Promise<void>;

async function train(settings: Settings, send: Send): Promise<TrainingResult> {
  throwIfAborted(settings.signal, 0);
  const dataset = await openData(settings, send);
  try {
    return await trainOn(dataset, settings, send);
  } finally {
    // A stream that was opened by the caller may be wanted again.
    if ("close" in dataset && typeof settings.data === "string") await dataset.close();
  }
}

async function trainOn(dataset: AnyDataset, settings: Settings, send: Send): Promise<TrainingResult> {
  throwIfAborted(settings.signal, 0);
  const spec = specFor(settings.model, dataset);
  if (settings.batchSize > dataset.train.count)
    throw new RevNetError(
      "ERR_INVALID_ARGUMENT",
      `batchSize: ${settings.batchSize} is more than the ${dataset.train.count} training images of ${dataset.name}`,
    );
  const onProgress = (done: number, total: number) => void send({ type: "data", done, total });
  const image = "mean" in dataset ? await dataset.mean(onProgress) : await meanImage((dataset as Dataset).train);
  const { device, seed, threads, streams } = settings;
  const network = await createNetwork(spec, { device, seed, threads, streams });
  try {
    network.preprocessing = { mean: image, scale: SCALE };
    network.classNames = dataset.classes;
    return await new Trainer(settings, dataset, network, send).run();
  } catch (error) {
    network.dispose();
    throw error;
  }
}

async function openData(settings: Settings, send: Send): Promise<AnyDataset> {
  const { data, dataDir, trainCount, testCount, validationShare, brokenImages, signal } = settings;
  const shape = resolveModel(settings.model).input;
  if (typeof data !== "string") return readDataset(data, shape, signal);
  return openDataset(data, {
    dataDir,
    trainCount,
    testCount,
    validationShare,
    brokenImages,
    shape,
    onWarning: ({ code, message }) => void send({ type: "warning", step: 0, code, message }),
  });
}

function throwIfAborted(signal: AbortSignal | undefined, steps: number): void {
  if (signal?.aborted) throw new RevNetError("ERR_ABORTED", `training was aborted after ${steps} steps`, { cause: signal.reason });
}

const isAbort = (error: unknown) => error instanceof RevNetError && error.code === "ERR_ABORTED";

/** One run on one network. */
class Trainer {
  readonly #settings: Settings;
  readonly #dataset: AnyDataset;
  readonly #network: Network;
  readonly #send: Send;
  readonly #batches: Batches;
  /** Steps of the whole run. */
  readonly #steps: number;
  readonly #history: History = { steps: [], epochs: [], validations: [] };
  #keeper: Keeper | undefined;
  /** Steps done. */
  #done = 0;
  /** Whether any of them was done by this process; otherwise memory is what one would have taken. */
  #trained = false;
  #planned: MemoryReport | undefined;
  #outOfRange = 0;
  #best: Best | null = null;
  #sinceBest = 0;
  /** Step of the last validation. */
  #validated = 0;
  /** With `patience`: the parameters at the best validation, unless the run was resumed since. */
  #bestParameters: Network["parameters"] | undefined;
  #epochStart = 0;
  /** By file. */
  readonly #broken = new Map<string, BrokenImage>();
  #evaluation: Findings["evaluation"];
  #reconstruction: Findings["reconstruction"];

  constructor(settings: Settings, dataset: AnyDataset, network: Network, send: Send) {
    this.#settings = settings;
    this.#dataset = dataset;
    this.#network = network;
    this.#send = send;
    this.#batches = new Batches(dataset.train.count, settings.batchSize, settings.seed);
    this.#steps = "steps" in settings.length ? settings.length.steps : settings.length.epochs * this.#batches.stepsPerEpoch;
  }

  async run(): Promise<TrainingResult> {
    const { outDir, keepCheckpoints } = this.#settings;
    if (outDir !== undefined) {
      const identity = await identityOf(this.#settings, this.#dataset, this.#network, this.#steps);
      this.#keeper = await Keeper.open(outDir, identity, keepCheckpoints, this.#send);
    }
    try {
      await this.#train();
      const { summary, fileError } = await this.#finish(true);
      return { network: this.#network, history: this.#history, summary, ...(fileError && { fileError }) };
    } catch (error) {
      // What was trained so far is worth keeping after an abort; after a failure the weights may be anything.
      if (isAbort(error) && this.#keeper) await this.#finish(false);
      throw error;
    } finally {
      await this.#keeper?.close();
    }
  }

  async #train(): Promise<void> {
    const { batchSize, activations, augment } = this.#settings;
    const { stepsPerEpoch } = this.#batches;
    const { train } = this.#dataset;
    const data = isStreamed(train) ? { bytes: true } : { data: train };
    const { padding, flip } = augment;
    const step = await this.#network.prepareTraining({ batchSize, activations, padding, flip, ...data });
    this.#planned = step.planned();
    if (this.#keeper) await this.#begin(this.#keeper);
    await this.#send({
      type: "start",
      model: this.#network.spec.name,
      device: this.#network.deviceChoice,
      parameters: this.#network.parameterCount,
      steps: this.#steps,
      stepsPerEpoch,
      batchSize,
      resumedFrom: this.#done,
    });
    const before = [...this.#history.steps, ...this.#history.validations].filter(({ epoch }) => epoch > this.#done / stepsPerEpoch);
    this.#epochStart = performance.now() - before.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
    // An abort may have come before what follows the last step.
    if (this.#done > 0) await this.#afterStep();
    if (this.#done >= this.#steps) return;
    const feed = feedOf(train, this.#batches, this.#settings, [this.#done, this.#steps]);
    try {
      await this.#loop(step, feed);
    } finally {
      await feed.close();
    }
  }

  async #loop(step: TrainingStep, feed: Feed): Promise<void> {
    if (this.#isExhausted()) return;
    let fed = await settled(feed.next());
    while (this.#done < this.#steps && !this.#isExhausted()) {
      throwIfAborted(this.#settings.signal, this.#done);
      if ("error" in fed) throw fed.error;
      fed = await this.#step(step, fed.value, feed);
      await this.#afterStep();
    }
  }

  /** Starts the files of a run, or goes on from its last checkpoint. */
  async #begin(keeper: Keeper): Promise<void> {
    if (!this.#settings.resume) await keeper.refuseExisting();
    const checkpoint = this.#settings.resume ? await keeper.find() : undefined;
    if (checkpoint) {
      restore(checkpoint, this.#network);
      const { step, outOfRange, best, sinceBest, validated } = checkpoint.progress;
      [this.#done, this.#outOfRange] = [step, outOfRange];
      [this.#best, this.#sinceBest, this.#validated] = [best, sinceBest, validated];
    }
    const records = await keeper.begin(this.#config(), checkpoint?.progress);
    for (const record of records) this.#remember(record);
  }

  /** Trains on a batch; returns the next step's, or why there is none. */
  async #step(training: TrainingStep, { batch, broken }: Fed, feed: Feed): Promise<Settled<Fed>> {
    const { batchSize, optimizer, schedule, seed } = this.#settings;
    const { momentum, weightDecay } = optimizer;
    const learningRate = learningRateAt(schedule, optimizer.learningRate, this.#done, this.#steps);
    const start = performance.now();
    const running = training.run({ momentum, weightDecay, seed, learningRate, step: this.#done, ...batch });
    // While the step runs on its own thread, the next one's images are chosen, or made. Time spent on waiting for them is the step's.
    const feeding = settled(feed.next());
    const { loss, correct, outOfRange } = await running;
    const step = ++this.#done;
    this.#trained = true;
    if (!Number.isFinite(loss)) {
      const what = `the loss of step ${step} is ${loss} (learning rate ${learningRate}); try a lower learning rate`;
      throw this.#keeper?.notFinite(what) ?? new RevNetError("ERR_NOT_FINITE", what);
    }
    const next = await feeding;
    const milliseconds = performance.now() - start;
    await this.#reportBroken(broken);
    await this.#report({
      type: "step",
      step,
      epoch: this.#epoch,
      loss,
      error: 1 - correct / batchSize,
      learningRate,
      milliseconds,
    });
    if (outOfRange > 0) {
      this.#outOfRange += outOfRange;
      await this.#report({ type: "outOfRange", step, count: outOfRange });
    }
    return next;
  }

  /** Those that the run has not met before. */
  async #reportBroken(broken: readonly BrokenImage[]): Promise<void> {
    for (const image of broken)
      if (!this.#broken.has(image.file)) await this.#report({ type: "brokenImage", step: this.#done, ...image });
  }

  /** What is due after so many steps: validation, the end of an epoch, a checkpoint; not again what was done before a resume. */
  async #afterStep(): Promise<void> {
    const { stepsPerEpoch } = this.#batches;
    const { validateEvery = stepsPerEpoch, checkpointEvery = stepsPerEpoch } = this.#settings;
    const { epochs, steps, validations } = this.#history;
    const done = this.#done;
    if ((done % validateEvery === 0 || done === this.#steps) && validations.at(-1)?.step !== done) await this.#validate();
    if (done % stepsPerEpoch === 0 && epochs.at(-1)?.step !== done) {
      const milliseconds = performance.now() - this.#epochStart;
      await this.#report({ type: "epoch", epoch: this.#epoch, step: done, ...averages(steps.slice(-stepsPerEpoch)), milliseconds });
      this.#epochStart = performance.now();
    }
    if (this.#keeper && done % checkpointEvery === 0 && done < this.#steps) {
      await this.#network.refreshParameters();
      await this.#keeper.checkpoint(this.#network, this.#progress());
    }
  }

  async #validate(): Promise<void> {
    const { signal, batchSize, patience } = this.#settings;
    const step = this.#done;
    throwIfAborted(signal, step);
    const start = performance.now();
    const evaluation = await this.#network.evaluate(this.#dataset.test, { batchSize, ...(signal && { signal }) });
    const { loss, error } = evaluation;
    // The report shows the one of the network that is kept.
    if (patience === undefined || isBetter({ loss, error }, this.#best)) this.#evaluation = { ...evaluation, step };
    await this.#reportBroken(evaluation.broken);
    await this.#report({ type: "validation", step, epoch: this.#epoch, loss, error, milliseconds: performance.now() - start });
    // Seen before, if metrics.jsonl was lost.
    if (step === this.#validated) return;
    this.#validated = step;
    if (!isBetter({ loss, error }, this.#best)) {
      this.#sinceBest += 1;
      return;
    }
    this.#best = { step, loss, error };
    this.#sinceBest = 0;
    if (patience === undefined && !this.#keeper) return;
    await this.#network.refreshParameters();
    if (patience !== undefined) this.#bestParameters = this.#network.parameters;
    await this.#keeper?.best(this.#network, this.#progress());
  }

  /** Whether too many validations have passed without a better one. */
  #isExhausted(): boolean {
    return this.#sinceBest >= (this.#settings.patience ?? Infinity);
  }

  /** The epoch of the last step, from 1. */
  get #epoch(): number {
    return Math.ceil(this.#done / this.#batches.stepsPerEpoch);
  }

  #progress(): Omit<Progress, "metricsBytes"> {
    return {
      step: this.#done,
      outOfRange: this.#outOfRange,
      best: this.#best,
      sinceBest: this.#sinceBest,
      validated: this.#validated,
    };
  }

  /** Into the history, metrics.jsonl and the events. */
  async #report(event: MetricsRecord): Promise<void> {
    this.#remember(event);
    await this.#keeper?.log(event);
    await this.#send(event);
  }

  #remember(record: MetricsRecord): void {
    if (record.type === "brokenImage") this.#broken.set(record.file, { file: record.file, reason: record.reason });
    if (record.type === "step") this.#history.steps.push(record);
    if (record.type === "epoch") this.#history.epochs.push(record);
    if (record.type === "validation") this.#history.validations.push(record);
  }

  /** Writes what remains to be written; `complete`: the run was not aborted. */
  async #finish(complete: boolean): Promise<{ summary: Summary; fileError: RevNetError | undefined }> {
    await this.#network.refreshParameters();
    const unkept = await this.#keeper?.checkpoint(this.#network, this.#progress());
    const restored = complete && this.#settings.patience !== undefined && (await this.#restoreBest());
    const summary = await this.#summary(complete, restored ? this.#best : this.#lastValidation());
    const fileError = (await this.#keeper?.finish(this.#network, summary, this.#findings())) ?? unkept;
    if (complete) await this.#send({ type: "done", summary });
    return { summary, fileError };
  }

  /** The validation after the last step, if there was one. */
  #lastValidation(): ValidationEvent | undefined {
    const last = this.#history.validations.at(-1);
    return last?.step === this.#done ? last : undefined;
  }

  /** Gives the network the parameters of the best validation. Whether it has them now. */
  async #restoreBest(): Promise<boolean> {
    if (this.#best === null || this.#best.step === this.#done) return false;
    const { step } = this.#best;
    const parameters = this.#bestParameters ?? (await this.#keeper?.readBest(step))?.parameters;
    if (parameters) this.#network.setParameters(parameters);
    else
      await this.#send({
        type: "warning",
        step: this.#done,
        code: "ERR_FILE",
        message: `the parameters of the best validation, at step ${step}, are lost; the network has those of the last step`,
      });
    return parameters !== undefined;
  }

  async #summary(complete: boolean, validation: Pick<ValidationEvent, "loss" | "error"> | null | undefined): Promise<Summary> {
    const { activations, streams, precision, threads, seed, batchSize } = this.#settings;
    const { steps } = this.#history;
    const { kind, name } = this.#network.spec;
    const stepMilliseconds = stepStatistics(steps.map(({ milliseconds }) => milliseconds));
    // Before `reconstruct`, which keeps a copy of every block's inputs to compare with.
    const memory = this.#trained ? this.#network.memory() : this.#planned!;
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
      steps: this.#done,
      epochs: this.#done / this.#batches.stepsPerEpoch,
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
      brokenImages: [...this.#broken.values()],
      weightsSha256: this.#network.weightsSha256(),
    };
  }

  /** Whether inverting the trained network on a training batch gives back every block's inputs, bit for bit; null where no block is invertible. */
  async #isExact(): Promise<boolean | null> {
    const { kind, units } = this.#network.spec;
    if (kind !== "revnet" || units.every((count) => count === 1)) return null;
    const first = Array.from({ length: this.#settings.batchSize }, (_, i) => i);
    const images = await readImages(this.#dataset.train, first);
    this.#reconstruction = await this.#network.reconstruct(images);
    return this.#reconstruction.max === 0;
  }

  /** What the report is made of, besides the run's other files. */
  #findings(): Findings {
    const { batchSize, streams, threads } = this.#settings;
    const { spec, device } = this.#network;
    return {
      spec,
      dataset: this.#dataset,
      plan: { batchSize, streams, threads, device },
      evaluation: this.#evaluation,
      reconstruction: this.#reconstruction,
    };
  }

  #config(): object {
    const { signal: _, length, data, model: __, resume: ___, ...settings } = this.#settings;
    return {
      model: this.#network.spec,
      data: typeof data === "string" ? data : data.name,
      ...settings,
      ...length,
      steps: this.#steps,
    };
  }
}

type Settled<T> = { value: T } | { error: unknown };

/** What a promise came to, as a value. */
const settled = <T>(promise: Promise<T>): Promise<Settled<T>> =>
  promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );

function averages(steps: readonly StepEvent[]): { loss: number; error: number } {
  return { loss: mean(steps.map(({ loss }) => loss)), error: mean(steps.map(({ error }) => error)) };
}

function isBetter({ loss, error }: Omit<Best, "step">, best: Best | null): boolean {
  if (!Number.isFinite(loss)) return false;
  return best === null || error < best.error || (error === best.error && loss < best.loss);
}

/** The training loop: one run on one network. */
import type { MemoryReport } from "../../binding.js";
import { type AnyDataset, type BrokenImage, isStreamed, readImages } from "../data/dataset.js";
import { RevNetError } from "../errors.js";
import { requireMemory } from "../network/memory.js";
import type { Network } from "../network/network.js";
import { type ByteBatch, everyRow, type TrainingStep } from "../network/training-step.js";
import { larger, type Verification, type VerificationResult } from "../network/verification.js";
import type { Findings } from "../report/analysis.js";
import { Batches } from "./batches.js";
import { BestSoFar } from "./best.js";
import { type Progress, restore } from "./checkpoint.js";
import type { TrainingEvent, ValidationEvent } from "./events.js";
import { type Fed, type Feed, feedOf } from "./feed.js";
import { identityOf } from "./identity.js";
import { Keeper } from "./keeper.js";
import { Live } from "./live.js";
import type { MetricsRecord } from "./metrics.js";
import type { Settings } from "./options.js";
import type { History, TrainingResult } from "./run.js";
import { learningRateAt } from "./schedule.js";
import { averages, type Summary, summarize } from "./summary.js";

export type Send = (event: TrainingEvent) => Promise<void>;

export function throwIfAborted(signal: AbortSignal | undefined, steps: number): void {
  if (signal?.aborted) throw new RevNetError("ERR_ABORTED", `training was aborted after ${steps} steps`, { cause: signal.reason });
}

const isAbort = (error: unknown) => error instanceof RevNetError && error.code === "ERR_ABORTED";

export class Trainer {
  readonly #settings: Settings;
  readonly #dataset: AnyDataset;
  readonly #network: Network;
  readonly #send: Send;
  readonly #batches: Batches;
  /** Steps of the whole run. */
  readonly #steps: number;
  readonly #history: History = { steps: [], epochs: [], validations: [], verifications: [] };
  #keeper: Keeper | undefined;
  /** Steps done. */
  #done = 0;
  /** Whether any of them was done by this process; otherwise memory is what one would have taken. */
  #trained = false;
  #planned: MemoryReport | undefined;
  #verification: Verification | undefined;
  #live: Live | undefined;
  #outOfRange = 0;
  readonly #best = new BestSoFar();
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
    let failure: unknown;
    let written = false;
    try {
      await this.#train();
      const { summary, fileError } = await this.#finish(true);
      written = !fileError;
      return { network: this.#network, history: this.#history, summary, ...(fileError && { fileError }) };
    } catch (error) {
      failure = error;
      // What was trained so far is worth keeping after an abort; after a failure the weights may be anything.
      if (isAbort(error) && this.#keeper) written = !(await this.#finish(false)).fileError;
      throw error;
    } finally {
      await this.#live?.end(this.#done, failure, written && this.#keeper !== undefined);
      await this.#keeper?.close();
    }
  }

  async #train(): Promise<void> {
    const { batchSize } = this.#settings;
    const { stepsPerEpoch } = this.#batches;
    const step = await this.#prepare();
    if (this.#keeper) await this.#begin(this.#keeper);
    await this.#openLive();
    await this.#send({
      type: "start",
      model: this.#network.spec.name,
      device: this.#network.deviceChoice,
      parameters: this.#network.parameterCount,
      steps: this.#steps,
      stepsPerEpoch,
      batchSize,
      resumedFrom: this.#done,
      memory: this.#planned!,
    });
    const { steps, validations, verifications } = this.#history;
    const before = [...steps, ...validations, ...verifications].filter(({ epoch }) => epoch > this.#done / stepsPerEpoch);
    this.#epochStart = performance.now() - before.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
    // An abort may have come before what follows the last step.
    if (this.#done > 0) await this.#afterStep();
    if (this.#done >= this.#steps || this.#isExhausted()) return;
    const feed = this.#feed(this.#done, this.#steps);
    try {
      await this.#loop(step, feed);
    } finally {
      await feed.close();
    }
  }

  async #loop(step: TrainingStep, feed: Feed): Promise<void> {
    let fed = await settled(feed.next());
    while (this.#done < this.#steps && !this.#isExhausted()) {
      throwIfAborted(this.#settings.signal, this.#done);
      if ("error" in fed) throw fed.error;
      fed = await this.#step(step, fed.value, feed);
      await this.#afterStep();
    }
  }

  /** Of steps [first, end). */
  #feed(first: number, end: number): Feed {
    return feedOf(this.#dataset.train, this.#batches, this.#settings, [first, end]);
  }

  /** Records the programs of the run, and sees whether there is memory for them. */
  async #prepare(): Promise<TrainingStep> {
    const { batchSize, activations, augment, verifyEvery } = this.#settings;
    const { train } = this.#dataset;
    const { padding, flip } = augment;
    const options = { batchSize, activations, padding, flip, ...(isStreamed(train) ? { bytes: true } : { data: train }) };
    const step = await this.#network.prepareTraining(options);
    this.#planned = step.planned();
    if (verifyEvery !== undefined) {
      this.#verification = await this.#network.prepareVerification(options);
      this.#planned = larger(this.#planned, this.#verification.planned());
    }
    const { streams, threads, precision } = this.#settings;
    const verify = this.#verification !== undefined;
    const images = isStreamed(train) ? undefined : train.count;
    const on = { device: this.#network.device, threads, precision };
    requireMemory(
      this.#network.spec,
      { batchSize, activations, streams, verify, images, ...on },
      this.#planned,
      this.#network.memory(),
    );
    return step;
  }

  /** With `ui`: the page shows what was before a resume as well. */
  async #openLive(): Promise<void> {
    if (this.#settings.ui === undefined) return;
    const [memory, resumedFrom, steps] = [this.#planned!, this.#done, this.#steps];
    this.#live = await Live.open(this.#settings, this.#network, this.#config(), { memory, resumedFrom, steps });
    const { steps: before, validations, verifications } = this.#history;
    for (const record of [...before, ...validations, ...verifications]) this.#live.take(record);
    if (this.#outOfRange > 0) this.#live.take({ type: "outOfRange", step: this.#done, count: this.#outOfRange });
    for (const image of this.#broken.values()) this.#live.take({ type: "brokenImage", step: this.#done, ...image });
    await this.#send({ type: "ui", url: this.#live.url });
  }

  /** Starts the files of a run, or goes on from its last checkpoint. */
  async #begin(keeper: Keeper): Promise<void> {
    if (!this.#settings.resume) await keeper.refuseExisting();
    const checkpoint = this.#settings.resume ? await keeper.find() : undefined;
    if (checkpoint) {
      restore(checkpoint, this.#network);
      const { step, outOfRange } = checkpoint.progress;
      [this.#done, this.#outOfRange] = [step, outOfRange];
      this.#best.restore(checkpoint.progress);
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
    const { validateEvery = stepsPerEpoch, checkpointEvery = stepsPerEpoch, verifyEvery = Infinity } = this.#settings;
    const { epochs, steps, validations, verifications } = this.#history;
    const done = this.#done;
    if ((done % validateEvery === 0 || done === this.#steps) && validations.at(-1)?.step !== done) await this.#validate();
    if (done % stepsPerEpoch === 0 && epochs.at(-1)?.step !== done) {
      const milliseconds = performance.now() - this.#epochStart;
      await this.#report({ type: "epoch", epoch: this.#epoch, step: done, ...averages(steps.slice(-stepsPerEpoch)), milliseconds });
      this.#epochStart = performance.now();
    }
    if (done % verifyEvery === 0 && verifications.at(-1)?.step !== done) await this.#verify();
    if (this.#keeper && done % checkpointEvery === 0 && done < this.#steps) {
      await this.#network.refreshParameters();
      await this.#keeper.checkpoint(this.#network, this.#progress());
    }
  }

  async #verify(): Promise<void> {
    throwIfAborted(this.#settings.signal, this.#done);
    const start = performance.now();
    const step = this.#done - 1; // counted from 0
    const { blocks, maxError, cosine } = await this.#verifyStep(this.#verification!, step);
    const milliseconds = performance.now() - start;
    await this.#report({
      type: "verification",
      step: this.#done,
      epoch: this.#epoch,
      maxError,
      cosine,
      blocks: [...blocks],
      milliseconds,
    });
  }

  /** The images of a stream are still on the device, unless the step was done before a resume. */
  async #verifyStep(verification: Verification, step: number): Promise<VerificationResult> {
    const { seed, batchSize } = this.#settings;
    if (!isStreamed(this.#dataset.train)) return verification.run({ seed, step, indices: this.#batches.at(step) });
    const key = { seed, step, indices: everyRow(batchSize) };
    if (this.#trained) return verification.run(key);
    const feed = this.#feed(step, step + 1);
    try {
      const { batch, broken } = await feed.next();
      await this.#reportBroken(broken);
      return await verification.run(key, batch as ByteBatch);
    } finally {
      await feed.close();
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
    if (patience === undefined || this.#best.isBeatenBy(evaluation)) this.#evaluation = { ...evaluation, step };
    await this.#reportBroken(evaluation.broken);
    await this.#report({ type: "validation", step, epoch: this.#epoch, loss, error, milliseconds: performance.now() - start });
    if (!this.#best.take(step, evaluation)) return;
    if (patience === undefined && !this.#keeper) return;
    await this.#network.refreshParameters();
    if (patience !== undefined) this.#best.parameters = this.#network.parameters;
    await this.#keeper?.best(this.#network, this.#progress());
  }

  /** Whether too many validations have passed without a better one. */
  #isExhausted(): boolean {
    return this.#best.since >= (this.#settings.patience ?? Infinity);
  }

  /** The epoch of the last step, from 1. */
  get #epoch(): number {
    return Math.ceil(this.#done / this.#batches.stepsPerEpoch);
  }

  #progress(): Omit<Progress, "metricsBytes"> {
    return { step: this.#done, outOfRange: this.#outOfRange, ...this.#best.progress };
  }

  /** Into the history, metrics.jsonl and the events. */
  async #report(event: MetricsRecord): Promise<void> {
    this.#remember(event);
    this.#live?.take(event);
    await this.#keeper?.log(event);
    await this.#send(event);
  }

  #remember(record: MetricsRecord): void {
    if (record.type === "brokenImage") this.#broken.set(record.file, { file: record.file, reason: record.reason });
    if (record.type === "step") this.#history.steps.push(record);
    if (record.type === "epoch") this.#history.epochs.push(record);
    if (record.type === "validation") this.#history.validations.push(record);
    if (record.type === "verification") this.#history.verifications.push(record);
  }

  /** Writes what remains to be written; `complete`: the run was not aborted. */
  async #finish(complete: boolean): Promise<{ summary: Summary; fileError: RevNetError | undefined }> {
    await this.#network.refreshParameters();
    const unkept = await this.#keeper?.checkpoint(this.#network, this.#progress());
    const restored = complete && this.#settings.patience !== undefined && (await this.#restoreBest());
    const summary = await this.#summary(complete, restored ? this.#best.best : this.#lastValidation());
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
    const { best } = this.#best;
    if (best === null || best.step === this.#done) return false;
    const { step } = best;
    const parameters = this.#best.parameters ?? (await this.#keeper?.readBest(step))?.parameters;
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
    // Before `reconstruct`, which keeps a copy of every block's inputs to compare with.
    const memory = this.#trained ? this.#network.memory() : this.#planned!;
    const exact = complete && this.#settings.activations === "reversible" ? await this.#isExact() : null;
    return summarize({
      settings: this.#settings,
      network: this.#network,
      steps: this.#history.steps,
      done: this.#done,
      stepsPerEpoch: this.#batches.stepsPerEpoch,
      validation,
      memory,
      reconstruction: { exact, outOfRange: this.#outOfRange },
      brokenImages: [...this.#broken.values()],
    });
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
    const { batchSize, streams, precision, threads } = this.#settings;
    const { spec, device } = this.#network;
    return {
      spec,
      dataset: this.#dataset,
      plan: { batchSize, streams, precision, threads, device },
      evaluation: this.#evaluation,
      reconstruction: this.#reconstruction,
    };
  }

  #config(): object {
    const { signal: _, length, data, model: __, resume: ___, ui: ____, ...settings } = this.#settings;
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

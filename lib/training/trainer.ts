/** The training loop: one run on one network. */
import type { MemoryReport } from "../../binding.js";
import { type AnyDataset, isStreamed } from "../data/dataset.js";
import { RevNetError } from "../errors.js";
import { requireMemory } from "../network/memory.js";
import type { Network } from "../network/network.js";
import type { TrainingStep } from "../network/training-step.js";
import { larger } from "../network/verification.js";
import type { Findings } from "../report/analysis.js";
import { Batches } from "./batches.js";
import { BestSoFar } from "./best.js";
import { type Checkpoint, type Progress, restore } from "./checkpoint.js";
import { DataRecord } from "./data-record.js";
import { chanceWarning, DivergenceWatch } from "./divergence.js";
import { feedOf } from "./feed.js";
import { finish } from "./finish.js";
import { type Identity, identityOf } from "./identity.js";
import { Journal, type Send } from "./journal.js";
import { Keeper } from "./keeper.js";
import { Live } from "./live.js";
import type { Settings } from "./options.js";
import { PreciseStatistics } from "./precise.js";
import { type TrainingResult, throwIfAborted } from "./run.js";
import { configOf, isPrecise, scaledFrom } from "./settings.js";
import { type StepDone, Stepper } from "./stepper.js";
import { averages } from "./summary.js";
import { Verifier } from "./verifier.js";

const isAbort = (error: unknown) => error instanceof RevNetError && error.code === "ERR_ABORTED";

export class Trainer {
  readonly #settings: Settings;
  readonly #dataset: AnyDataset;
  readonly #network: Network;
  readonly #journal: Journal;
  readonly #batches: Batches;
  /** Steps of the whole run. */
  readonly #steps: number;
  readonly #best = new BestSoFar();
  #keeper: Keeper | undefined;
  #verifier: Verifier | undefined;
  #statistics: PreciseStatistics | undefined;
  #live: Live | undefined;
  #data: DataRecord | undefined;
  #planned: MemoryReport | undefined;
  /** Steps done. */
  #done = 0;
  /** Whether any of them was done by this process; otherwise memory is what one would have taken. */
  #trained = false;
  #epochStart = 0;
  /** Of the network that is kept. */
  #evaluation: Findings["evaluation"];

  constructor(settings: Settings, dataset: AnyDataset, network: Network, send: Send) {
    this.#settings = settings;
    this.#dataset = dataset;
    this.#network = network;
    this.#journal = new Journal(send);
    this.#batches = new Batches(dataset.train.count, settings.batchSize, settings.seed);
    this.#steps = settings.steps ?? settings.epochs! * this.#batches.stepsPerEpoch;
  }

  async run(): Promise<TrainingResult> {
    const { outDir, keepCheckpoints, signal } = this.#settings;
    if (outDir !== undefined) {
      const identity = await identityOf(this.#settings, this.#dataset, this.#network, this.#steps);
      this.#data = DataRecord.of(outDir, this.#dataset);
      this.#keeper = await Keeper.open(outDir, identity, keepCheckpoints, this.#journal.send, signal);
    }
    let failure: unknown;
    let written = false;
    try {
      await this.#train();
      await this.#warnAboveChance();
      const { summary, fileError } = await this.#finish(true);
      written = !fileError;
      return { network: this.#network, history: this.#journal.history, summary, ...(fileError && { fileError }) };
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
    const scaled = scaledFrom(this.#settings);
    await this.#journal.send({
      type: "start",
      model: this.#network.spec.name,
      device: this.#network.deviceChoice,
      parameters: this.#network.parameterCount,
      steps: this.#steps,
      stepsPerEpoch,
      batchSize,
      learningRate: this.#settings.optimizer.learningRate,
      ...(scaled && { scaledFrom: scaled }),
      resumedFrom: this.#done,
      memory: this.#planned!,
    });
    const { steps, validations, verifications } = this.#journal.history;
    const before = [...steps, ...validations, ...verifications].filter(({ epoch }) => epoch > this.#done / stepsPerEpoch);
    this.#epochStart = performance.now() - before.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
    // An abort may have come before what follows the last step.
    if (this.#done > 0) await this.#afterStep();
    if (this.#done >= this.#steps || this.#isExhausted()) return;
    const feed = feedOf(this.#dataset.train, this.#batches, this.#settings, [this.#done, this.#steps]);
    try {
      const watch = new DivergenceWatch(step.streamElements, this.#settings.optimizer.learningRate);
      await this.#loop(new Stepper(step, this.#settings, feed, this.#done, this.#steps), watch);
    } finally {
      await feed.close();
    }
  }

  async #loop(stepper: Stepper, watch: DivergenceWatch): Promise<void> {
    const { signal } = this.#settings;
    while (this.#done < this.#steps && !this.#isExhausted()) {
      // A step that was started belongs to the run.
      if (!stepper.isAhead) throwIfAborted(signal, this.#done);
      const { validation, verification, checkpoint } = this.#due(this.#done + 1);
      const pause = validation || verification || checkpoint || signal?.aborted;
      await this.#take(await stepper.step(!pause), watch);
      await this.#afterStep();
    }
  }

  /** Records the programs of the run, and sees whether there is memory for them. */
  async #prepare(): Promise<TrainingStep> {
    const { batchSize, activations, augment, verifyEvery, maxGradientNorm } = this.#settings;
    const optimizer = this.#settings.optimizer.type;
    const { train } = this.#dataset;
    const { padding, flip } = augment;
    const options = { batchSize, activations, padding, flip, ...(isStreamed(train) ? { bytes: true } : { data: train }) };
    // Both record their programs before data is sent, which recording would wait for.
    const [step, verification] = await Promise.all([
      this.#network.prepareTraining({ ...options, optimizer, maxGradientNorm }),
      verifyEvery === undefined ? undefined : this.#network.prepareVerification(options),
    ]);
    this.#planned = step.planned();
    if (verification !== undefined) {
      this.#verifier = new Verifier(verification, this.#settings, this.#dataset, this.#batches, this.#journal);
      this.#planned = larger(this.#planned, this.#verifier.planned());
    }
    if (isPrecise(this.#settings, this.#steps)) {
      const estimation = this.#network.prepareStatistics(options);
      this.#statistics = new PreciseStatistics(estimation, this.#settings, this.#dataset, this.#batches, this.#journal);
      this.#planned = larger(this.#planned, this.#statistics.planned());
    }
    const { streams, threads, precision, streamGradients } = this.#settings;
    const verify = this.#verifier !== undefined;
    const images = isStreamed(train) ? undefined : train.count;
    const on = { device: this.#network.device, threads, precision, streamGradients };
    requireMemory(
      this.#network.spec,
      { batchSize, activations, streams, verify, images, optimizer, ...on },
      this.#planned,
      this.#network.memory(),
    );
    return step;
  }

  async #warnAboveChance(): Promise<void> {
    const { steps } = this.#journal.history;
    if (steps.length === 0) return;
    const { loss } = averages(steps.slice(-this.#batches.stepsPerEpoch));
    const warning = chanceWarning(this.#done, loss, this.#network.spec.classes);
    if (warning) await this.#journal.send(warning);
  }

  async #openLive(): Promise<void> {
    if (this.#settings.ui === undefined) return;
    const [memory, resumedFrom, steps] = [this.#planned!, this.#done, this.#steps];
    const config = configOf(this.#settings, this.#network.spec, steps);
    this.#live = await Live.open(this.#settings, this.#network, config, { memory, resumedFrom, steps });
    // What was before a resume as well.
    this.#journal.showOn(this.#live, this.#done);
    await this.#journal.send({ type: "ui", url: this.#live.url });
  }

  /** Starts the files of a run, or goes on from its last checkpoint. */
  async #begin(keeper: Keeper): Promise<void> {
    const { resume } = this.#settings;
    const checkpoint = resume ? await keeper.find() : undefined;
    if (!checkpoint) await keeper.refuseExisting(resume);
    else {
      await this.#compareData(checkpoint, keeper.identity);
      await restore(checkpoint, this.#network);
      this.#done = checkpoint.progress.step;
      this.#best.restore(checkpoint.progress);
    }
    const config = configOf(this.#settings, this.#network.spec, this.#steps);
    this.#journal.keepIn(keeper, await keeper.begin(config, checkpoint?.progress));
    // Also where records are lost.
    if (checkpoint) this.#journal.outOfRange = checkpoint.progress.outOfRange;
  }

  async #compareData({ identity, progress: { step } }: Checkpoint, is: Identity): Promise<void> {
    const changes = await this.#data!.check(step, identity, is, this.#settings.acceptChangedData);
    if (changes.length === 0) return;
    const [first] = changes;
    const message = `the data has changed since step ${step} (${changes.length > 1 ? `${first}, and ${changes.length - 1} more` : first}): accepted, and recorded`;
    await this.#journal.send({ type: "warning", step, code: "ERR_RESUME_MISMATCH", message });
  }

  /** What was read of the data so far, before a checkpoint that depends on it. */
  async #saveData(): Promise<void> {
    try {
      await this.#data?.save();
    } catch (error) {
      if (!(error instanceof RevNetError)) throw error;
      const { code, message } = error;
      await this.#journal.send({ type: "warning", step: this.#done, code, message });
    }
  }

  async #take(done: StepDone, watch: DivergenceWatch): Promise<void> {
    const { loss, correct, outOfRange, learningRate, broken, milliseconds } = done;
    const step = ++this.#done;
    this.#trained = true;
    const divergence = await watch.check(step, done, () => this.#network.notFinite());
    if (divergence && outOfRange > 0) await this.#journal.report({ type: "outOfRange", step, count: outOfRange });
    if (divergence) throw this.#keeper?.diverged(divergence) ?? new RevNetError(divergence.code, divergence.message);
    await this.#journal.reportBroken(step, broken);
    const { batchSize } = this.#settings;
    const error = (batchSize - correct) / batchSize;
    await this.#journal.report({ type: "step", step, epoch: this.#epoch, loss, error, learningRate, milliseconds });
    if (outOfRange > 0) await this.#journal.report({ type: "outOfRange", step, count: outOfRange });
  }

  /** What needs the network as it is after so many steps. */
  #due(done: number) {
    const { stepsPerEpoch } = this.#batches;
    const { validateEvery = stepsPerEpoch, checkpointEvery = stepsPerEpoch, verifyEvery = Infinity } = this.#settings;
    return {
      validation: done % validateEvery === 0 || done === this.#steps,
      verification: done % verifyEvery === 0,
      checkpoint: this.#keeper !== undefined && done % checkpointEvery === 0 && done < this.#steps,
    };
  }

  /** Does what is due, but for what was done before a resume. */
  async #afterStep(): Promise<void> {
    const { stepsPerEpoch } = this.#batches;
    const { epochs, steps, validations, verifications } = this.#journal.history;
    const done = this.#done;
    const due = this.#due(done);
    if (due.validation && validations.at(-1)?.step !== done) await this.#validate();
    // Where metrics.jsonl was lost, nothing can be said of the epoch's steps.
    const isRecorded = (steps.at(-stepsPerEpoch)?.step ?? 0) + stepsPerEpoch === done + 1;
    if (done % stepsPerEpoch === 0 && epochs.at(-1)?.step !== done && isRecorded) {
      const milliseconds = performance.now() - this.#epochStart;
      await this.#journal.report({
        type: "epoch",
        epoch: this.#epoch,
        step: done,
        ...averages(steps.slice(-stepsPerEpoch)),
        milliseconds,
      });
      this.#epochStart = performance.now();
    }
    if (due.verification && verifications.at(-1)?.step !== done) {
      throwIfAborted(this.#settings.signal, done);
      await this.#verifier!.verify(done, this.#epoch, this.#trained);
    }
    if (due.checkpoint) {
      await this.#network.refreshParameters();
      await this.#saveData();
      await this.#keeper!.checkpoint(this.#network, this.#progress());
    }
  }

  async #validate(): Promise<void> {
    const { signal, batchSize, patience } = this.#settings;
    const step = this.#done;
    throwIfAborted(signal, step);
    const start = performance.now();
    await this.#statistics?.estimate(step);
    const { validation: apart, test } = this.#dataset;
    const evaluation = await this.#network.evaluateQuietly(apart ?? test, { batchSize, ...(signal && { signal }) });
    const { loss, error, top5Error, calibrationError } = evaluation;
    // The report shows the one of the network that is kept, on the test split.
    if (apart) this.#evaluation = undefined;
    else if (patience === undefined || this.#best.isBeatenBy(evaluation)) this.#evaluation = { ...evaluation, step };
    await this.#journal.reportMet(step, evaluation);
    await this.#journal.report({
      type: "validation",
      step,
      epoch: this.#epoch,
      split: apart ? "validation" : "test",
      loss,
      error,
      top5Error,
      calibrationError,
      milliseconds: performance.now() - start,
    });
    if (!this.#best.take(step, evaluation)) return;
    if (patience === undefined && !this.#keeper) return;
    await this.#network.refreshParameters();
    if (patience !== undefined) this.#best.parameters = this.#network.parameters;
    await this.#saveData();
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
    return { step: this.#done, outOfRange: this.#journal.outOfRange, ...this.#best.progress };
  }

  async #finish(complete: boolean): ReturnType<typeof finish> {
    await this.#saveData();
    return finish({
      settings: this.#settings,
      dataset: this.#dataset,
      network: this.#network,
      journal: this.#journal,
      keeper: this.#keeper,
      best: this.#best,
      progress: this.#progress(),
      stepsPerEpoch: this.#batches.stepsPerEpoch,
      memory: this.#trained ? this.#network.memory() : this.#planned!,
      evaluation: this.#evaluation,
      statisticsBatches: this.#statistics?.batches ?? null,
      dataChanges: this.#data?.accepted ?? [],
      complete,
    });
  }
}

/** The end of a run: the parameters that it leaves, its summary, and its files. */
import { type AnyDataset, readImages } from "../data/dataset.js";
import { leftOutOf } from "../data/left-out.js";
import type { RevNetError } from "../errors.js";
import type { Network } from "../network/network.js";
import type { Reconstruction } from "../network/probe.js";
import type { Findings } from "../report/analysis.js";
import type { BestSoFar } from "./best.js";
import type { Best, Progress } from "./checkpoint.js";
import type { AcceptedChange } from "./data-record.js";
import type { Journal } from "./journal.js";
import type { Keeper } from "./keeper.js";
import type { Settings } from "./options.js";
import { averages, type Summary, stepStatistics } from "./summary.js";

export interface Ended {
  readonly settings: Settings;
  readonly dataset: AnyDataset;
  readonly network: Network;
  readonly journal: Journal;
  readonly keeper: Keeper | undefined;
  readonly best: BestSoFar;
  readonly progress: Omit<Progress, "metricsBytes">;
  readonly stepsPerEpoch: number;
  /** Bytes at the peak. */
  readonly memory: Summary["memory"];
  /** The one that the report shows. */
  readonly evaluation: Findings["evaluation"];
  /** Batches that running statistics were estimated from; null: they are those of training. */
  readonly statisticsBatches: number | null;
  readonly dataChanges: readonly AcceptedChange[];
  /** Whether the run was not aborted. */
  readonly complete: boolean;
}

/** Writes what remains to be written. `fileError`: why some of it could not be. */
export async function finish(run: Ended): Promise<{ summary: Summary; fileError: RevNetError | undefined }> {
  const { settings, dataset, network, journal, keeper, best, progress, evaluation, complete } = run;
  await network.refreshParameters();
  const unkept = await keeper?.checkpoint(network, progress);
  const restored = complete && settings.patience !== undefined && (await restoreBest(run));
  const reconstruction = complete && settings.activations === "reversible" ? await invert(run) : undefined;
  const last = journal.history.validations.at(-1);
  const validation = restored ? best.best : last?.step === progress.step ? last : null;
  // Where validation had a split of its own, the test split is for the end alone.
  const tested = complete && dataset.validation ? await test(run, validation?.step ?? progress.step) : undefined;
  const summary = await summarize(run, { validation, tested }, reconstruction);
  const { batchSize, streams, precision, streamGradients, threads } = settings;
  const { spec, device } = network;
  const findings = {
    spec,
    dataset,
    plan: { batchSize, streams, precision, streamGradients, threads, device },
    evaluation: tested ?? evaluation,
    reconstruction,
  };
  const fileError = (await keeper?.finish(network, summary, findings)) ?? unkept;
  if (complete) await journal.send({ type: "done", summary });
  return { summary, fileError };
}

async function test({ settings, dataset, network, journal }: Ended, step: number): Promise<NonNullable<Findings["evaluation"]>> {
  const { batchSize, signal } = settings;
  const evaluation = await network.evaluateQuietly(dataset.test, { batchSize, ...(signal && { signal }) });
  await journal.reportMet(step, evaluation);
  return { ...evaluation, step };
}

/** Gives the network the parameters of the best validation. Whether it has them now. */
async function restoreBest({ network, journal, keeper, best: { best, parameters }, progress }: Ended): Promise<boolean> {
  if (best === null || best.step === progress.step) return false;
  const found = parameters ?? (await keeper?.readBest(best.step))?.parameters;
  if (found) await network.replaceParameters(found);
  else
    await journal.send({
      type: "warning",
      step: progress.step,
      code: "ERR_FILE",
      message: `the parameters of the best validation, at step ${best.step}, are lost; the network has those of the last step`,
    });
  return found !== undefined;
}

/** Inverts the trained network on a training batch; undefined where no block is invertible. */
async function invert({ settings, dataset, network }: Ended): Promise<Reconstruction | undefined> {
  const { kind, units } = network.spec;
  if (kind !== "revnet" || units.every((count) => count === 1)) return undefined;
  const first = Array.from({ length: settings.batchSize }, (_, i) => i);
  return network.reconstruct(await readImages(dataset.train, first));
}

/** @param evaluations of the weights that the network has now */
async function summarize(
  run: Ended,
  { validation, tested }: { validation: Best | null; tested: Findings["evaluation"] },
  reconstruction: Reconstruction | undefined,
): Promise<Summary> {
  const { settings, dataset, network, journal, progress, stepsPerEpoch, memory, complete, statisticsBatches } = run;
  const { activations, streams, precision, streamGradients, threads, seed, batchSize } = settings;
  const { steps } = journal.history;
  const final = dataset.validation ? tested : validation;
  const stepMilliseconds = stepStatistics(steps.map(({ milliseconds }) => milliseconds));
  return {
    model: network.spec.name,
    kind: network.spec.kind,
    parameters: network.parameterCount,
    activations,
    streams,
    precision,
    streamGradients,
    device: network.device,
    threads,
    seed,
    batchSize,
    steps: progress.step,
    epochs: progress.step / stepsPerEpoch,
    trainLoss: steps.length > 0 ? averages(steps.slice(-stepsPerEpoch)).loss : null,
    testLoss: final?.loss ?? null,
    testError: final?.error ?? null,
    validationLoss: (dataset.validation && validation?.loss) ?? null,
    validationError: (dataset.validation && validation?.error) ?? null,
    stepMilliseconds,
    imagesPerSecond: stepMilliseconds.median > 0 ? (1000 * batchSize) / stepMilliseconds.median : 0,
    memory,
    reconstruction: { exact: reconstruction ? reconstruction.max === 0 : null, outOfRange: journal.outOfRange },
    leftOut: leftOutOf(dataset),
    dataChanges: run.dataChanges,
    statisticsBatches: complete ? statisticsBatches : null,
    brokenImages: journal.brokenImages,
    weightsSha256: await network.digest(),
  };
}

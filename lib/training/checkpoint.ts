/**
 * One checkpoint: a safetensors file with the parameters and running statistics by name, the optimizer's state as `momentum.NAME`, and in
 * the metadata the spec and the preprocessing (so that it loads as a model), the run's identity, how far it is, and a SHA-256
 * of every byte.
 */
import { types } from "node:util";
import { Pacer } from "../data/pacer.js";
import { RevNetError } from "../errors.js";
import { parseJson } from "../files/json.js";
import { readSafetensors, writeSafetensors } from "../formats/safetensors.js";
import { CHECKPOINT_FORMAT, isOptimizerState, modelMetadata } from "../network/file.js";
import type { ParameterTensor } from "../network/host.js";
import type { Network } from "../network/network.js";
import { areFinite, checkInteger, checkKeys, checkNumber } from "../validation.js";
import type { Identity } from "./identity.js";

/** Grows with every change that an older reader would misunderstand. */
const VERSION = "1";

/** The best validation so far: the lowest error, and among equal ones the lowest loss. */
export interface Best {
  readonly step: number;
  readonly loss: number;
  readonly error: number;
}

/** How far a run is. */
export interface Progress {
  /** Steps done. Order and augmentation are functions of it and the seed. */
  readonly step: number;
  /** Elements that left the range of the streams, over all steps. */
  readonly outOfRange: number;
  readonly best: Best | null;
  /** Validations since the best one. */
  readonly sinceBest: number;
  /** Step of the last validation; 0 before the first. */
  readonly validated: number;
  /** Length of metrics.jsonl. */
  readonly metricsBytes: number;
}

export interface Checkpoint {
  readonly file: string;
  readonly identity: Identity;
  readonly progress: Progress;
  readonly parameters: ReadonlyMap<string, ParameterTensor>;
  readonly optimizerState: ReadonlyMap<string, ParameterTensor>;
}

type Tensors = ReadonlyMap<string, ParameterTensor>;

/** What a checkpoint holds, apart from the network: to be written now, or again later. */
export interface Snapshot {
  readonly tensors: Tensors;
  readonly metadata: Readonly<Record<string, string>>;
  readonly progress: Progress;
}

/**
 * The network's parameters must be fresh.
 * @throws RevNetError ERR_NOT_FINITE where a parameter is NaN or infinite: there would be nothing to go on from
 */
export async function takeSnapshot(network: Network, identity: Identity, progress: Progress): Promise<Snapshot> {
  const { parameters } = network;
  const tensors = new Map(parameters);
  for (const [name, tensor] of await network.optimizerState()) tensors.set(name, tensor);
  const bad = await firstNotFinite(tensors);
  if (bad !== undefined)
    throw new RevNetError(
      "ERR_NOT_FINITE",
      `after step ${progress.step}, '${bad}' holds a value that is not finite; try a lower learning rate`,
    );
  const metadata = {
    format: CHECKPOINT_FORMAT,
    version: VERSION,
    ...modelMetadata(network),
    run: JSON.stringify(identity),
  };
  return { tensors, metadata, progress };
}

/** @throws RevNetError ERR_FILE */
export async function writeCheckpoint(file: string, { tensors, metadata, progress }: Snapshot): Promise<void> {
  await writeSafetensors(file, tensors, { ...metadata, progress: JSON.stringify(progress) }, { digest: true });
}

/** @throws RevNetError ERR_FILE; ERR_INVALID_FILE where a byte is damaged; ERR_RESUME_MISMATCH for another version's checkpoint */
export async function readCheckpoint(file: string): Promise<Checkpoint> {
  const { metadata, tensors } = await readSafetensors(file, { digest: () => true });
  const invalid = (what: string) => new RevNetError("ERR_INVALID_FILE", `'${file}' is not a checkpoint of a run: ${what}`);
  if (metadata.get("format") !== CHECKPOINT_FORMAT)
    throw invalid(`its format is ${JSON.stringify(metadata.get("format"))}, expected "${CHECKPOINT_FORMAT}"`);
  const version = metadata.get("version");
  if (version !== VERSION)
    throw new RevNetError(
      "ERR_RESUME_MISMATCH",
      `'${file}' was written by another version of revnet: its format is ${version}, this one reads ${VERSION}`,
    );
  const parameters = new Map<string, ParameterTensor>();
  const optimizerState = new Map<string, ParameterTensor>();
  for (const [name, { shape, data }] of tensors) {
    if (!(types.isFloat32Array(data) || types.isFloat64Array(data))) throw invalid(`tensor '${name}' is not floating-point`);
    (isOptimizerState(name) ? optimizerState : parameters).set(name, { shape, data });
  }
  const identity = parse(metadata.get("run"));
  if (typeof identity !== "object" || identity === null) throw invalid("metadata 'run' is not an object");
  return {
    file,
    identity: identity as Identity,
    progress: checkProgress(parse(metadata.get("progress")), `'${file}'`),
    parameters,
    optimizerState,
  };
}

/** Puts the network where the run was; prepareTraining comes before. @throws RevNetError ERR_INVALID_FILE */
export async function restore({ file, parameters, optimizerState }: Checkpoint, network: Network): Promise<void> {
  try {
    await network.replaceParameters(parameters);
    await network.setOptimizerState(optimizerState);
  } catch (error) {
    if (!(error instanceof RevNetError)) throw error;
    throw new RevNetError("ERR_INVALID_FILE", `'${file}' does not fit the network: ${error.message}`, { cause: error });
  }
}

/** Name of the first tensor that holds NaN or an infinity. */
async function firstNotFinite(tensors: Tensors): Promise<string | undefined> {
  const pacer = new Pacer();
  for (const [name, { data }] of tensors) {
    if (!areFinite(data)) return name;
    await pacer.breathe();
  }
  return undefined;
}

function parse(text = ""): unknown {
  try {
    return parseJson(text, "metadata", "ERR_INVALID_FILE");
  } catch {
    return undefined;
  }
}

function checkProgress(value: unknown, file: string): Progress {
  const code = "ERR_INVALID_FILE";
  const what = `${file}: progress`;
  checkKeys(value, ["step", "outOfRange", "best", "sinceBest", "validated", "metricsBytes"], what, code);
  const count = (entry: unknown, name: string) => checkInteger(entry, 0, Number.MAX_SAFE_INTEGER, `${what}.${name}`, code);
  const { best } = value;
  if (best !== null) checkKeys(best, ["step", "loss", "error"], `${what}.best`, code);
  return {
    step: count(value.step, "step"),
    outOfRange: count(value.outOfRange, "outOfRange"),
    best: best && {
      step: count(best.step, "best.step"),
      loss: checkNumber(best.loss, 0, Infinity, `${what}.best.loss`, code),
      error: checkNumber(best.error, 0, 1, `${what}.best.error`, code),
    },
    sinceBest: count(value.sinceBest, "sinceBest"),
    validated: count(value.validated, "validated"),
    metricsBytes: count(value.metricsBytes, "metricsBytes"),
  };
}

/** What trainRevNet takes, checked and completed by the model's recipe. */
import path from "node:path";
import { type AnyDataset, isStreamed, validateDataset } from "../data/dataset.js";
import type { BROKEN_IMAGES } from "../data/image-folder.js";
import { checkBroken, checkShare, DATASETS, type DatasetName, MAX_COUNT } from "../data/open.js";
import { type DatasetInput, isSequence } from "../data/sequence.js";
import { RevNetError } from "../errors.js";
import { PRECISIONS, type Precision, STREAM_GRADIENTS, type StreamGradients, streamGradientsOf } from "../network/device.js";
import { type Model, resolveModel } from "../network/models.js";
import {
  type AugmentRecipe,
  checkAugment,
  checkOptimizer,
  MAX_BATCH,
  type OptimizerRecipe,
  type Recipe,
} from "../network/recipe.js";
import { ACTIVATIONS, type Activations, STREAMS, type Streams } from "../network/recorder.js";
import type { NetworkSpec } from "../network/spec.js";
import { processorCount } from "../processors.js";
import { resolveSchedule, type Schedule, type ScheduleName } from "../schedules/index.js";
import { checkBoolean, checkChoice, checkInteger, checkKeys, describe } from "../validation.js";

export interface TrainOptions {
  /** A published model's name, a path to a JSON file, or a spec. Named models take the data's number of classes. */
  model: Model;
  /**
   * A data set's name, or any object that satisfies Dataset or DatasetInput, whose splits may be iterables. Its arrays are read as long
   * as the run lasts: leave them as they are.
   */
  data: DatasetName | DatasetInput | AnyDataset;
  /** Folder of the data set's files; not for `shapes`. */
  dataDir?: string | undefined;
  /** So many training images (see openDataset); default all. */
  trainCount?: number | undefined;
  /** So many test images, likewise. */
  testCount?: number | undefined;
  /** image-folder without validation images of its own: the share of each class that is kept for it; default 0.1. */
  validationShare?: number | undefined;
  /** image-folder: "skip" (default) goes on without images that cannot be decoded, and reports them; "fail" ends the run. */
  brokenImages?: (typeof BROKEN_IMAGES)[number] | undefined;
  /** How long to train: passes over the training images, of floor(images / batchSize) steps each. Give this or `steps`. */
  epochs?: number | undefined;
  /** How long to train: updates of the weights. Give this or `epochs`; default the recipe's steps. */
  steps?: number | undefined;
  /** Images of a step; default the recipe's. */
  batchSize?: number | undefined;
  /** Of initialisation, order and augmentation, a non-negative integer; default 0. The same seed gives the same bits. */
  seed?: number | undefined;
  /** "auto" (default), "cpu", "cuda", "cuda:N" or "reference". */
  device?: string | undefined;
  /** "reversible" (default): rebuild activations; "stored": keep them, for comparison. The weights are the same. */
  activations?: Activations | undefined;
  /** "fixed" (default): exact; "float32": the paper's arithmetic, whose drift can be studied. */
  streams?: Streams | undefined;
  /**
   * "float32" (default); "tf32" or "bfloat16" rounds the operands of convolutions for a GPU's tensor cores, and "bfloat16" stores hidden
   * tensors and gradients of streams in 2 bytes. Sums, weights and streams stay.
   */
  precision?: Precision | undefined;
  /** How gradients of streams are stored with the precision "bfloat16": "bfloat16" (default) or "float32". Others store "float32". */
  streamGradients?: StreamGradients | undefined;
  /** SGD: `learningRate`, `momentum` and `weightDecay`; what is not given is the recipe's. */
  optimizer?: Partial<OptimizerRecipe> | undefined;
  /** How the learning rate changes: a schedule, or its name: "step", "constant" or "cosine"; default the recipe's. */
  schedule?: Schedule | ScheduleName | undefined;
  /** true (default): the recipe's shifts and flips; false: none. */
  augment?: boolean | AugmentRecipe | undefined;
  /** Steps between evaluations on the test split; default an epoch's. The last step is always followed by one. */
  validateEvery?: number | undefined;
  /**
   * Steps between verifications (default: none): the blocks inverted and the gradients compared with those of stored activations, on
   * the images of the last step. The weights do not depend on it; the memory does, since it stores activations meanwhile.
   */
  verifyEvery?: number | undefined;
  /** Ends the run once so many validations in a row were no better than the best one. The network is then the best one's. */
  patience?: number | undefined;
  /** Folder for config.json, metrics.jsonl, checkpoints/, summary.json, model.safetensors and report.html; default none is written. */
  outDir?: string | undefined;
  /** Steps between checkpoints in outDir; default an epoch's. The last step, and an abort, are always followed by one. */
  checkpointEvery?: number | undefined;
  /** How many checkpoints are kept, besides the one of the best validation; default 3. */
  keepCheckpoints?: number | undefined;
  /** Go on from the last checkpoint in outDir, or from the start if there is none; default false. */
  resume?: boolean | undefined;
  /**
   * With `resume`: go on although images, or the split of them, are others than those that the run was trained on so far. The change is
   * recorded in summary.json; default false, where a change is an error that names it.
   */
  acceptChangedData?: boolean | undefined;
  /**
   * A page that shows the run while it trains, at http://127.0.0.1; a `ui` event gives its address. Default none. `port`: default one
   * that is free.
   */
  ui?: boolean | { port?: number } | undefined;
  /** CPU threads; default one for each core. The result does not depend on it. */
  threads?: number | undefined;
  /** Aborting ends the run within one step (two of less than 50 ms), with ERR_ABORTED; what was trained is in `outDir`, with a checkpoint. */
  signal?: AbortSignal | undefined;
}

/** TrainOptions with every default filled in; what depends on the data set (its classes, an epoch's steps) comes later. */
export interface Settings {
  /** As given. */
  model: Model;
  data: DatasetName | DatasetInput | AnyDataset;
  dataDir: string | undefined;
  trainCount: number | undefined;
  testCount: number | undefined;
  validationShare: number | undefined;
  brokenImages: (typeof BROKEN_IMAGES)[number] | undefined;
  length: { epochs: number } | { steps: number };
  batchSize: number;
  seed: number;
  device: string;
  activations: Activations;
  streams: Streams;
  precision: Precision;
  streamGradients: StreamGradients;
  optimizer: OptimizerRecipe;
  schedule: Schedule;
  augment: AugmentRecipe;
  validateEvery: number | undefined;
  verifyEvery: number | undefined;
  patience: number | undefined;
  outDir: string | undefined;
  checkpointEvery: number | undefined;
  keepCheckpoints: number;
  resume: boolean;
  acceptChangedData: boolean;
  /** Port of the live page, 0 for any; undefined: no page. */
  ui: { port: number } | undefined;
  threads: number;
  signal: AbortSignal | undefined;
}

/** For models that bring none: the paper's for CIFAR. */
const DEFAULT_RECIPE: Recipe = {
  batchSize: 100,
  steps: 80_000,
  optimizer: { learningRate: 0.1, momentum: 0.9, weightDecay: 2e-4 },
  schedule: { type: "step", milestones: [0.5, 0.75], gamma: 0.1 },
  augment: { padding: 2, flip: true },
};

const CODE = "ERR_INVALID_ARGUMENT";
export const KEYS = [
  "model",
  "data",
  "dataDir",
  "trainCount",
  "testCount",
  "validationShare",
  "brokenImages",
  "epochs",
  "steps",
  "batchSize",
  "seed",
  "device",
  "activations",
  "streams",
  "precision",
  "streamGradients",
  "optimizer",
  "schedule",
  "augment",
  "validateEvery",
  "verifyEvery",
  "patience",
  "outDir",
  "checkpointEvery",
  "keepCheckpoints",
  "resume",
  "acceptChangedData",
  "ui",
  "threads",
  "signal",
] as const satisfies readonly (keyof TrainOptions)[];

type IntegerOption =
  | "batchSize"
  | "seed"
  | "threads"
  | "validateEvery"
  | "verifyEvery"
  | "patience"
  | "checkpointEvery"
  | "keepCheckpoints"
  | "trainCount"
  | "testCount";

const MAX_STEPS = 2 ** 40;
const MAX_CHECKPOINTS = 1e6;
const MAX_THREADS = 1024;

/**
 * @throws RevNetError ERR_INVALID_ARGUMENT naming the option, what it was and what was expected; what resolveModel throws;
 *   ERR_INVALID_DATA for a data set object that is none
 */
export function resolveOptions(options: TrainOptions, cwd = process.cwd()): Settings {
  checkKeys(options, KEYS, "trainRevNet options", CODE);
  const given = options as unknown as TrainOptions;
  if (given.model === undefined)
    throw new RevNetError(CODE, "model: is missing; expected a model's name, a path to a JSON file or a spec");
  const recipe = resolveModel(given.model).recipe ?? DEFAULT_RECIPE;

  const integer = <D>(name: IntegerOption, fallback: D, low: number, high: number): number | D =>
    given[name] === undefined ? fallback : checkInteger(given[name], low, high, name, CODE);
  type Choice = "activations" | "streams" | "precision" | "streamGradients";
  const choice = <T extends string>(name: Choice, choices: readonly T[], fallback: T = choices[0]!): T =>
    given[name] === undefined ? fallback : checkChoice(given[name], choices, name, CODE);
  const precision = choice("precision", PRECISIONS);
  return {
    model: given.model,
    data: checkData(given),
    dataDir: resolved(checkText(given.dataDir, "dataDir"), cwd),
    trainCount: integer("trainCount", undefined, 1, MAX_COUNT),
    testCount: integer("testCount", undefined, 1, MAX_COUNT),
    validationShare: given.validationShare === undefined ? undefined : checkShare(given.validationShare),
    brokenImages: given.brokenImages === undefined ? undefined : checkBroken(given.brokenImages),
    length: checkLength(given, recipe),
    batchSize: integer("batchSize", recipe.batchSize, 1, MAX_BATCH),
    seed: integer("seed", 0, 0, Number.MAX_SAFE_INTEGER),
    device: checkText(given.device, "device") ?? "auto",
    activations: choice("activations", ACTIVATIONS),
    streams: choice("streams", STREAMS),
    precision,
    streamGradients: choice("streamGradients", STREAM_GRADIENTS, streamGradientsOf(precision)),
    optimizer: checkOverrides(given.optimizer, recipe.optimizer),
    schedule: given.schedule === undefined ? recipe.schedule : resolveSchedule(given.schedule, CODE),
    augment: checkAugmentation(given.augment, recipe.augment),
    validateEvery: integer("validateEvery", undefined, 1, MAX_STEPS),
    verifyEvery: integer("verifyEvery", undefined, 1, MAX_STEPS),
    patience: integer("patience", undefined, 1, MAX_STEPS),
    outDir: resolved(checkOutDir(given), cwd),
    checkpointEvery: integer("checkpointEvery", undefined, 1, MAX_STEPS),
    keepCheckpoints: integer("keepCheckpoints", 3, 1, MAX_CHECKPOINTS),
    resume: given.resume === undefined ? false : checkBoolean(given.resume, "resume", CODE),
    acceptChangedData:
      given.acceptChangedData === undefined ? false : checkBoolean(given.acceptChangedData, "acceptChangedData", CODE),
    ui: checkUi(given.ui),
    threads: integer("threads", processorCount(), 1, MAX_THREADS),
    signal: checkSignal(given.signal),
  };
}

/** The spec to train: a named model takes the data's classes, a spec given as an object must have them. */
export function specFor(model: Model, dataset: Pick<AnyDataset, "name" | "shape" | "classes">): NetworkSpec {
  const classes = dataset.classes.length;
  const spec = typeof model === "string" ? resolveModel(model, { classes }) : resolveModel(model);
  if (spec.classes !== classes)
    throw new RevNetError(CODE, `model: has ${spec.classes} classes, but ${dataset.name} has ${classes}`);
  if (spec.input.some((edge, i) => edge !== dataset.shape[i]))
    throw new RevNetError(
      CODE,
      `model: ${spec.name} takes ${spec.input.join("x")} images, but those of ${dataset.name} are ${dataset.shape.join("x")}`,
    );
  return spec;
}

/** What config.json holds: the options as they were resolved, but for those of this process alone. */
export function configOf(settings: Settings, model: NetworkSpec, steps: number): object {
  const { signal: _, model: __, resume: ___, ui: ____, acceptChangedData: _____, length, data, ...rest } = settings;
  return { model, data: typeof data === "string" ? data : data.name, ...rest, ...length, steps };
}

function checkData(given: TrainOptions): Settings["data"] {
  if (typeof given.data === "object" && given.data !== null) {
    for (const name of ["dataDir", "trainCount", "testCount", "validationShare", "brokenImages"] as const)
      if (given[name] !== undefined) throw new RevNetError(CODE, `${name}: is for data sets given by name`);
    const isOther = (split: unknown) =>
      isSequence(split) || (typeof split === "object" && split !== null && isStreamed(split as never));
    return validateDataset<DatasetInput | AnyDataset>(given.data, isOther);
  }
  if (given.data === undefined)
    throw new RevNetError(CODE, `data: is missing; expected one of ${DATASETS.join(", ")} or a data set`);
  return checkChoice(given.data, DATASETS, "data", CODE);
}

function checkLength({ epochs, steps }: TrainOptions, recipe: Recipe): Settings["length"] {
  if (epochs !== undefined && steps !== undefined) throw new RevNetError(CODE, "epochs, steps: give one of the two");
  if (epochs !== undefined) return { epochs: checkInteger(epochs, 1, MAX_STEPS, "epochs", CODE) };
  return { steps: steps === undefined ? recipe.steps : checkInteger(steps, 1, MAX_STEPS, "steps", CODE) };
}

function checkText(value: unknown, name: string): string | undefined {
  if (value === undefined || (typeof value === "string" && value !== "" && !value.includes("\0")))
    return value as string | undefined;
  throw new RevNetError(CODE, `${name}: expected a non-empty string, got ${describe(value)}`);
}

function checkOutDir(given: TrainOptions): string | undefined {
  const outDir = checkText(given.outDir, "outDir");
  for (const name of ["checkpointEvery", "keepCheckpoints", "resume", "acceptChangedData"] as const)
    if (outDir === undefined && given[name] !== undefined && given[name] !== false)
      throw new RevNetError(CODE, `${name}: needs outDir, the folder of the checkpoints`);
  return outDir;
}

const resolved = (file: string | undefined, cwd: string) => (file === undefined ? undefined : path.resolve(cwd, file));

function checkOverrides(value: unknown, recipe: OptimizerRecipe): OptimizerRecipe {
  if (value === undefined) return recipe;
  checkKeys(value, Object.keys(recipe), "optimizer", CODE);
  const given = Object.fromEntries(Object.entries(value).filter(([, number]) => number !== undefined));
  return checkOptimizer({ ...recipe, ...given }, "optimizer", CODE);
}

function checkAugmentation(value: unknown, recipe: AugmentRecipe): AugmentRecipe {
  if (value === undefined || value === true) return recipe;
  return value === false ? { padding: 0, flip: false } : checkAugment(value, "augment", CODE);
}

function checkUi(value: unknown): Settings["ui"] {
  if (value === undefined || value === false) return undefined;
  if (value === true) return { port: 0 };
  checkKeys(value, ["port"], "ui", CODE);
  return { port: value.port === undefined ? 0 : checkInteger(value.port, 0, 65535, "ui.port", CODE) };
}

function checkSignal(value: unknown): AbortSignal | undefined {
  // By its kind, not its class: signals of another realm (a vm context, jest) are as good.
  if (value === undefined || Object.prototype.toString.call(value) === "[object AbortSignal]")
    return value as AbortSignal | undefined;
  throw new RevNetError(CODE, `signal: expected an AbortSignal, got ${describe(value)}`);
}

/** What trainRevNet takes: each option is declared here, once (option.ts says what follows from it), and completed by the model's recipe. */
import path from "node:path";
import { type AnyDataset, isStreamed, validateDataset } from "../data/dataset.js";
import { BROKEN_IMAGES } from "../data/image-folder.js";
import { DATASETS, type DatasetName, MAX_COUNT } from "../data/open.js";
import { type DatasetInput, isSequence } from "../data/sequence.js";
import { RevNetError } from "../errors.js";
import { boolean, choice, integer, kind, number, text, unchecked } from "../kinds.js";
import { PRECISIONS, type Precision, STREAM_GRADIENTS, streamGradientsOf } from "../network/device.js";
import type { Model } from "../network/models.js";
import { GRADIENT_NORM } from "../network/preparation.js";
import { type AugmentRecipe, checkAugment, MAX_BATCH } from "../network/recipe.js";
import { ACTIVATIONS, type Activations, STREAMS, type Streams } from "../network/recorder.js";
import {
  OPTIMIZER_FLAGS,
  type Optimizer,
  type OptimizerName,
  type OptimizerRecipe,
  optimizerFromFlags,
  overrideOptimizer,
} from "../optimizers/index.js";
import { processorCount } from "../processors.js";
import { resolveSchedule, SCHEDULE_NAMES, type Schedule, type ScheduleName, type Warmup } from "../schedules/index.js";
import { checkChoice, checkInteger, checkKeys, describe } from "../validation.js";
import { absent, CODE, type Context, type Option, option } from "./option.js";

const MAX_STEPS = 2 ** 40;
/** Steps: running statistics have a decay of 0.99. */
export const SHORT_RUN = 1000;
const MAX_CHECKPOINTS = 1e6;
const MAX_THREADS = 1024;

const steps = integer(1, MAX_STEPS);
const folder = { fallback: absent, becomes: (given: string, { cwd }: Context) => path.resolve(cwd, given) };
const namedData = ({ data }: Context["given"]) =>
  typeof data === "object" && data !== null ? "is for data sets given by name" : undefined;
const needsOutDir = ({ outDir }: Context["given"]) =>
  outDir === undefined ? "needs outDir, the folder of the checkpoints" : undefined;

/** Every option, in the order of the help. The comments become docs/api.md. */
export const OPTIONS = {
  /** A published model's name, a path to a JSON file, or a spec. Named models take the data's number of classes. */
  model: option(unchecked<Model>(), {
    // resolveOptions has seen that it is there.
    fallback: (): Model => "",
    inConfig: false,
    flag: { value: "MODEL", help: "a published model (default revnet-38) or a path to a JSON file" },
  }),
  /**
   * A data set's name, or any object that satisfies Dataset or DatasetInput, whose splits may be iterables. Its arrays are read as long
   * as the run lasts: leave them as they are.
   */
  data: option(kind(checkData), {
    fallback: (): DatasetName => {
      throw new RevNetError(CODE, `data: is missing; expected one of ${DATASETS.join(", ")} or a data set`);
    },
    inConfig: false,
    flag: { value: "NAME", help: "shapes, cifar-10, cifar-100 or image-folder" },
  }),
  /** Folder of the data set's files; not for `shapes`. */
  dataDir: option(text, { ...folder, refuse: namedData, flag: { value: "DIR", help: "folder of the data set's files" } }),
  /** So many training images (see openDataset); default all. */
  trainCount: option(integer(1, MAX_COUNT), {
    fallback: absent,
    refuse: namedData,
    flag: { help: "training images: how many shapes to draw, or the first N" },
  }),
  /** So many test images, likewise. */
  testCount: option(integer(1, MAX_COUNT), { fallback: absent, refuse: namedData, flag: { help: "test images, likewise" } }),
  /** image-folder without validation images of its own: the share of each class that is kept for it; default 0.1. */
  validationShare: option(number(0, 1), {
    fallback: absent,
    refuse: namedData,
    flag: {
      help: "share of each class's training images held out for validation (default: 0.1 of an image-folder without val/ and test/)",
    },
  }),
  /** image-folder: "skip" (default) goes on without images that cannot be decoded, and reports them; "fail" ends the run. */
  brokenImages: option(choice(BROKEN_IMAGES), {
    fallback: absent,
    refuse: namedData,
    flag: { value: "skip|fail", help: "image-folder: whether to go on without images that cannot be decoded (default skip)" },
  }),
  /** How long to train: passes over the training images, of floor(images / batchSize) steps each. Give this or `steps`. */
  epochs: option(steps, {
    fallback: absent,
    refuse(given) {
      if (given.steps !== undefined) throw new RevNetError(CODE, "epochs, steps: give one of the two");
      return undefined;
    },
    flag: { help: "passes over the training images; or" },
  }),
  /** How long to train: updates of the weights. Give this or `epochs`; default the recipe's steps. */
  steps: option(steps, {
    fallback: ({ given, recipe }) => (given.epochs === undefined ? recipe.steps : undefined),
    flag: { help: "batches to train on (default: the model's recipe)" },
  }),
  /** Images of a step; default the recipe's. */
  batchSize: option(integer(1, MAX_BATCH), {
    fallback: ({ recipe }) => recipe.batchSize,
    identity: true,
    flag: { help: "images of a step (default: the model's recipe)" },
  }),
  /**
   * "sgd" or "adamw", or the settings of one, with its name as `type`. What is not given is the recipe's, or, of another optimizer than the
   * recipe's, its default.
   */
  optimizer: option(unchecked<OptimizerName | Partial<OptimizerRecipe>>(), {
    fallback: (context): Optimizer => overrideOptimizer({}, scaledOptimizer(context), "optimizer", CODE),
    becomes: (given, context) => overrideOptimizer(given, scaledOptimizer(context), "optimizer", CODE),
    identity: true,
    flags: OPTIMIZER_FLAGS,
    fromFlags: optimizerFromFlags,
  }),
  /**
   * Whether the recipe's learning rate, where none is given, is multiplied by batchSize over the recipe's batch size (Goyal et al., 2017; for
   * SGD). Default true; a `start` event says what it became.
   */
  scaleLearningRate: option(boolean, {
    fallback: () => true,
    inConfig: false,
    flags: {
      "no-scale-learning-rate": { type: "boolean", help: "take the recipe's learning rate as it is, also for another batch size" },
    },
    fromFlags: ({ noScaleLearningRate }) => (noScaleLearningRate ? false : undefined),
  }),
  /** Gradients are scaled down where the norm of all of them together is larger (PyTorch's clip_grad_norm_); default: never. */
  maxGradientNorm: option(GRADIENT_NORM, {
    fallback: absent,
    identity: true,
    flag: { help: "gradients are scaled down where the norm of all of them is larger (default: never)" },
  }),
  /**
   * How the learning rate changes: a schedule, or the name of one; default the recipe's. `{ warmup }` alone: the recipe's, with a linear
   * warm-up.
   */
  schedule: option(unchecked<Schedule | ScheduleName | Warmup>(), {
    fallback: ({ recipe }) => recipe.schedule,
    becomes: (given, { recipe }): Schedule => resolveSchedule(given, CODE, recipe.schedule),
    identity: true,
    flags: {
      schedule: { type: "string", value: "NAME", help: `${SCHEDULE_NAMES.join(", ")} (default: the model's recipe)` },
      warmup: {
        type: "number",
        help: "share of the steps in which the learning rate rises linearly to the schedule's (default 0)",
      },
    },
    fromFlags: ({ schedule, warmup }) => (warmup === undefined ? schedule : { type: schedule, warmup }),
  }),
  /** true (default): the recipe's shifts and flips; false: none. */
  augment: option(unchecked<boolean | AugmentRecipe>(), {
    fallback: ({ recipe }) => recipe.augment,
    becomes: augmentation,
    identity: true,
    flags: { "no-augment": { type: "boolean", help: "no random shifts, crops and flips" } },
    fromFlags: ({ noAugment }) => (noAugment ? false : undefined),
  }),
  /**
   * Whether the running statistics are estimated anew before each validation, from training batches and with the weights of then (precise
   * batch norm). Default: in runs of fewer than 1000 steps, in which those that training keeps trail behind. The weights do not depend on it.
   */
  preciseBatchNorm: option(boolean, {
    fallback: absent,
    identity: (given, { steps }) => (given ?? steps < SHORT_RUN) || undefined,
    flags: {
      "precise-batch-norm": {
        type: "boolean",
        help: "estimate running statistics anew before each validation (default: in runs of fewer than 1000 steps)",
      },
      "no-precise-batch-norm": { type: "boolean", help: "keep those of training, as the paper does" },
    },
    fromFlags: ({ preciseBatchNorm, noPreciseBatchNorm }) => (noPreciseBatchNorm ? false : preciseBatchNorm),
  }),
  /** "reversible" (default): rebuild activations; "stored": keep them, for comparison. The weights are the same. */
  activations: option(choice(ACTIVATIONS), {
    fallback: (): Activations => "reversible",
    // Only exact streams make reversible and stored runs the same.
    identity: (mode, { settings, spec }) => (settings.streams === "float32" && spec.kind === "revnet" ? mode : undefined),
    flag: { value: "MODE", help: "reversible (default) or stored; the weights are the same" },
  }),
  /** "fixed" (default): exact; "float32": the paper's arithmetic, whose drift can be studied. */
  streams: option(choice(STREAMS), {
    fallback: (): Streams => "fixed",
    identity: true,
    flag: { value: "KIND", help: "fixed (default, exact) or float32 (drifts)" },
  }),
  /** Of initialisation, order and augmentation, a non-negative integer; default 0. The same seed gives the same bits. */
  seed: option(integer(0, Number.MAX_SAFE_INTEGER), {
    fallback: () => 0,
    identity: true,
    flag: { help: "the same seed gives the same bits (default 0)" },
  }),
  /** "auto" (default), "cpu", "cuda", "cuda:N" or "reference". */
  device: option(text, {
    fallback: () => "auto",
    flag: { value: "NAME", help: "auto (default), cpu, cuda, cuda:N or reference" },
  }),
  /**
   * "float32" (default); "tf32" or "bfloat16" rounds the operands of convolutions for a GPU's tensor cores, and "bfloat16" stores hidden
   * tensors and gradients of streams in 2 bytes. Sums, weights and streams stay.
   */
  precision: option(choice(PRECISIONS), {
    fallback: () => PRECISIONS[0],
    identity: true,
    flag: { value: "NAME", help: "float32 (default); on a GPU also tf32 or bfloat16, for convolutions" },
  }),
  /** CPU threads; default one for each core. The result does not depend on it. */
  threads: option(integer(1, MAX_THREADS), {
    fallback: () => processorCount(),
    flag: { help: "CPU threads (default: one for each core); results do not depend on it" },
  }),
  /** How gradients of streams are stored with the precision "bfloat16": "bfloat16" (default) or "float32". Others store "float32". */
  streamGradients: option(choice(STREAM_GRADIENTS), {
    fallback: ({ given }) => streamGradientsOf(given.precision as Precision),
    identity: (type, { settings }) => (settings.precision === "bfloat16" ? type : undefined),
    flag: { value: "NAME", help: "how they are stored with --precision bfloat16: bfloat16 (default) or float32" },
  }),
  /** Ends the run once so many validations in a row were no better than the best one. The network is then the best one's. */
  patience: option(steps, {
    fallback: absent,
    identity: true,
    flag: { help: "end after so many validations without a better one, and keep the best weights" },
  }),
  /** Steps between evaluations on the test split; default an epoch's. The last step is always followed by one. */
  validateEvery: option(steps, {
    fallback: absent,
    // What ends a run early is decided at validations.
    identity: (every, { settings }) => (settings.patience === undefined ? undefined : (every ?? "an epoch")),
    flag: { help: "steps between evaluations on the test images (default: an epoch's)" },
  }),
  /**
   * Steps between verifications (default: none): the blocks inverted and the gradients compared with those of stored activations, on
   * the images of the last step. The weights do not depend on it; the memory does, since it stores activations meanwhile.
   */
  verifyEvery: option(steps, {
    fallback: absent,
    flag: { help: "steps between checks that the blocks invert and the gradients are those of stored activations (default: none)" },
  }),
  /** Folder for config.json, metrics.jsonl, checkpoints/, summary.json, model.safetensors and report.html; default none is written. */
  outDir: option(text, {
    ...folder,
    flags: {
      out: {
        type: "string",
        value: "DIR",
        help: "write config.json, metrics.jsonl, checkpoints/, summary.json, model.safetensors and report.html here",
      },
    },
    fromFlags: ({ out }) => out,
  }),
  /** Steps between checkpoints in outDir; default an epoch's. The last step, and an abort, are always followed by one. */
  checkpointEvery: option(steps, {
    fallback: absent,
    refuse: needsOutDir,
    flag: { help: "steps between checkpoints in DIR (default: an epoch's)" },
  }),
  /** How many checkpoints are kept, besides the one of the best validation; default 3. */
  keepCheckpoints: option(integer(1, MAX_CHECKPOINTS), {
    fallback: () => 3,
    refuse: needsOutDir,
    flag: { help: "how many are kept, besides the best one (default 3)" },
  }),
  /** Go on from the last checkpoint in outDir, or from the start if there is none; default false. */
  resume: option(boolean, {
    fallback: () => false,
    refuse: needsOutDir,
    inConfig: false,
    flag: { help: "go on from the last checkpoint in DIR, from the start if there is none" },
  }),
  /**
   * With `resume`: go on although images, or the split of them, are others than those that the run was trained on so far. The change is
   * recorded in summary.json; default false, where a change is an error that names it.
   */
  acceptChangedData: option(boolean, {
    fallback: () => false,
    refuse: needsOutDir,
    inConfig: false,
    flag: { help: "with --resume: go on although images have changed; summary.json then says which" },
  }),
  /**
   * A page that shows the run while it trains, at http://127.0.0.1; a `ui` event gives its address. Default none. `port`: default one
   * that is free.
   */
  ui: option(unchecked<boolean | { port?: number }>(), {
    fallback: absent,
    becomes: livePage,
    inConfig: false,
    flags: {
      ui: { type: "boolean", help: "a live page in the browser while training, for this machine alone; its address is printed" },
      "ui-port": { type: "integer", help: "port of the live page (default: one that is free)" },
    },
    fromFlags: ({ ui, uiPort }) => (uiPort === undefined ? ui : { port: uiPort }),
  }),
  /** Aborting ends the run within one step (two of less than 50 ms), with ERR_ABORTED; what was trained is in `outDir`, with a checkpoint. */
  signal: option(kind(checkSignal), { fallback: absent, inConfig: false }),
};

export type Options = typeof OPTIONS;
export type OptionName = keyof Options;
export const OPTION_NAMES = Object.keys(OPTIONS) as OptionName[];

/** What an option takes. */
export type GivenOf<O> = O extends Option<infer Given, unknown> ? Given : never;
type SettingOf<O> = O extends Option<never, infer Setting> ? Setting : never;
type Asked<T, Name extends keyof T> = { [K in Name]: GivenOf<T[K]> };
type Offered<T, Name extends keyof T> = { [K in Name]?: GivenOf<T[K]> | undefined };
type Resolved<T> = { [K in keyof T]: SettingOf<T[K]> };

/** What trainRevNet takes. */
export interface TrainOptions extends Asked<Options, "model" | "data">, Offered<Options, Exclude<OptionName, "model" | "data">> {}

/** TrainOptions with every default filled in; what depends on the data set (its classes, an epoch's steps) comes later. */
export type Settings = Resolved<Options>;

/** The recipe's optimizer, for the batch size that is given: gradients of larger batches vary less, so steps may be as much longer. */
export function scaledOptimizer({
  given: { batchSize, scaleLearningRate },
  recipe,
}: Pick<Context, "given" | "recipe">): OptimizerRecipe {
  const { optimizer } = recipe;
  if (optimizer.type === "adamw" || scaleLearningRate === false || batchSize === undefined) return optimizer;
  return { ...optimizer, learningRate: (optimizer.learningRate * (batchSize as number)) / recipe.batchSize };
}

function checkData(value: unknown): DatasetName | DatasetInput | AnyDataset {
  if (typeof value !== "object" || value === null) return checkChoice(value, DATASETS, "data", CODE);
  const isOther = (split: unknown) =>
    isSequence(split) || (typeof split === "object" && split !== null && isStreamed(split as never));
  return validateDataset<DatasetInput | AnyDataset>(value, isOther);
}

function augmentation(value: unknown, { recipe }: Context): AugmentRecipe {
  if (value === true) return recipe.augment;
  return value === false ? { padding: 0, flip: false } : checkAugment(value, "augment", CODE);
}

function livePage(value: unknown): { port: number } | undefined {
  if (value === false) return undefined;
  if (value === true) return { port: 0 };
  checkKeys(value, ["port"], "ui", CODE);
  return { port: value.port === undefined ? 0 : checkInteger(value.port, 0, 65535, "ui.port", CODE) };
}

function checkSignal(value: unknown): AbortSignal {
  // By its kind, not its class: signals of another realm (a vm context, jest) are as good.
  if (Object.prototype.toString.call(value) === "[object AbortSignal]") return value as AbortSignal;
  throw new RevNetError(CODE, `signal: expected an AbortSignal, got ${describe(value)}`);
}

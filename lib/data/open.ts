/** Data sets by name. */
import { RevNetError } from "../errors.js";
import { checkBoolean, checkChoice, checkInteger, checkKeys, checkNumber, describe } from "../validation.js";
import { readCifar10, readCifar100 } from "./cifar.js";
import { type AnyDataset, type Dataset, holdOut, type StreamedDataset, take } from "./dataset.js";
import { BROKEN_IMAGES, openImageFolder } from "./image-folder.js";
import type { Shape } from "./picture.js";
import { drawShapes } from "./shapes.js";

export const DATASETS = ["shapes", "cifar-10", "cifar-100", "image-folder"] as const;
/** Data sets that have a name. */
export type DatasetName = (typeof DATASETS)[number];

/** Of their training splits, which need not be read for it. */
const SIZES = {
  shapes: { images: 5000, classes: 10 },
  "cifar-10": { images: 50_000, classes: 10 },
  "cifar-100": { images: 50_000, classes: 100 },
} as const satisfies Readonly<Record<Exclude<DatasetName, "image-folder">, { images: number; classes: number }>>;

/**
 * How many training images of the data set lie in memory, and how many classes it has; neither is said of image-folder, of which one
 * batch at a time is in memory. @throws RevNetError ERR_INVALID_ARGUMENT
 */
export function trainingShape(name: string, trainCount: number | undefined): { images?: number; classes?: number } {
  const known = checkChoice(name, DATASETS, "data", CODE);
  if (trainCount !== undefined) checkInteger(trainCount, 1, MAX_COUNT, "trainCount", CODE);
  if (known === "image-folder") return {};
  const { images, classes } = SIZES[known];
  if (trainCount === undefined) return { images, classes };
  return { images: name === "shapes" ? trainCount : Math.min(images, trainCount), classes };
}

/** What openDataset takes. */
export interface DatasetOptions {
  /** Folder with the data set's files; required by all but `shapes`. */
  dataDir?: string | undefined;
  /** Training images: how many `shapes` to draw (default 5000); otherwise the first so many (default all). */
  trainCount?: number | undefined;
  /** Test images, likewise (default 1000, or all). */
  testCount?: number | undefined;
  /** Of the drawing of `shapes` (default 0). */
  seed?: number | undefined;
  /** CIFAR-100: the 20 superclasses instead of the 100 classes. */
  coarse?: boolean | undefined;
  /** image-folder: [height, width, channels] that images are brought to; required there. */
  shape?: Shape | undefined;
  /**
   * The share of each class's training images that is held out for validation. Default: none, but 0.1 of an image-folder that has neither
   * validation nor test images of its own; what is held out is then its `test` split.
   */
  validationShare?: number | undefined;
  /** image-folder: class names by label, such as a network's `classNames`: folders are matched to them by name, and some may be absent. */
  classes?: readonly string[] | undefined;
  /** image-folder: "skip" (default) goes on without images that cannot be decoded, and reports them; "fail" does not. */
  brokenImages?: (typeof BROKEN_IMAGES)[number] | undefined;
  /** Ends the reading of a folder, with ERR_ABORTED. */
  signal?: AbortSignal | undefined;
  /** A pack that cannot be used, say. */
  onWarning?: ((error: RevNetError) => void) | undefined;
}

const KEYS = [
  "dataDir",
  "trainCount",
  "testCount",
  "seed",
  "coarse",
  "shape",
  "validationShare",
  "classes",
  "brokenImages",
  "signal",
  "onWarning",
] as const satisfies readonly (keyof DatasetOptions)[];

/** Bounds what a typing error can allocate: so many images of `shapes` take 3 GB. */
export const MAX_COUNT = 2 ** 20;
const MAX_EDGE = 4096;

const CODE = "ERR_INVALID_ARGUMENT";

export const checkShare = (value: unknown) => checkNumber(value, 0, 1, "validationShare", CODE);
export const checkBroken = (value: unknown) => checkChoice(value, BROKEN_IMAGES, "brokenImages", CODE);

/**
 * Opens `shapes`, `cifar-10`, `cifar-100` or `image-folder` (docs/data.md). Rejects with ERR_INVALID_ARGUMENT (unknown name or option),
 * ERR_INVALID_DATA (a file that is missing, truncated or not what it should be, by its path), ERR_SHARP_MISSING. The event loop stays
 * free meanwhile.
 */
export async function openDataset(name: "image-folder", options: DatasetOptions): Promise<StreamedDataset>;
export async function openDataset(name: Exclude<DatasetName, "image-folder">, options?: DatasetOptions): Promise<Dataset>;
export async function openDataset(name: string, options?: DatasetOptions): Promise<AnyDataset>;
export async function openDataset(name: string, options: DatasetOptions = {}): Promise<AnyDataset> {
  checkKeys(options, KEYS, "openDataset options", CODE);
  const given = options as DatasetOptions;
  const { dataDir, trainCount, testCount, seed = 0, coarse = false } = given;
  if (trainCount !== undefined) checkInteger(trainCount, 1, MAX_COUNT, "trainCount", CODE);
  if (testCount !== undefined) checkInteger(testCount, 1, MAX_COUNT, "testCount", CODE);
  checkInteger(seed, 0, Number.MAX_SAFE_INTEGER, "seed", CODE);
  checkBoolean(coarse, "coarse", CODE);
  const known = checkChoice(name, DATASETS, "data set", CODE);
  if (known !== "image-folder")
    for (const key of ["classes", "brokenImages"] as const)
      if (given[key] !== undefined) throw new RevNetError(CODE, `${key}: is for image-folder`);
  if (known === "shapes" && dataDir !== undefined) throw new RevNetError(CODE, "dataDir: shapes are drawn, and in no folder");
  const share = given.validationShare === undefined ? undefined : checkShare(given.validationShare);
  if (known === "shapes") return parted(await drawShapes(trainCount ?? SIZES.shapes.images, testCount ?? 1000, seed), share);
  if (typeof dataDir !== "string" || dataDir === "")
    throw new RevNetError(CODE, `dataDir: expected the folder that holds the files of ${name}`);
  if (known === "image-folder") return openFolder(dataDir, given);
  const dataset = await (known === "cifar-10" ? readCifar10(dataDir) : readCifar100(dataDir, coarse));
  const whole = parted(dataset, share);
  return {
    ...whole,
    train: take(whole.train, trainCount ?? whole.train.count),
    test: take(whole.test, testCount ?? whole.test.count),
  };
}

/** With a share of the training images as validation split. */
function parted(dataset: Dataset, share: number | undefined): Dataset {
  if (share === undefined || share === 0) return dataset;
  const { train, held } = holdOut(dataset.train, share);
  return { ...dataset, train, validation: held };
}

function openFolder(folder: string, options: DatasetOptions): Promise<StreamedDataset> {
  const { classes, brokenImages } = options;
  if (classes !== undefined && !(Array.isArray(classes) && classes.length > 0 && classes.every((name) => typeof name === "string")))
    throw new RevNetError(CODE, `classes: expected an array of names, got ${describe(classes)}`);
  if (brokenImages !== undefined) checkBroken(brokenImages);
  return openImageFolder(folder, { ...options, shape: checkShape(options.shape) });
}

/** @throws RevNetError ERR_INVALID_ARGUMENT */
export function checkShape(value: unknown): Shape {
  if (!Array.isArray(value) || value.length !== 3)
    throw new RevNetError(CODE, `shape: expected [height, width, channels], got ${describe(value)}`);
  return value.map((edge: unknown, i) => checkInteger(edge, 1, MAX_EDGE, `shape[${i}]`, CODE)) as unknown as Shape;
}

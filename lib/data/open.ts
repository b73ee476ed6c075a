/** Data sets by name. */
import { RevNetError } from "../errors.js";
import { checkBoolean, checkChoice, checkInteger, checkKeys } from "../validation.js";
import { readCifar10, readCifar100 } from "./cifar.js";
import { type Dataset, take } from "./dataset.js";
import { drawShapes } from "./shapes.js";

export const DATASETS = ["shapes", "cifar-10", "cifar-100"] as const;
export type DatasetName = (typeof DATASETS)[number];

/** Of their training splits, which need not be read for it. */
const SIZES: Readonly<Record<DatasetName, { images: number; classes: number }>> = {
  shapes: { images: 5000, classes: 10 },
  "cifar-10": { images: 50_000, classes: 10 },
  "cifar-100": { images: 50_000, classes: 100 },
};

/** How many training images and classes the data set has. @throws RevNetError ERR_INVALID_ARGUMENT */
export function trainingShape(name: string, trainCount: number | undefined): { images: number; classes: number } {
  const { images, classes } = SIZES[checkChoice(name, DATASETS, "data", CODE)];
  if (trainCount === undefined) return { images, classes };
  checkInteger(trainCount, 1, MAX_COUNT, "trainCount", CODE);
  return { images: name === "shapes" ? trainCount : Math.min(images, trainCount), classes };
}

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
}

/** Bounds what a typing error can allocate: so many images of `shapes` take 3 GB. */
export const MAX_COUNT = 2 ** 20;

const CODE = "ERR_INVALID_ARGUMENT";

/**
 * Opens `shapes`, `cifar-10` or `cifar-100`. Rejects with ERR_INVALID_ARGUMENT (unknown name or option) or ERR_INVALID_DATA
 * (a file that is missing, truncated or not what it should be, by its path). The event loop stays free meanwhile.
 */
export async function openDataset(name: string, options: DatasetOptions = {}): Promise<Dataset> {
  checkKeys(options, ["dataDir", "trainCount", "testCount", "seed", "coarse"], "openDataset options", CODE);
  const { dataDir, trainCount, testCount, seed = 0, coarse = false } = options as DatasetOptions;
  if (trainCount !== undefined) checkInteger(trainCount, 1, MAX_COUNT, "trainCount", CODE);
  if (testCount !== undefined) checkInteger(testCount, 1, MAX_COUNT, "testCount", CODE);
  checkInteger(seed, 0, Number.MAX_SAFE_INTEGER, "seed", CODE);
  checkBoolean(coarse, "coarse", CODE);
  const known = checkChoice(name, DATASETS, "data set", CODE);
  if (known === "shapes") return drawShapes(trainCount ?? SIZES.shapes.images, testCount ?? 1000, seed);
  if (typeof dataDir !== "string" || dataDir === "")
    throw new RevNetError(CODE, `dataDir: expected the folder that holds the files of ${name}`);
  const dataset = await (known === "cifar-10" ? readCifar10(dataDir) : readCifar100(dataDir, coarse));
  return {
    ...dataset,
    train: take(dataset.train, trainCount ?? dataset.train.count),
    test: take(dataset.test, testCount ?? dataset.test.count),
  };
}

/** What the rest of the package knows of a data set: two splits of labelled byte images, resident in memory. */
import { RevNetError } from "../errors.js";
import { Pacer } from "./pacer.js";

/** Labelled images of one split, resident in memory. */
export interface Split {
  readonly count: number;
  /** [count][height][width][channels] bytes. */
  readonly images: Uint8Array;
  /** [count], each in [0, classes). */
  readonly labels: Int32Array;
}

export interface Dataset {
  readonly name: string;
  /** [height, width, channels] of an image. */
  readonly shape: readonly [number, number, number];
  /** Class names, by label. */
  readonly classes: readonly string[];
  readonly train: Split;
  readonly test: Split;
}

function invalid(what: string): RevNetError {
  return new RevNetError("ERR_INVALID_DATA", what);
}

function validateSplit(split: unknown, where: string, imageBytes: number, classes: number): void {
  if (typeof split !== "object" || split === null) throw invalid(`${where}: expected an object { count, images, labels }`);
  const { count, images, labels } = split as Partial<Split>;
  if (!Number.isSafeInteger(count) || (count as number) < 1)
    throw invalid(`${where}.count: expected a positive integer, got ${String(count)}`);
  const expected = (count as number) * imageBytes;
  if (!(images instanceof Uint8Array) || images.length !== expected)
    throw invalid(`${where}.images: expected a Uint8Array of ${count} x ${imageBytes} = ${expected} bytes`);
  if (!(labels instanceof Int32Array) || labels.length !== count)
    throw invalid(`${where}.labels: expected an Int32Array of ${count} labels`);
  const bad = labels.findIndex((label) => label < 0 || label >= classes);
  if (bad >= 0) throw invalid(`${where}.labels[${bad}]: ${labels[bad]} is not a label; expected 0 to ${classes - 1}`);
}

/** Checks an object that claims to be a Dataset, and returns it. Throws ERR_INVALID_DATA. */
export function validateDataset(value: unknown): Dataset {
  if (typeof value !== "object" || value === null)
    throw invalid("data: expected the name of a data set or an object { name, shape, classes, train, test }");
  const dataset = value as Partial<Dataset>;
  if (typeof dataset.name !== "string" || dataset.name === "") throw invalid("data.name: expected a string");
  const { shape, classes } = dataset;
  if (!Array.isArray(shape) || shape.length !== 3 || !shape.every((edge) => Number.isSafeInteger(edge) && edge > 0))
    throw invalid("data.shape: expected [height, width, channels], three positive integers");
  if (!Array.isArray(classes) || classes.length < 2 || !classes.every((name) => typeof name === "string"))
    throw invalid("data.classes: expected at least two class names");
  const imageBytes = shape[0] * shape[1] * shape[2];
  validateSplit(dataset.train, "data.train", imageBytes, classes.length);
  validateSplit(dataset.test, "data.test", imageBytes, classes.length);
  return dataset as Dataset;
}

/** The first `count` images of a split, sharing its memory. */
export function take(split: Split, count: number): Split {
  if (count >= split.count) return split;
  const imageBytes = split.images.length / split.count;
  return { count, images: split.images.subarray(0, count * imageBytes), labels: split.labels.subarray(0, count) };
}

/** The mean over a split's images, [height][width][channels] in bytes' units: what preprocessing subtracts. */
export async function meanImage(split: Split): Promise<Float32Array> {
  const imageBytes = split.images.length / split.count;
  const sum = new Float64Array(imageBytes);
  const pacer = new Pacer();
  for (let start = 0; start < split.images.length; start += imageBytes) {
    for (let i = 0; i < imageBytes; i++) sum[i]! += split.images[start + i]!;
    await pacer.breathe();
  }
  return Float32Array.from(sum, (total) => total / split.count);
}

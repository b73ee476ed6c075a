/** What the rest of the package knows of a data set: two splits of labelled byte images, resident in memory or streamed. */
import { types } from "node:util";
import { RevNetError } from "../errors.js";
import { describe, isGone } from "../validation.js";
import type { Contents } from "./contents.js";
import { Pacer } from "./pacer.js";
import { permutation } from "./random.js";

/** Labelled images of one split, resident in memory. */
export interface Split {
  /** Images. */
  readonly count: number;
  /** [count][height][width][channels] bytes. */
  readonly images: Uint8Array;
  /** [count], each in [0, classes). */
  readonly labels: Int32Array;
}

/** Labelled images in memory: what openDataset gives, or any object of one's own with these fields. */
export interface Dataset {
  /** For messages and reports. */
  readonly name: string;
  /** [height, width, channels] of an image. */
  readonly shape: readonly [number, number, number];
  /** Class names, by label. */
  readonly classes: readonly string[];
  /** What is trained on. */
  readonly train: Split;
  /** What validation during training uses, and with it `patience` and the best checkpoint; default: `test`. */
  readonly validation?: Split;
  /** What evaluation uses. */
  readonly test: Split;
}

/** An image that could not be read or decoded. */
export interface BrokenImage {
  /** Its path, or what else tells it from others. */
  readonly file: string;
  /** What the decoder or the system said. */
  readonly reason: string;
}

/** Something in a folder of images that is not taken: another kind of file, a link back, a hidden folder. */
export interface LeftOut {
  /** Its path. */
  readonly file: string;
  /** Why it is not taken. */
  readonly reason: string;
}

/** Images of one step. */
export interface Batch {
  /** [n][height][width][channels] */
  readonly images: Uint8Array;
  /** [n]; -1: the image is broken, and its pixels mean nothing. Only of batches in order. */
  readonly labels: Int32Array;
  /** What was found broken while this batch was made. */
  readonly broken: readonly BrokenImage[];
}

/** Which batches training wants. */
export interface BatchRequest {
  /** Images of a step. */
  readonly batchSize: number;
  /** Of random crops. */
  readonly seed: number;
  /** The first step, and the one after the last. */
  readonly steps: readonly [number, number];
  /** After so many steps the next epoch begins. */
  readonly stepsPerEpoch: number;
  /** Images of a step, where the split can be read in any order. */
  readonly indices: (step: number) => Int32Array;
  /** Smallest share of an image's area that a random crop takes; 0: no random crops. */
  readonly resizedCrop: number;
}

/** Labelled images of one split that do not lie in memory: they are made batch by batch, ahead of their use. */
export interface StreamedSplit {
  /** Images. */
  readonly count: number;
  /** SHA-256 of what tells this split's images from others. */
  readonly fingerprint: string;
  /** Batches for training from a step on: each a function of the request and its step alone. */
  batches(request: BatchRequest): AsyncIterableIterator<Batch>;
  /** All images in order, without anything random; the last batch may be smaller. */
  inOrder(batchSize: number): AsyncIterableIterator<Batch>;
  /** Images by index, without anything random; those that are broken are black. */
  read(indices: readonly number[]): Promise<Uint8Array>;
  /** The path of an image's file, where each image has one. */
  fileOf?(index: number): string;
}

/** A data set whose images are made when they are needed, those of one split at least. */
export interface StreamedDataset {
  /** For messages and reports. */
  readonly name: string;
  /** [height, width, channels] of an image. */
  readonly shape: readonly [number, number, number];
  /** Class names, by label. */
  readonly classes: readonly string[];
  /** What is trained on. */
  readonly train: AnySplit;
  /** What validation during training uses, and with it `patience` and the best checkpoint; default: `test`. */
  readonly validation?: AnySplit;
  /** What evaluation uses. */
  readonly test: AnySplit;
  /** What was found beside the images; of a folder. */
  readonly leftOut?: readonly LeftOut[];
  /** What the files held when they were first read. @internal */
  readonly contents?: Contents;
  /** [height * width * channels] what preprocessing subtracts; of image files, one number for each channel. */
  readonly mean: (onProgress?: (done: number, total: number) => void) => Promise<Float32Array>;
  /** Ends the threads that make the images. */
  close(): Promise<void>;
}

/** What openDataset gives: in memory, or streamed. */
export type AnyDataset = Dataset | StreamedDataset;
/** A split in memory, or a streamed one. */
export type AnySplit = Split | StreamedSplit;

export const isStreamed = (split: AnySplit): split is StreamedSplit =>
  "inOrder" in split && typeof split.inOrder === "function" && !("images" in split);

/** A split's images and labels in order, n at a time. */
export async function* inOrder(split: AnySplit, n: number): AsyncGenerator<Batch> {
  if (isStreamed(split)) {
    yield* split.inOrder(n);
    return;
  }
  const imageBytes = split.images.length / split.count;
  for (let first = 0; first < split.count; first += n) {
    const end = Math.min(split.count, first + n);
    for (const [name, values] of Object.entries({ images: split.images, labels: split.labels }))
      if (isGone(values)) throw invalid(`data: its ${name} were taken away while they were in use: ${describe(values)}`);
    const images = split.images.subarray(first * imageBytes, end * imageBytes);
    yield { images, labels: split.labels.subarray(first, end), broken: [] };
  }
}

/** What can be chosen of a data set; "all" are its splits one after the other. */
export const SPLIT_CHOICES = ["train", "validation", "test", "all"] as const;
export type SplitChoice = (typeof SPLIT_CHOICES)[number];

/**
 * A split of a data set; where one serves for validation and test, either name gives it.
 * @throws RevNetError ERR_INVALID_DATA where there are no such images
 */
export function chooseSplit({ name, train, validation, test }: AnyDataset, choice: SplitChoice): AnySplit {
  const splits = {
    train: [train],
    validation: [validation ?? test],
    test: [test],
    all: [train, ...(validation ? [validation] : []), test],
  };
  const chosen = splits[choice].filter(({ count }) => count > 0);
  if (chosen.length === 0) throw invalid(`${name} has no images for ${choice}`);
  return chosen.length === 1 ? chosen[0]! : new JoinedSplits(chosen);
}

/** Splits one after the other, for evaluation. */
class JoinedSplits implements StreamedSplit {
  readonly count: number;
  readonly fingerprint: string;

  constructor(private readonly splits: readonly AnySplit[]) {
    this.count = splits.reduce((sum, { count }) => sum + count, 0);
    this.fingerprint = splits.map((split) => (isStreamed(split) ? split.fingerprint : split.count)).join("+");
  }

  // biome-ignore lint/correctness/useYield: nobody trains on it
  async *batches(): AsyncIterableIterator<Batch> {
    throw new RevNetError("ERR_INTERNAL", "several splits at once are for evaluation");
  }

  async *inOrder(batchSize: number): AsyncIterableIterator<Batch> {
    for (const split of this.splits) yield* inOrder(split, batchSize);
  }

  async read(): Promise<Uint8Array> {
    throw new RevNetError("ERR_INTERNAL", "several splits at once are for evaluation");
  }
}

/** Pixels of some images of a split. */
export async function readImages(split: AnySplit, indices: readonly number[]): Promise<Uint8Array> {
  if (isStreamed(split)) return split.read(indices);
  const imageBytes = split.images.length / split.count;
  const images = new Uint8Array(indices.length * imageBytes);
  for (const [i, index] of indices.entries())
    images.set(split.images.subarray(index * imageBytes, (index + 1) * imageBytes), i * imageBytes);
  return images;
}

function invalid(what: string): RevNetError {
  return new RevNetError("ERR_INVALID_DATA", what);
}

function checkSplitObject(split: unknown, where: string): void {
  if (typeof split !== "object" || split === null)
    throw invalid(`${where}: expected { count, images, labels }, or an iterable of { image, label }, got ${describe(split)}`);
}

function validateSplit(split: unknown, where: string, imageBytes: number, classes: number): void {
  const { count, images, labels } = split as Partial<Split>;
  if (!Number.isSafeInteger(count) || (count as number) < 1)
    throw invalid(`${where}.count: expected a positive integer, got ${String(count)}`);
  const expected = (count as number) * imageBytes;
  if (!types.isUint8Array(images) || images.length !== expected)
    throw invalid(
      `${where}.images: expected a Uint8Array of ${count} x ${imageBytes} = ${expected} bytes, got ${describe(images)}`,
    );
  if (!types.isInt32Array(labels) || labels.length !== count)
    throw invalid(`${where}.labels: expected an Int32Array of ${count} labels, got ${describe(labels)}`);
  const bad = labels.findIndex((label) => label < 0 || label >= classes);
  if (bad >= 0) throw invalid(`${where}.labels[${bad}]: ${labels[bad]} is not a label; expected 0 to ${classes - 1}`);
}

/**
 * Checks an object that claims to be a data set, and returns it. Splits that `isOther` accepts (sequences, streams) are checked by
 * those who read them; only where there is one may the shape be missing. Throws ERR_INVALID_DATA.
 */
export function validateDataset<T = Dataset>(value: unknown, isOther: (split: unknown) => boolean = () => false): T {
  if (typeof value !== "object" || value === null)
    throw invalid("data: expected the name of a data set or an object { name, shape, classes, train, test }");
  const dataset = value as Partial<Dataset>;
  if (typeof dataset.name !== "string" || dataset.name === "") throw invalid("data.name: expected a string");
  const { classes } = dataset;
  const others = { train: isOther(dataset.train), test: isOther(dataset.test) };
  for (const key of ["train", "test"] as const) if (!others[key]) checkSplitObject(dataset[key], `data.${key}`);
  const shape = dataset.shape === undefined && others.train && others.test ? [1, 1, 1] : dataset.shape;
  if (!Array.isArray(shape) || shape.length !== 3 || !shape.every((edge) => Number.isSafeInteger(edge) && edge > 0))
    throw invalid("data.shape: expected [height, width, channels], three positive integers");
  if (!Array.isArray(classes) || classes.length < 2 || !classes.every((name) => typeof name === "string"))
    throw invalid("data.classes: expected at least two class names");
  const imageBytes = shape[0]! * shape[1]! * shape[2]!;
  if (!others.train) validateSplit(dataset.train, "data.train", imageBytes, classes.length);
  if (!others.test) validateSplit(dataset.test, "data.test", imageBytes, classes.length);
  if (dataset.validation !== undefined && !isOther(dataset.validation)) {
    checkSplitObject(dataset.validation, "data.validation");
    validateSplit(dataset.validation, "data.validation", imageBytes, classes.length);
  }
  return dataset as T;
}

/** The first `count` images of a split, sharing its memory. */
export function take(split: Split, count: number): Split {
  if (count >= split.count) return split;
  const imageBytes = split.images.length / split.count;
  return { count, images: split.images.subarray(0, count * imageBytes), labels: split.labels.subarray(0, count) };
}

/** A share of each class's images, always the same, apart from the others. @throws RevNetError ERR_INVALID_ARGUMENT where one part is empty */
export function holdOut(split: Split, share: number): { train: Split; held: Split } {
  const left = new Map<number, number>();
  for (const label of split.labels) left.set(label, (left.get(label) ?? 0) + 1);
  for (const [label, count] of left) left.set(label, Math.round(share * count));
  const held = new Uint8Array(split.count);
  for (const index of permutation(split.count, 0, 0)) {
    const wanted = left.get(split.labels[index]!)!;
    if (wanted === 0) continue;
    left.set(split.labels[index]!, wanted - 1);
    held[index] = 1;
  }
  const part = (which: 0 | 1): Split => {
    const chosen = Array.from(held.keys()).filter((index) => held[index] === which);
    if (chosen.length === 0)
      throw new RevNetError(
        "ERR_INVALID_ARGUMENT",
        `validationShare: ${share} of ${split.count} images leaves none to ${which ? "validate with" : "train on"}`,
      );
    const imageBytes = split.images.length / split.count;
    const images = new Uint8Array(chosen.length * imageBytes);
    for (const [i, index] of chosen.entries())
      images.set(split.images.subarray(index * imageBytes, (index + 1) * imageBytes), i * imageBytes);
    return { count: chosen.length, images, labels: Int32Array.from(chosen, (index) => split.labels[index]!) };
  };
  return { train: part(0), held: part(1) };
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
  return meanOf(sum, split.count);
}

/** In a loop: `from` and a function take tens of milliseconds for a photo, in which the event loop waits. */
export function meanOf(sum: Float64Array, count: number): Float32Array {
  const mean = new Float32Array(sum.length);
  for (let i = 0; i < mean.length; i++) mean[i] = sum[i]! / count;
  return mean;
}

/**
 * Data sets of one's own as sequences of { image, label }: an iterable or async iterable is read into memory once; a function that
 * returns one is called for each epoch, and what it gives is trained on in its order as it comes.
 */

import { createHash } from "node:crypto";
import { types } from "node:util";
import { RevNetError } from "../errors.js";
import { describe } from "../validation.js";
import { unlessAborted } from "./abort.js";
import {
  type AnyDataset,
  type AnySplit,
  type Batch,
  type BatchRequest,
  isStreamed,
  meanImage,
  meanOf,
  type Split,
  type StreamedSplit,
} from "./dataset.js";
import { Pacer } from "./pacer.js";
import { type Shape, toPixels } from "./picture.js";

/** What a sequence of one's own gives. */
export interface LabelledImage {
  /** [height][width][channels] bytes of the data set's shape; or the bytes of an image file, which are resized. */
  readonly image: Uint8Array;
  /** In [0, classes). */
  readonly label: number;
}
/** Read into memory, once. */
export type ImageSequence = Iterable<LabelledImage> | AsyncIterable<LabelledImage>;
/**
 * Called with 0 to count the images, with the epoch, from 0, for each epoch of training, and with 0 for each evaluation. Each call
 * gives a new iterable, of at least as many images as the first one's.
 */
export type ImageSource = (epoch: number) => ImageSequence;

/** A data set object of the user's: each split in memory, or a sequence. */
export interface DatasetInput {
  /** For messages and reports. */
  readonly name: string;
  /** [height, width, channels]; default: the model's input. */
  readonly shape?: Shape;
  /** Class names, by label. */
  readonly classes: readonly string[];
  /** What is trained on. */
  readonly train: AnySplit | ImageSequence | ImageSource;
  /** What validation during training uses, and with it `patience` and the best checkpoint; default: `test`. */
  readonly validation?: AnySplit | ImageSequence | ImageSource;
  /** What evaluation uses. */
  readonly test: AnySplit | ImageSequence | ImageSource;
}

/** Images that an iterable may have, since they lie in memory. */
const MAX_COLLECTED = 2 ** 20;

interface Reading {
  readonly shape: Shape;
  readonly classes: number;
  /** What messages call the sequence. */
  readonly where: string;
  readonly signal?: AbortSignal | undefined;
}

const ABORTED = "reading the data was aborted";
const invalid = (what: string, cause?: unknown) => new RevNetError("ERR_INVALID_DATA", what, { cause });

export function isSequence(value: unknown): value is ImageSequence | ImageSource {
  if (typeof value === "function") return true;
  return typeof value === "object" && value !== null && (Symbol.asyncIterator in value || Symbol.iterator in value);
}

/**
 * A checked data set object with its sequences read or, where they are functions, read through once.
 * @throws RevNetError ERR_INVALID_DATA naming the image by its index; ERR_ABORTED; ERR_SHARP_MISSING
 */
export async function readDataset(input: DatasetInput | AnyDataset, modelShape: Shape, signal?: AbortSignal): Promise<AnyDataset> {
  const { name, shape = modelShape, classes } = input;
  if (![input.train, input.validation, input.test].some(isSequence)) return input as AnyDataset;
  const read = (key: "train" | "validation" | "test"): Promise<AnySplit> => {
    const split = input[key]!;
    return readSplit(split, { shape, classes: classes.length, where: `data.${key}`, signal });
  };
  const [train, test] = [await read("train"), await read("test")];
  const held = input.validation === undefined ? undefined : await read("validation");
  if (!isStreamed(train) && !isStreamed(test) && !(held && isStreamed(held)))
    return { name, shape, classes, train, ...(held && { validation: held }), test };
  const validation = held && { validation: held };
  const mean = train instanceof SourceSplit ? train.mean : await meanImage(train as Split);
  return { name, shape, classes, train, ...validation, test, mean: async () => mean, close: async () => {} };
}

async function readSplit(split: DatasetInput["train"], reading: Reading): Promise<AnySplit> {
  if (typeof split === "function") return SourceSplit.open(split, reading);
  return isSequence(split) ? collect(split, reading) : split;
}

/** The sequence's images, each checked. The caller's code may throw anything, which comes as the cause. */
async function* checked(sequence: ImageSequence, reading: Reading, skip = 0): AsyncGenerator<LabelledImage> {
  const { shape, classes, where, signal } = reading;
  const pacer = new Pacer();
  let index = 0;
  if (!isSequence(sequence) || typeof sequence === "function")
    throw invalid(`${where}: expected the function to return an iterable, got ${describe(sequence)}`);
  const items = iterator(sequence);
  let waiting = false;
  try {
    for (;;) {
      waiting = true;
      const item = await unlessAborted(
        guarded(`${where}[${index}]`, () => items.next()),
        signal,
        ABORTED,
      );
      waiting = false;
      if (item.done) return;
      if (index >= skip) yield await check(item.value, shape, classes, `${where}[${index}]`);
      index += 1;
      await pacer.breathe();
    }
  } finally {
    const left = guarded(where, async () => items.return?.());
    // One that hangs in its last image would not return before it.
    if (waiting) left.catch(() => {});
    else await left;
  }
}

const iterator = (sequence: ImageSequence): AsyncIterator<unknown> | Iterator<unknown> =>
  Symbol.asyncIterator in sequence ? sequence[Symbol.asyncIterator]() : sequence[Symbol.iterator]();

async function guarded<T>(where: string, action: () => T | PromiseLike<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    throw cause instanceof RevNetError ? cause : invalid(`${where}: ${(cause as Error)?.message ?? String(cause)}`, cause);
  }
}

async function check(item: unknown, shape: Shape, classes: number, where: string): Promise<LabelledImage> {
  if (typeof item !== "object" || item === null) throw invalid(`${where}: expected { image, label }, got ${describe(item)}`);
  const { image, label } = item as Partial<LabelledImage>;
  if (!Number.isInteger(label) || label! < 0 || label! >= classes)
    throw invalid(`${where}.label: expected a class from 0 to ${classes - 1}, got ${describe(label)}`);
  if (!types.isUint8Array(image)) throw invalid(`${where}.image: expected a Uint8Array, got ${describe(image)}`);
  return { image: await toPixels(image, shape, `${where}.image`), label: label! };
}

/** All images of an iterable, in memory. */
async function collect(sequence: ImageSequence, reading: Reading): Promise<Split> {
  const { shape, where } = reading;
  const elements = shape[0] * shape[1] * shape[2];
  let images = new Uint8Array(0);
  const labels: number[] = [];
  for await (const { image, label } of checked(sequence, reading)) {
    if (labels.length === MAX_COLLECTED)
      throw invalid(
        `${where}: more than ${MAX_COLLECTED} images; give a function that returns the iterable, which is not kept in memory`,
      );
    if ((labels.length + 1) * elements > images.length) images = grown(images, elements, where);
    images.set(image, labels.length * elements);
    labels.push(label);
  }
  if (labels.length === 0) throw invalid(`${where}: no images`);
  return { count: labels.length, images: images.slice(0, labels.length * elements), labels: Int32Array.from(labels) };
}

/** Twice as long, and longer than one more image. */
function grown(images: Uint8Array, atLeast: number, where: string): Uint8Array<ArrayBuffer> {
  try {
    const longer = new Uint8Array(2 * images.length + 16 * atLeast);
    longer.set(images);
    return longer;
  } catch (cause) {
    const what = `${where}: no memory beyond ${images.length} bytes; give a function that returns the iterable`;
    throw new RevNetError("ERR_OUT_OF_MEMORY", what, { cause });
  }
}

/** What a function returns, epoch for epoch. */
class SourceSplit implements StreamedSplit {
  private constructor(
    private readonly source: ImageSource,
    private readonly reading: Reading,
    readonly count: number,
    readonly fingerprint: string,
    readonly mean: Float32Array,
  ) {}

  /** Reads through the first epoch: how many images there are, which, and their mean. */
  static async open(source: ImageSource, reading: Reading): Promise<SourceSplit> {
    const elements = reading.shape[0] * reading.shape[1] * reading.shape[2];
    const sum = new Float64Array(elements);
    const hash = createHash("sha256");
    let count = 0;
    for await (const { image, label } of epochOf(source, 0, reading)) {
      for (let i = 0; i < elements; i++) sum[i]! += image[i]!;
      hash.update(image).update(`${label}\n`);
      count += 1;
    }
    if (count === 0) throw invalid(`${reading.where}: no images`);
    return new SourceSplit(source, reading, count, hash.digest("hex"), meanOf(sum, count));
  }

  async *batches({ batchSize, steps: [first, end], stepsPerEpoch }: BatchRequest): AsyncIterableIterator<Batch> {
    for (let step = first; step < end; ) {
      const epoch = Math.floor(step / stepsPerEpoch);
      const last = Math.min(end, (epoch + 1) * stepsPerEpoch);
      for await (const batch of this.#batches(epoch, batchSize, (step % stepsPerEpoch) * batchSize)) {
        if (batch.labels.length < batchSize) break;
        yield batch;
        if (++step === last) break;
      }
      if (step < last)
        throw invalid(
          `${this.reading.where}: epoch ${epoch} has fewer than the ${stepsPerEpoch * batchSize} images of its batches; the first call gave ${this.count}, and each is to give a new iterable`,
        );
    }
  }

  async *inOrder(batchSize: number): AsyncIterableIterator<Batch> {
    let left = this.count;
    for await (const batch of this.#batches(0, Math.min(batchSize, left), 0)) {
      left -= batch.labels.length;
      if (left < 0) break;
      yield batch;
    }
    if (left !== 0) throw invalid(`${this.reading.where}: another number of images than the ${this.count} of the first call`);
  }

  async read(indices: readonly number[]): Promise<Uint8Array> {
    const elements = this.mean.length;
    const images = new Uint8Array(indices.length * elements);
    const last = indices.reduce((a, b) => Math.max(a, b), 0);
    let index = 0;
    for await (const { image } of epochOf(this.source, 0, this.reading)) {
      for (const [row, wanted] of indices.entries()) if (wanted === index) images.set(image, row * elements);
      if (index++ === last) break;
    }
    return images;
  }

  /** The epoch's images from the one at `skip` on; the last batch may be smaller. */
  async *#batches(epoch: number, batchSize: number, skip: number): AsyncGenerator<Batch> {
    const elements = this.mean.length;
    let images = new Uint8Array(batchSize * elements);
    let labels: number[] = [];
    for await (const { image, label } of epochOf(this.source, epoch, this.reading, skip)) {
      images.set(image, labels.length * elements);
      labels.push(label);
      if (labels.length < batchSize) continue;
      yield { images, labels: Int32Array.from(labels), broken: [] };
      images = new Uint8Array(batchSize * elements);
      labels = [];
    }
    if (labels.length > 0)
      yield { images: images.subarray(0, labels.length * elements), labels: Int32Array.from(labels), broken: [] };
  }
}

async function* epochOf(source: ImageSource, epoch: number, reading: Reading, skip = 0): AsyncGenerator<LabelledImage> {
  const { where, signal } = reading;
  const sequence = await unlessAborted(
    guarded(where, () => source(epoch)),
    signal,
    ABORTED,
  );
  yield* checked(sequence, reading, skip);
}

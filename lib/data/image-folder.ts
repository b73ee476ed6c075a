/** The data set `image-folder`: images of a folder, decoded ahead of their use into a ring of batches. */
import { createHash } from "node:crypto";
import path from "node:path";
import { RevNetError } from "../errors.js";
import { Contents, digestOfPacked } from "./contents.js";
import type { Batch, BatchRequest, BrokenImage, StreamedDataset, StreamedSplit } from "./dataset.js";
import { Decoder, type Item } from "./decoder.js";
import { type ImageFile, listFolder } from "./folder.js";
import { Pacer } from "./pacer.js";
import { firstChanged, type Pack, packFile, readPack } from "./pack.js";
import { hasPictures, type Shape } from "./picture.js";
import { CROP_WORDS, cropDraws, permutation } from "./random.js";

export const BROKEN_IMAGES = ["skip", "fail"] as const;

export interface ImageFolderOptions {
  readonly shape: Shape;
  readonly validationShare?: number | undefined;
  /** Classes by label that the folders are matched to. */
  readonly classes?: readonly string[] | undefined;
  /** "skip" (default): report broken files and go on; "fail": the first one is an error. */
  readonly brokenImages?: (typeof BROKEN_IMAGES)[number] | undefined;
  /** So many of the images, chosen at random but always the same. */
  readonly trainCount?: number | undefined;
  readonly testCount?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called where a pack is there but cannot be used. */
  readonly onWarning?: ((error: RevNetError) => void) | undefined;
}

/** Batches in memory: one that is trained on, and those being made. */
const RING = 3;
/** Images that the mean is taken over, evenly spaced. */
const MEAN_SAMPLE = 1000;
const MEAN_BATCH = 50;
/** Broken files in a row that are stepped over before it is taken for a defect of the whole data set. */
const MAX_SKIPS = 1000;

/**
 * @throws RevNetError ERR_INVALID_DATA, ERR_INVALID_ARGUMENT (as listFolder; a shape that no image file has), ERR_SHARP_MISSING
 */
export async function openImageFolder(folder: string, options: ImageFolderOptions): Promise<StreamedDataset> {
  const { shape, brokenImages = "skip" } = options;
  if (!hasPictures(shape))
    throw new RevNetError("ERR_INVALID_ARGUMENT", `image-folder: images have 1 or 3 channels, and the model takes ${shape[2]}`);
  const { classes, signal, validationShare: share } = options;
  const listing = await listFolder(folder, { share, classes, signal });
  const train = sample(listing.train, options.trainCount);
  const test = sample(listing.test, options.testCount);
  const { validation, leftOut } = listing;
  const pack = await usablePack(folder, shape, [...train, ...validation, ...test], options.onWarning);
  const contents = new Contents(folder, [...train, ...validation, ...test]);
  for (const [name, { picture }] of pack?.entries ?? []) if (picture) contents.note(name, digestOfPacked(picture.crc));
  const decoder = new Decoder(shape, pack?.file);
  try {
    const open = (files: readonly ImageFile[]) => new FolderSplit(folder, files, shape, decoder, pack, contents, brokenImages);
    const split = open(train);
    return {
      name: "image-folder",
      shape,
      classes: listing.classes,
      train: split,
      ...(validation.length > 0 && { validation: open(validation) }),
      test: open(test),
      leftOut,
      contents,
      mean: (onProgress) => channelMeans(split, shape, onProgress),
      close: () => decoder.close(),
    };
  } catch (error) {
    await decoder.close();
    throw error;
  }
}

function sample(files: readonly ImageFile[], count = files.length): readonly ImageFile[] {
  if (count >= files.length) return files;
  const chosen = permutation(files.length, 0, 0).slice(0, count).sort();
  return Array.from(chosen, (index) => files[index]!);
}

async function usablePack(
  folder: string,
  shape: Shape,
  files: readonly ImageFile[],
  onWarning: ((error: RevNetError) => void) | undefined,
): Promise<Pack | undefined> {
  const file = packFile(folder, shape);
  try {
    const pack = await readPack(file, shape);
    const changed = pack && firstChanged(pack, files);
    if (!changed) return pack;
    throw new RevNetError("ERR_INVALID_FILE", `'${file}' is out of date (${changed.name} has changed)`);
  } catch (error) {
    if (!(error instanceof RevNetError)) throw error;
    const advice = "so images are decoded; `revnet data pack` makes it anew";
    onWarning?.(new RevNetError(error.code, `${error.message}, ${advice}`, { cause: error }));
    return undefined;
  }
}

/** The mean of each channel over a sample of the images, for every pixel. */
async function channelMeans(
  split: FolderSplit,
  [height, width, channels]: Shape,
  onProgress?: (done: number, total: number) => void,
): Promise<Float32Array> {
  const total = Math.min(MEAN_SAMPLE, split.count);
  const chosen = Array.from({ length: total }, (_, i) => Math.floor((i * split.count) / total));
  const sums = new Float64Array(channels);
  const imageBytes = height * width * channels;
  const pacer = new Pacer();
  let images = 0;
  for (let first = 0; first < total; first += MEAN_BATCH) {
    const batch = await split.make(chosen.slice(first, first + MEAN_BATCH));
    for (const [row, label] of batch.labels.entries()) {
      if (label < 0) continue;
      images += 1;
      const end = (row + 1) * imageBytes;
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let at = row * imageBytes + channel; at < end; at += channels) sum += batch.images[at]!;
        sums[channel]! += sum;
      }
      await pacer.breathe();
    }
    onProgress?.(Math.min(total, first + MEAN_BATCH), total);
  }
  if (images === 0)
    throw new RevNetError("ERR_INVALID_DATA", `none of ${total} images could be decoded, such as ${split.fileOf(chosen[0]!)}`);
  const means = sums.map((sum) => sum / (images * height * width));
  return Float32Array.from({ length: imageBytes }, (_, i) => means[i % channels]!);
}

export class FolderSplit implements StreamedSplit {
  readonly count: number;
  readonly fingerprint: string;
  /** Reasons, by index, of the images that are known to be broken. */
  readonly #broken = new Map<number, string>();

  constructor(
    private readonly folder: string,
    private readonly files: readonly ImageFile[],
    private readonly shape: Shape,
    private readonly decoder: Decoder,
    private readonly pack: Pack | undefined,
    private readonly contents: Contents,
    private readonly brokenImages: "skip" | "fail",
  ) {
    this.count = files.length;
    const hash = createHash("sha256");
    for (const { name, label, size } of files) hash.update(`${name}\0${label}\0${size}\n`);
    this.fingerprint = hash.digest("hex");
    for (const [i, { name }] of files.entries()) {
      const reason = pack?.entries.get(name)?.broken;
      if (reason !== undefined) this.#broken.set(i, reason);
    }
  }

  fileOf(index: number): string {
    return path.join(this.folder, this.files[index]!.onDisk);
  }

  batches({ batchSize, seed, steps: [first, end], indices, resizedCrop }: BatchRequest): AsyncIterableIterator<Batch> {
    return this.#ahead(batchSize, first, end, async (step, target) => {
      const words = resizedCrop > 0 ? cropDraws(seed, step, batchSize) : undefined;
      return this.#training(Array.from(indices(step)), target, resizedCrop, words);
    });
  }

  inOrder(batchSize: number): AsyncIterableIterator<Batch> {
    return this.#ahead(batchSize, 0, Math.ceil(this.count / batchSize), async (i, target) => {
      const first = i * batchSize;
      const chosen = Array.from({ length: Math.min(batchSize, this.count - first) }, (_, row) => first + row);
      return this.#plain(chosen, target);
    });
  }

  async read(indices: readonly number[]): Promise<Uint8Array> {
    return (await this.make(indices)).images;
  }

  /** Images by index, broken ones black with the label -1. */
  async make(indices: readonly number[]): Promise<Batch> {
    const target = new SharedArrayBuffer(indices.length * this.#imageBytes);
    return copied(await this.#plain(indices, target));
  }

  get #imageBytes(): number {
    return this.shape[0] * this.shape[1] * this.shape[2];
  }

  /**
   * Batches [first, end), each made by `make` in a buffer of its own of the ring; a buffer is used again once its batch was
   * copied out. So RING - 1 batches are under way while the reader works, and no more.
   */
  async *#ahead(
    batchSize: number,
    first: number,
    end: number,
    make: (i: number, target: SharedArrayBuffer) => Promise<Batch>,
  ): AsyncIterableIterator<Batch> {
    const length = Math.min(RING, end - first);
    const buffers = Array.from({ length }, () => new SharedArrayBuffer(batchSize * this.#imageBytes));
    const queue: Promise<Batch>[] = [];
    let next = first;
    const start = () => {
      const batch = make(next, buffers[(next - first) % length]!);
      batch.catch(() => {}); // Whoever reads this batch gets the error; nobody may.
      queue.push(batch);
      next += 1;
    };
    while (queue.length < length) start();
    for (let i = first; i < end; i++) {
      const batch = copied(await queue.shift()!);
      if (next < end) start();
      yield batch;
    }
  }

  /** Every row an image that is whole: a broken one's place is taken by the next one of the split. */
  async #training(chosen: number[], target: SharedArrayBuffer, resizedCrop: number, words?: Uint32Array): Promise<Batch> {
    const broken = new Map<number, BrokenImage>();
    let rows = chosen.map((_, row) => row);
    for (let skips = 0; rows.length > 0; skips++) {
      for (const row of rows)
        for (let tries = 0; this.#broken.has(chosen[row]!); tries++) {
          broken.set(chosen[row]!, this.#report(chosen[row]!));
          if (Math.max(tries, skips) >= Math.min(MAX_SKIPS, this.count)) throw this.#allBroken(chosen[row]!);
          chosen[row] = (chosen[row]! + 1) % this.count;
        }
      const items = rows.map((row) => this.#item(row, chosen[row]!, words?.slice(row * CROP_WORDS, (row + 1) * CROP_WORDS)));
      const { failures, digests } = await this.decoder.fill(target, items, resizedCrop);
      for (const { row, digest } of digests) this.contents.note(this.files[chosen[row]!]!.name, digest);
      for (const { row, reason } of failures) this.#broken.set(chosen[row]!, reason);
      rows = failures.map(({ row }) => row);
    }
    const labels = Int32Array.from(chosen, (index) => this.files[index]!.label);
    return { images: new Uint8Array(target), labels, broken: sorted(broken) };
  }

  async #plain(chosen: readonly number[], target: SharedArrayBuffer): Promise<Batch> {
    const rows = Array.from(chosen.keys());
    const items = rows.filter((row) => !this.#broken.has(chosen[row]!)).map((row) => this.#item(row, chosen[row]!));
    const { failures, digests } = await this.decoder.fill(target, items);
    for (const { row, digest } of digests) this.contents.note(this.files[chosen[row]!]!.name, digest);
    for (const { row, reason } of failures) this.#broken.set(chosen[row]!, reason);
    const images = new Uint8Array(target, 0, chosen.length * this.#imageBytes);
    const broken = new Map<number, BrokenImage>();
    const labels = Int32Array.from(chosen, (index, row) => {
      if (!this.#broken.has(index)) return this.files[index]!.label;
      broken.set(index, this.#report(index));
      images.fill(0, row * this.#imageBytes, (row + 1) * this.#imageBytes);
      return -1;
    });
    return { images, labels, broken: sorted(broken) };
  }

  #item(row: number, index: number, words?: Uint32Array): Item {
    const { name } = this.files[index]!;
    const packed = this.pack?.entries.get(name)?.picture;
    const digest = !this.contents.has(name);
    return { row, file: this.fileOf(index), digest, ...(packed && { packed }), ...(words && { words }) };
  }

  /** @throws RevNetError ERR_INVALID_DATA where broken images are not to be skipped */
  #report(index: number): BrokenImage {
    const broken = { file: this.fileOf(index), reason: this.#broken.get(index)! };
    if (this.brokenImages === "skip") return broken;
    throw new RevNetError("ERR_INVALID_DATA", `${broken.file}: ${broken.reason} (brokenImages: "skip" goes on without it)`);
  }

  #allBroken(index: number): RevNetError {
    return new RevNetError(
      "ERR_INVALID_DATA",
      `${this.fileOf(index)}: ${this.#broken.get(index)}, as with all images before it: none can be decoded`,
    );
  }
}

/** In memory of its own, so that the ring's can be used again. */
const copied = ({ images, ...rest }: Batch): Batch => ({ ...rest, images: images.slice() });

/** By index: the same list whichever thread came first. */
const sorted = (broken: ReadonlyMap<number, BrokenImage>) => [...broken].sort(([a], [b]) => a - b).map(([, image]) => image);

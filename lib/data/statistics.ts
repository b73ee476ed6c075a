/** What there is in a data set: images by class, mean and deviation by channel, broken files. */

import { RevNetError } from "../errors.js";
import { type AnyDataset, type AnySplit, type BrokenImage, inOrder } from "./dataset.js";
import { Pacer } from "./pacer.js";

export interface SplitStatistics {
  /** Images that are whole. */
  readonly images: number;
  /** By label. */
  readonly perClass: number[];
  /** By channel, in bytes' units; NaN where there is no whole image. */
  readonly mean: number[];
  readonly deviation: number[];
  readonly broken: readonly BrokenImage[];
}

const BATCH = 64;

export async function splitStatistics(
  split: AnySplit,
  { shape, classes }: Pick<AnyDataset, "shape" | "classes">,
  onProgress?: (done: number, total: number) => void,
  signal?: AbortSignal,
): Promise<SplitStatistics> {
  const [height, width, channels] = shape;
  const imageBytes = height * width * channels;
  const perClass = new Array<number>(classes.length).fill(0);
  // Sums of bytes and of their squares are integers, exact up to 2^53.
  const sums = new Array<number>(channels).fill(0);
  const squares = new Array<number>(channels).fill(0);
  const broken: BrokenImage[] = [];
  const pacer = new Pacer();
  let [images, done] = [0, 0];
  for await (const batch of inOrder(split, BATCH)) {
    if (signal?.aborted) throw new RevNetError("ERR_ABORTED", "the inspection was aborted", { cause: signal.reason });
    for (const image of batch.broken) broken.push(image);
    for (const [row, label] of batch.labels.entries()) {
      if (label < 0) continue;
      images += 1;
      perClass[label]! += 1;
      const end = (row + 1) * imageBytes;
      for (let channel = 0; channel < channels; channel++) {
        let [sum, square] = [0, 0];
        for (let at = row * imageBytes + channel; at < end; at += channels) {
          const byte = batch.images[at]!;
          sum += byte;
          square += byte * byte;
        }
        sums[channel]! += sum;
        squares[channel]! += square;
      }
      await pacer.breathe();
    }
    done += batch.labels.length;
    onProgress?.(done, split.count);
  }
  const pixels = images * height * width;
  const mean = sums.map((sum) => sum / pixels);
  const deviation = squares.map((square, i) => Math.sqrt(Math.max(0, square / pixels - mean[i]! ** 2)));
  return { images, perClass, mean, deviation, broken };
}

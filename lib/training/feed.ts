/** What each training step is given, from a data set in memory (indices) or from a stream (images, made ahead). */
import { unlessAborted } from "../data/abort.js";
import { type AnySplit, type BrokenImage, isStreamed, type StreamedSplit } from "../data/dataset.js";
import type { StepBatch } from "../network/training-step.js";
import type { Batches } from "./batches.js";
import type { Settings } from "./options.js";

export interface Fed {
  readonly batch: StepBatch;
  /** Images that were to be in the batch and cannot be decoded; others took their places. */
  readonly broken: readonly BrokenImage[];
}

export interface Feed {
  /** Of the next step. Once the steps are over: anything. */
  next(): Promise<Fed>;
  /** No more steps. */
  close(): Promise<void>;
}

/** For steps [first, end). */
export function feedOf(split: AnySplit, batches: Batches, settings: Settings, [first, end]: [number, number]): Feed {
  if (isStreamed(split)) return streamFeed(split, batches, settings, [first, end]);
  let step = first;
  return {
    next: async () => ({ batch: { indices: batches.at(Math.min(step++, end - 1)) }, broken: [] }),
    close: async () => {},
  };
}

function streamFeed(split: StreamedSplit, batches: Batches, settings: Settings, steps: [number, number]): Feed {
  const { batchSize, seed, augment, signal } = settings;
  const stream = split.batches({
    batchSize,
    seed,
    steps,
    stepsPerEpoch: batches.stepsPerEpoch,
    indices: (step) => batches.at(step),
    resizedCrop: augment.resizedCrop ?? 0,
  });
  return {
    async next() {
      const { done, value } = await unlessAborted(stream.next(), signal, "training was aborted while it waited for images");
      if (done) return { batch: { indices: new Int32Array(0) }, broken: [] };
      const { images, labels, broken } = value;
      return { batch: { images, labels }, broken };
    },
    async close() {
      // Not awaited: a stream of the caller's may hang in its last image.
      stream.return?.().catch(() => {});
    },
  };
}

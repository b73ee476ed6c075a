/** What only the trained network, its data and its plan can tell: analysis.json, beside the metrics and the summary. */

import path from "node:path";
import { Worker } from "node:worker_threads";
import { type AnyDataset, isStreamed, readImages } from "../data/dataset.js";
import type { Evaluation } from "../network/inference.js";
import type { Reconstruction } from "../network/probe.js";
import type { CalibrationBin } from "../network/scores.js";
import type { NetworkSpec } from "../network/spec.js";
import type { DepthPlan, Task } from "./memory-worker.js";
import { dataUrl, encodePng, shrinkImage } from "./png.js";

/** A test image that was classified wrongly. */
export interface Mistake {
  /** In the test split. */
  index: number;
  /** Its path; null where images are no files, undefined in files of an earlier version. */
  file?: string | null | undefined;
  label: number;
  prediction: number;
  /** Cross-entropy. */
  loss: number;
  /** PNG data URL; null where the image's channels are no colours. */
  image: string | null;
}

export interface Analysis {
  classes: readonly string[];
  /** The last evaluation on the test split; null where the run had none. */
  evaluation: {
    step: number;
    /** Those that could be decoded. */
    images: number;
    /** Null where there are at most five classes; these and the next are undefined in files of an earlier version. */
    top5Error?: number | null | undefined;
    calibrationError?: number | undefined;
    calibration?: readonly CalibrationBin[] | undefined;
    /** [label][prediction] counts; null beyond MAX_CONFUSION classes. */
    confusion: readonly (readonly number[])[] | null;
    /** The greatest losses first. */
    mistakes: readonly Mistake[];
  } | null;
  /** Largest difference between a reversible block's inputs and what inverting gave back; null: not a number. */
  reconstruction: readonly { stage: number; block: number; error: number | null }[] | null;
  /** Of one batch's step, with one batch as the data set: what depends on the network alone. */
  memory: readonly DepthPlan[];
}

/** What the trainer has at hand when a run ends. */
export interface Findings {
  spec: NetworkSpec;
  dataset: AnyDataset;
  plan: Task["options"];
  evaluation: (Evaluation & { step: number }) | undefined;
  reconstruction: Reconstruction | undefined;
}

export const MAX_CONFUSION = 1000;
const MAX_MISTAKES = 24;
/** Pixels of a shown image's longer edge, at most. */
const MAX_EDGE = 128;
const FACTORS = [1, 3, 9];

export async function analyse({ spec, dataset, plan, evaluation, reconstruction }: Findings): Promise<Analysis> {
  return {
    classes: dataset.classes,
    evaluation: evaluation
      ? {
          step: evaluation.step,
          images: dataset.test.count - evaluation.broken.length,
          top5Error: evaluation.top5Error,
          calibrationError: evaluation.calibrationError,
          calibration: evaluation.calibration,
          confusion: dataset.classes.length <= MAX_CONFUSION ? evaluation.confusion : null,
          mistakes: await findMistakes(dataset, evaluation),
        }
      : null,
    reconstruction:
      reconstruction?.blocks.map(({ stage, block, error }) => ({
        stage,
        block,
        error: Number.isFinite(error) ? error : null,
      })) ?? null,
    memory: await planDepths({ spec, options: plan }),
  };
}

async function findMistakes({ test, shape }: AnyDataset, { losses, predictions, labels }: Evaluation): Promise<Mistake[]> {
  const worst = Array.from(losses.keys())
    .filter((index) => predictions[index] !== labels[index])
    .sort((a, b) => losses[b]! - losses[a]!)
    .slice(0, MAX_MISTAKES);
  const imageBytes = shape[0] * shape[1] * shape[2];
  const pixels = await readImages(test, worst);
  return worst.map((index, i) => ({
    index,
    file: isStreamed(test) ? (test.fileOf?.(index) ?? null) : null,
    label: labels[index]!,
    prediction: predictions[index]!,
    loss: losses[index]!,
    image: show(pixels.subarray(i * imageBytes, (i + 1) * imageBytes), shape),
  }));
}

function show(pixels: Uint8Array, shape: readonly [number, number, number]): string | null {
  const [height, width, channels] = shape;
  if (channels > 4) return null;
  // An image of one row and a thousand columns shrinks to nothing; such images are left as they are.
  const factor = Math.min(Math.ceil(Math.max(height, width) / MAX_EDGE), height, width);
  const small = shrinkImage(pixels, shape, factor);
  return dataUrl(encodePng(small.pixels, small.shape));
}

/**
 * On a thread of its own, since planning a deep network takes a second or so, and the event loop is to stay free. Nothing where
 * there can be no such thread: the trained network is worth more than a report's section.
 */
export function planDepths(task: Omit<Task, "factors">): Promise<DepthPlan[]> {
  return new Promise((resolve) => {
    const worker = new Worker(path.join(__dirname, "memory-worker.js"), {
      workerData: { ...task, factors: FACTORS } satisfies Task,
    });
    worker.once("message", resolve);
    worker.once("error", () => resolve([]));
    worker.once("exit", () => resolve([]));
  });
}

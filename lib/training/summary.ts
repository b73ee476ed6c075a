/** The figures a run ends with: summary.json. */
import type { MemoryReport } from "../../binding.js";
import type { LeftOutSummary } from "../data/left-out.js";
import type { Precision, StreamGradients } from "../network/device.js";
import type { Activations, Streams } from "../network/recorder.js";
import type { AcceptedChange } from "./data-record.js";

export interface Summary {
  model: string;
  kind: "revnet" | "resnet";
  /** How many numbers are trained. */
  parameters: number;
  activations: Activations;
  streams: Streams;
  precision: Precision;
  streamGradients: StreamGradients;
  device: string;
  threads: number;
  seed: number;
  batchSize: number;
  /** Steps done, also before a resume: fewer than asked for if the run was aborted, or ended by `patience`. */
  steps: number;
  /** The same in epochs. */
  epochs: number;
  /** Mean loss over the last epoch's steps (or over all, if fewer); null before the first step. */
  trainLoss: number | null;
  /** Of the test split after the last step, with `patience` at the best validation; null if the run was aborted before. */
  testLoss: number | null;
  /** Fraction classified wrongly. */
  testError: number | null;
  /** Of the validation split, where the data set has one apart from the test split; else null. */
  validationLoss: number | null;
  /** Fraction classified wrongly. */
  validationError: number | null;
  stepMilliseconds: { median: number; p10: number; p90: number };
  /** By the median step. */
  imagesPerSecond: number;
  /** Bytes, at the peak. */
  memory: MemoryReport;
  reconstruction: {
    /** Whether inverting a training batch's forward pass gave back its bits; null where the run was not a reversible one or was aborted. */
    exact: boolean | null;
    /** Elements of fixed-point streams that left their range, over all steps. */
    outOfRange: number;
  };
  /** Training batches that the running statistics were estimated from at the end (precise batch norm); null: they are those of training. */
  statisticsBatches: number | null;
  /** What the folder of an image-folder has beside the images that are used; the count is 0 for other data. */
  leftOut: LeftOutSummary;
  /** Changes of the data that resumed runs went on with (`acceptChangedData`). */
  dataChanges: readonly AcceptedChange[];
  /** Images that could not be decoded, in the order in which the run met them. */
  brokenImages: { file: string; reason: string }[];
  /** Of all parameters and running statistics, by name. */
  weightsSha256: string;
}

/** Element at `fraction` of the way through the values in ascending order; 0 where there are none. */
function quantile(values: readonly number[], fraction: number): number {
  const ascending = Float64Array.from(values).sort();
  return ascending[Math.round(fraction * (ascending.length - 1))] ?? 0;
}

/** Durations of a run's steps in milliseconds. */
export function stepStatistics(milliseconds: readonly number[]): Summary["stepMilliseconds"] {
  return { median: quantile(milliseconds, 0.5), p10: quantile(milliseconds, 0.1), p90: quantile(milliseconds, 0.9) };
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Mean loss and error. */
export function averages(steps: readonly { loss: number; error: number }[]): { loss: number; error: number } {
  return { loss: mean(steps.map(({ loss }) => loss)), error: mean(steps.map(({ error }) => error)) };
}

/** The figures a run ends with: summary.json. */
import type { MemoryReport } from "../../binding.js";
import type { Precision } from "../network/device.js";
import type { Network } from "../network/network.js";
import type { Activations, Streams } from "../network/recorder.js";
import type { StepEvent, ValidationEvent } from "./events.js";
import type { Settings } from "./options.js";

export interface Summary {
  model: string;
  kind: "revnet" | "resnet";
  /** How many numbers are trained. */
  parameters: number;
  activations: Activations;
  streams: Streams;
  precision: Precision;
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
export function averages(steps: readonly StepEvent[]): { loss: number; error: number } {
  return { loss: mean(steps.map(({ loss }) => loss)), error: mean(steps.map(({ error }) => error)) };
}

/** What a run has come to; the network's parameters must be fresh. */
export interface Outcome extends Pick<Summary, "memory" | "reconstruction" | "brokenImages"> {
  readonly settings: Settings;
  readonly network: Network;
  /** All of the run. */
  readonly steps: readonly StepEvent[];
  readonly done: number;
  readonly stepsPerEpoch: number;
  /** Of the weights that the network has now. */
  readonly validation: Pick<ValidationEvent, "loss" | "error"> | null | undefined;
}

export function summarize(outcome: Outcome): Summary {
  const { settings, network, steps, done, stepsPerEpoch, validation, memory, reconstruction, brokenImages } = outcome;
  const { activations, streams, precision, threads, seed, batchSize } = settings;
  const stepMilliseconds = stepStatistics(steps.map(({ milliseconds }) => milliseconds));
  return {
    model: network.spec.name,
    kind: network.spec.kind,
    parameters: network.parameterCount,
    activations,
    streams,
    precision,
    device: network.device,
    threads,
    seed,
    batchSize,
    steps: done,
    epochs: done / stepsPerEpoch,
    trainLoss: steps.length > 0 ? averages(steps.slice(-stepsPerEpoch)).loss : null,
    testLoss: validation?.loss ?? null,
    testError: validation?.error ?? null,
    stepMilliseconds,
    imagesPerSecond: stepMilliseconds.median > 0 ? (1000 * batchSize) / stepMilliseconds.median : 0,
    memory,
    reconstruction,
    brokenImages,
    weightsSha256: network.weightsSha256(),
  };
}

/** What a run reports while it trains. */
import type { MemoryReport } from "../../binding.js";
import type { LeftOutSummary } from "../data/left-out.js";
import type { Summary } from "./summary.js";

/** With `ui`: once, as soon as the live page is there. */
export interface UiEvent {
  type: "ui";
  /** With the token without which it gives nothing. */
  url: string;
}
/** Once, before the first step. */
export interface StartEvent {
  type: "start";
  model: string;
  /** The device and why it was chosen. */
  device: string;
  parameters: number;
  steps: number;
  stepsPerEpoch: number;
  batchSize: number;
  /** What the schedule starts from. */
  learningRate: number;
  /** The recipe's, where the learning rate was scaled from its batch size to this run's. */
  scaledFrom?: { learningRate: number; batchSize: number };
  /** Steps of the checkpoint that the run goes on from; 0 for a new run. */
  resumedFrom: number;
  /** Bytes that the run will hold, as planned. */
  memory: MemoryReport;
}
/** While a data set is read, before `start`. */
export interface DataEvent {
  type: "data";
  done: number;
  total: number;
}
/** Once, before `start`: what the folder of an image-folder has beside the images that are used, where it has anything. */
export interface LeftOutEvent extends LeftOutSummary {
  type: "leftOut";
}
/** An image that cannot be decoded, the first time that the run meets it; another one took its place. */
export interface BrokenImageEvent {
  type: "brokenImage";
  /** The step that it was for, or that the validation followed. */
  step: number;
  file: string;
  reason: string;
}
/** After each step. Steps and epochs count from 1. */
export interface StepEvent {
  type: "step";
  step: number;
  epoch: number;
  /** Mean cross-entropy of the batch, before the update. */
  loss: number;
  /** Fraction of the batch classified wrongly. */
  error: number;
  learningRate: number;
  /** As this thread saw it: where it was held up, a step took longer, and one that ran meanwhile less. */
  milliseconds: number;
}
/**
 * A fixed-point stream left its range in this step: results of such steps are not to be trusted. Where they are too many, the run ends
 * with ERR_OUT_OF_RANGE (docs/numerics.md).
 */
export interface OutOfRangeEvent {
  type: "outOfRange";
  step: number;
  /** Elements that left the range. */
  count: number;
}
/** Running statistics on the validation split, or on the test split where the data set has no other. */
export interface ValidationEvent {
  type: "validation";
  step: number;
  epoch: number;
  /** Which images: those of the validation split where there is one. */
  split: "validation" | "test";
  loss: number;
  error: number;
  /** Null where there are at most five classes. */
  top5Error: number | null;
  /** Expected calibration error. */
  calibrationError: number;
  milliseconds: number;
}
/**
 * With `verifyEvery`: the images of the last step once more, with the weights as they are now. Nothing of the run changes.
 */
export interface VerificationEvent {
  type: "verification";
  step: number;
  epoch: number;
  /** Largest difference between what inverting the blocks gave back and the stored forward pass: 0 where streams are exact. */
  maxError: number;
  /** Between all gradients with rebuilt and with stored activations: 1 where they are the same. */
  cosine: number;
  /** The largest difference of each reversible block. */
  blocks: { stage: number; block: number; error: number }[];
  milliseconds: number;
}
/** After an epoch's last step, and its validation if it has one. */
export interface EpochEvent {
  type: "epoch";
  epoch: number;
  step: number;
  /** Means over the epoch's steps. */
  loss: number;
  error: number;
  milliseconds: number;
}
/** A checkpoint is on the disk. */
export interface CheckpointEvent {
  type: "checkpoint";
  step: number;
  file: string;
  /** Kept for its validation, not for its step. */
  best: boolean;
  milliseconds: number;
}
/** Something went wrong that the run goes on without: a damaged checkpoint, a disk that is full, a loss beyond that of guessing. */
export interface WarningEvent {
  type: "warning";
  step: number;
  /** Of the RevNetError that `message` is from; or REVNET_OUT_OF_RANGE (in a validation or test), REVNET_ABOVE_CHANCE. */
  code: string;
  message: string;
}
/** Once, when everything is written. */
export interface DoneEvent {
  type: "done";
  summary: Summary;
}
export type TrainingEvent =
  | DataEvent
  | UiEvent
  | LeftOutEvent
  | StartEvent
  | BrokenImageEvent
  | StepEvent
  | OutOfRangeEvent
  | ValidationEvent
  | VerificationEvent
  | EpochEvent
  | CheckpointEvent
  | WarningEvent
  | DoneEvent;

/** revnet: Reversible Residual Networks for Node.js. Everything public is exported here. */
export type { MemoryReport, NativeDevice } from "../binding.js";
export {
  type AnyDataset,
  type AnySplit,
  type Batch,
  type BatchRequest,
  type BrokenImage,
  type Dataset,
  meanImage,
  type Split,
  type StreamedDataset,
  type StreamedSplit,
} from "./data/dataset.js";
export { type Download, type DownloadOptions, downloadDataset } from "./data/download.js";
export { type DatasetName, type DatasetOptions, openDataset } from "./data/open.js";
export { type Packing, packFolder } from "./data/packing.js";
export type {
  DatasetInput,
  ImageSequence,
  ImageSource,
  LabelledImage,
} from "./data/sequence.js";
export { RevNetError } from "./errors.js";
export { devices } from "./native/index.js";
export { type Model, modelNames, resolveModel } from "./network/models.js";
export { createNetwork, loadNetwork, memoryPlan, Network } from "./network/network.js";
export type { AugmentRecipe, OptimizerRecipe, Recipe } from "./network/recipe.js";
export type { NetworkSpec } from "./network/spec.js";
export type {
  BrokenImageEvent,
  CheckpointEvent,
  DataEvent,
  DoneEvent,
  EpochEvent,
  OutOfRangeEvent,
  StartEvent,
  StepEvent,
  TrainingEvent,
  UiEvent,
  ValidationEvent,
  VerificationEvent,
  WarningEvent,
} from "./training/events.js";
export { checkGradients, type GradientCheck } from "./training/gradient-check.js";
export type { TrainOptions } from "./training/options.js";
export type { History, TrainingResult, TrainingRun } from "./training/run.js";
export type { Schedule } from "./training/schedule.js";
export type { Summary } from "./training/summary.js";
export { trainRevNet } from "./training/train.js";

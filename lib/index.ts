/** revnet: Reversible Residual Networks for Node.js. Everything public is exported here. */
import "./globals.js";

export type { MemoryReport, NativeDevice } from "../binding.js";
export {
  type AnyDataset,
  type AnySplit,
  type Batch,
  type BatchRequest,
  type BrokenImage,
  type Dataset,
  type LeftOut,
  meanImage,
  type Split,
  type StreamedDataset,
  type StreamedSplit,
} from "./data/dataset.js";
export { type Download, type DownloadOptions, downloadDataset } from "./data/download.js";
export type { LeftOutSummary } from "./data/left-out.js";
export { type DatasetName, type DatasetOptions, openDataset } from "./data/open.js";
export { type Packing, packFolder } from "./data/packing.js";
export type { Shape } from "./data/picture.js";
export type {
  DatasetInput,
  ImageSequence,
  ImageSource,
  LabelledImage,
} from "./data/sequence.js";
export { RevNetError } from "./errors.js";
export { devices } from "./native/index.js";
export type { DeviceOptions } from "./network/device.js";
export type { ParameterInput, ParameterTensor } from "./network/host.js";
export type { ImageFiles, Images, Labels, Preprocessing } from "./network/images.js";
export type { Evaluation, EvaluationOptions } from "./network/inference.js";
export { type MemoryPlanOptions, memoryPlan } from "./network/memory.js";
export { type Model, type ModelDefinition, modelNames, resolveModel } from "./network/models.js";
export { createNetwork, loadNetwork, Network, type NetworkOptions } from "./network/network.js";
export type { RealArray } from "./network/parameters.js";
export type { TrainingOptions } from "./network/preparation.js";
export type { LossAndGradients, Reconstruction } from "./network/probe.js";
export type { AugmentRecipe, Recipe } from "./network/recipe.js";
export type { Activations, Streams } from "./network/recorder.js";
export type { CalibrationBin, ClassScores } from "./network/scores.js";
export type { NetworkSpec } from "./network/spec.js";
export type { StepBatch, StepResult, StepSettings, TrainingStep } from "./network/training-step.js";
export type { BlockError } from "./network/verification.js";
export type { AdamWRecipe } from "./optimizers/adamw.js";
export type { OptimizerName, OptimizerRecipe, OptimizerSettings } from "./optimizers/index.js";
export type { SgdRecipe } from "./optimizers/sgd.js";
export type { Schedule, ScheduleName, ScheduleRecipe, Warmup } from "./schedules/index.js";
export type { AcceptedChange } from "./training/data-record.js";
export type {
  BrokenImageEvent,
  CheckpointEvent,
  DataEvent,
  DoneEvent,
  EpochEvent,
  LeftOutEvent,
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
export type { Summary } from "./training/summary.js";
export { trainRevNet } from "./training/train.js";

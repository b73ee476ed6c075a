/**
 * The programs of a network. Each returns its ops and buffers, and the buffers through which JavaScript feeds and reads it.
 *
 *   training    images -> forward -> loss -> backward -> running statistics -> the optimizer's update
 *   statistics  images -> forward -> running statistics, which become those of the batch
 *   gradients   the same without the last two: nothing but the gradients (and batch statistics) changes
 *   inference   images -> forward with running statistics -> loss
 *   reconstruct images -> forward, with copies -> inverse, block by block, compared with the copies
 *
 * Images come from the data set on the device (bytes, augmented), from a batch of bytes, or as normalised numbers.
 */
import type { BufferId } from "../../binding.js";
import { type OptimizerName, optimizerKind } from "../optimizers/index.js";
import { recordBackward } from "./backward.js";
import type { NetworkBuffers } from "./buffers.js";
import { recordBlock, recordForward, recordStem } from "./forward.js";
import { type Activations, type Program, Recorder, type Streams } from "./recorder.js";
import { norms, type Topology } from "./topology.js";

/** The decay of running statistics in PyTorch's sense: running += 0.01 (batch - running); the authors' 0.99. */
const RUNNING_MOMENTUM = 0.01;

export type ImageSource =
  /** `count` images and labels on the device, chosen by `indices`; padded by `padding`, cropped and mirrored at random. */
  | {
      readonly type: "dataset";
      readonly images: BufferId;
      readonly labels: BufferId;
      readonly count: number;
      readonly padding: number;
      readonly flip: boolean;
      readonly scale: number;
    }
  /** n images as bytes and n labels, given for each run; an index of -1 leaves a row out. */
  | { readonly type: "bytes"; readonly scale: number }
  /** n normalised images and n labels, given for each run; a label of -1 leaves a row out of the loss. */
  | { readonly type: "real" };

/** Buffers that a run writes first; which there are depends on the source. */
export interface BatchInputs {
  /** Bytes or real, [n][h][w][c]. */
  readonly images?: BufferId;
  /** Index, [n]. */
  readonly labels?: BufferId;
  readonly indices?: BufferId;
  /** Index, [4]: seed low, seed high, step low, step high. */
  readonly counter?: BufferId;
}

export interface StepProgram extends Program {
  readonly n: number;
  readonly inputs: BatchInputs;
  readonly logits: BufferId;
  /** Real [1], index [1]. */
  readonly loss: BufferId;
  readonly correct: BufferId;
  /** Index [1], to be set to 0 before a run; undefined where streams are real. */
  readonly outOfRange: BufferId | undefined;
}

export interface TrainingProgram extends StepProgram {
  /** Real: the optimizer's, in its order. */
  readonly hyperparameters: BufferId;
  /** Index [NOT_FINITE.length], to be set to 0 before a run: 1 where one of these is NaN, infinite or beyond 2^64. */
  readonly notFinite: BufferId;
  /** What `outOfRange` counts over. */
  readonly streamElements: number;
}

/** What a training step looks at as it writes it: normalised images, running statistics, parameters. */
export const NOT_FINITE = ["images", "statistics", "parameters"] as const;
export type NotFinite = (typeof NOT_FINITE)[number];

export interface ReconstructProgram extends Program {
  readonly n: number;
  readonly inputs: BatchInputs;
  readonly outOfRange: BufferId | undefined;
  /** Real [2 * blocks]: largest error of x1 and of x2 of each. */
  readonly errors: BufferId;
  readonly blocks: readonly { readonly stage: number; readonly block: number }[];
}

export interface ProgramOptions {
  readonly n: number;
  readonly streams: Streams;
  readonly activations: Activations;
  readonly source: ImageSource;
}

export function gradientProgram(topology: Topology, buffers: NetworkBuffers, options: ProgramOptions): StepProgram {
  buffers.addGradients();
  const r = new Recorder(topology, buffers, { ...options, statistics: "batch" });
  const { notFinite: _, ...step } = recordGradients(r, options);
  return { ...step, locals: r.locals, ops: r.ops };
}

/** How a step changes the parameters, as far as it is recorded. */
export interface UpdateOptions {
  readonly optimizer: OptimizerName;
  /** Gradients are scaled down where the norm of all of them is larger. */
  readonly maxGradientNorm?: number | undefined;
}

export function trainingProgram(
  topology: Topology,
  buffers: NetworkBuffers,
  options: ProgramOptions & UpdateOptions,
): TrainingProgram {
  const gradients = buffers.addGradients();
  const optimizer = optimizerKind(options.optimizer);
  const state = optimizer.state.map((name) => buffers.addState(name));
  const r = new Recorder(topology, buffers, { ...options, statistics: "batch" });
  const { notFinite, ...step } = recordGradients(r, options, true);
  const [statisticsFlag, parametersFlag] = (["statistics", "parameters"] as const).map((what) => flagOf(r, notFinite!, what));
  recordRunningStatistics(r, RUNNING_MOMENTUM, statisticsFlag);
  const { elements, decayed } = buffers.layout;
  const { parameters } = buffers;
  const { maxGradientNorm } = options;
  if (maxGradientNorm !== undefined)
    r.emit({ op: "clipGradientNorm", elements, maxNorm: maxGradientNorm, gradients, norm: r.local("gradient.norm", "real", 1) });
  const hyperparameters = r.pinned("hyperparameters", "real", optimizer.hyperparameters.length);
  r.emit(optimizer.update({ elements, decayed, parameters, gradients, hyperparameters, notFinite: parametersFlag! }, state));
  const { locals, ops, streamElements } = r;
  return { ...step, hyperparameters, notFinite: notFinite!, streamElements, locals, ops };
}

/** Running statistics move towards those of the batch: all the way where `momentum` is 1. */
function recordRunningStatistics(r: Recorder, momentum: number, notFinite?: BufferId): void {
  for (const norm of norms(r.topology))
    for (const [part, tensor] of norm.inputs.entries())
      r.emit({
        op: "updateRunningStatistics",
        c: norm.channels / norm.inputs.length,
        count: r.n * norm.pixels,
        momentum,
        statistics: r.buffers.statistics(tensor),
        running: r.buffers.runningStatistics(norm, part),
        ...(notFinite !== undefined && { notFinite }),
      });
}

export interface StatisticsProgram extends Program {
  readonly n: number;
  readonly inputs: BatchInputs;
  readonly outOfRange: BufferId | undefined;
}

export function statisticsProgram(
  topology: Topology,
  buffers: NetworkBuffers,
  options: Omit<ProgramOptions, "activations">,
): StatisticsProgram {
  const r = new Recorder(topology, buffers, { ...options, statistics: "batch" });
  const { outOfRange } = r;
  const { images, inputs } = recordBatch(r, options.source);
  recordForward(r, images, r.local("logits", "real", r.n * topology.spec.classes), "reversible");
  recordRunningStatistics(r, 1);
  return { n: r.n, inputs, outOfRange, locals: r.locals, ops: r.ops };
}

export function inferenceProgram(
  topology: Topology,
  buffers: NetworkBuffers,
  options: Omit<ProgramOptions, "activations">,
): StepProgram {
  const r = new Recorder(topology, buffers, { ...options, statistics: "running" });
  const result = recordResults(r);
  const batch = recordBatch(r, options.source);
  // Reversible blocks in place are also the cheapest where nothing has to be kept.
  recordForward(r, batch.images, result.logits, "reversible");
  recordLoss(r, result, batch.labels);
  return { ...result, n: r.n, inputs: batch.inputs, locals: r.locals, ops: r.ops };
}

export function reconstructProgram(
  topology: Topology,
  buffers: NetworkBuffers,
  options: Omit<ProgramOptions, "activations">,
): ReconstructProgram {
  const r = new Recorder(topology, buffers, { ...options, statistics: "batch" });
  const { images, inputs } = recordBatch(r, options.source);
  const reversible = topology.blocks.filter((block) => block.reversible);
  const errors = r.pinned("errors", "real", 2 * reversible.length);

  let streams = recordStem(r, images).streams;
  const done = [];
  for (const block of topology.blocks) {
    const copies = block.reversible
      ? streams.map((x, i) => ({ x, copy: r.stream(`${block.f.name}.x${i + 1}.copy`, block.input) }))
      : [];
    for (const { x, copy } of copies) r.emit({ op: "copy", elements: r.elements(block.input), x, y: copy });
    streams = recordBlock(r, block, streams, "reversible").y;
    if (block.reversible) done.push({ block, copies });
  }
  for (const [i, { block, copies }] of [...done.entries()].reverse()) {
    const [stream1, stream2] = copies.map(({ x }) => x) as [BufferId, BufferId];
    const f = buffers.layers(block.f, r.n, "batch");
    const g = buffers.layers(block.g!, r.n, "batch");
    r.emit({ op: "reversibleInverse", f, g, stream1, stream2, hidden: r.hidden(block.f) });
    for (const [j, { x, copy }] of copies.entries())
      r.emit({ op: "maximumDifference", elements: r.elements(block.input), a: x, b: copy, y: r.view(errors, 2 * i + j, 1) });
  }
  const blocks = reversible.map(({ stage, index }) => ({ stage, block: index }));
  return { n: r.n, inputs, outOfRange: r.outOfRange, errors, blocks, locals: r.locals, ops: r.ops };
}

type Results = Pick<StepProgram, "logits" | "loss" | "correct">;

/**
 * The first pinned buffers of a step. It gives loss, correct, outOfRange and, in training, notFinite; it takes the latter two and what is
 * pinned after them: each is one copy.
 */
function recordResults(r: Recorder): Results & Pick<StepProgram, "outOfRange"> {
  return {
    logits: r.pinned("logits", "real", r.n * r.topology.spec.classes),
    loss: r.pinned("loss", "real", 1),
    correct: r.pinned("correct", "index", 1),
    outOfRange: r.outOfRange,
  };
}

const flagOf = (r: Recorder, notFinite: BufferId, what: NotFinite): BufferId => r.view(notFinite, NOT_FINITE.indexOf(what), 1);

/** Images to loss to gradients. @param checked with a buffer for what is not finite, which the images have set already */
function recordGradients(r: Recorder, options: ProgramOptions, checked = false) {
  const result = recordResults(r);
  const notFinite = checked ? r.pinned("notFinite", "index", NOT_FINITE.length) : undefined;
  const batch = recordBatch(r, options.source, notFinite);
  const forward = recordForward(r, batch.images, result.logits, options.activations);
  const logitsGradient = r.local("logits.gradient", "real", r.n * r.topology.spec.classes);
  recordLoss(r, result, batch.labels, logitsGradient);
  recordBackward(r, forward, logitsGradient);
  return { ...result, n: r.n, inputs: batch.inputs, notFinite };
}

function recordLoss(r: Recorder, { logits, loss, correct }: Results, labels: BufferId, dx?: BufferId): void {
  const { classes } = r.topology.spec;
  r.emit({ op: "softmaxCrossEntropy", n: r.n, classes, x: logits, labels, loss, correct, ...(dx !== undefined && { dx }) });
}

/** Where a batch's normalised images and its labels are, and what to write for them. */
function recordBatch(
  r: Recorder,
  source: ImageSource,
  notFinite?: BufferId,
): { images: BufferId; labels: BufferId; inputs: BatchInputs } {
  const [h, w, c] = r.topology.spec.input;
  const elements = r.elements({ h, w, c });
  if (source.type === "real") {
    const inputs = { images: r.pinned("images", "real", elements), labels: r.pinned("labels", "index", r.n) };
    return { ...inputs, inputs };
  }
  const choice = { indices: r.pinned("indices", "index", r.n), counter: r.pinned("counter", "index", 4) };
  const { images, labels, count, padding, flip, scale } =
    source.type === "dataset" ? source : givenBytes(r, elements, source.scale);
  const inputs = source.type === "dataset" ? choice : { ...choice, images, labels };
  const y = r.real("images.normalised", { h, w, c });
  const yLabels = r.local("labels.batch", "index", r.n);
  r.emit({
    op: "gatherBatch",
    ...r.extent({ h, w, c }),
    count,
    padding,
    flip,
    scale,
    images,
    labels,
    ...choice,
    mean: r.buffers.mean,
    y,
    yLabels,
    ...(notFinite !== undefined && { notFinite: flagOf(r, notFinite, "images") }),
  });
  return { images: y, labels: yLabels, inputs };
}

const givenBytes = (r: Recorder, elements: number, scale: number) => ({
  images: r.pinned("images", "byte", elements),
  labels: r.pinned("labels", "index", r.n),
  count: r.n,
  padding: 0,
  flip: false,
  scale,
});

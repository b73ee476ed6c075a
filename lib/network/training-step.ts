/** A training program ready to run: one call, one step of the optimizer. */
import { types } from "node:util";
import type { BufferId, MemoryReport, Values } from "../../binding.js";
import { RevNetError } from "../errors.js";
import { checkSettings, type OptimizerName, type OptimizerSettings, optimizerKind } from "../optimizers/index.js";
import { checkInteger, checkOptions, describe } from "../validation.js";
import { checkBatch, checkLabels, checkNormalized, type Labels } from "./images.js";
import { optional, zeroed } from "./inference.js";
import type { RealArray } from "./parameters.js";
import { type BatchInputs, NOT_FINITE, type NotFinite, type TrainingProgram } from "./program.js";
import type { NetworkSpec } from "./spec.js";

/** What changes from step to step: the optimizer's settings, and the key of what is random. */
export type StepSettings = OptimizerSettings & {
  /** Steps done before: with the seed, the key of the step's random crops and flips, and what AdamW's corrections depend on; default 0. */
  readonly step?: number;
  readonly seed?: number | bigint;
};

/** What a step's images are a function of, where the data is on the device. */
export interface StepKey {
  readonly indices: Int32Array;
  /** With the seed, the key of the step's random crops and flips. */
  readonly step: number;
  readonly seed: number | bigint;
}

/** Images as bytes, NHWC, for a program that takes them so. */
export interface ByteBatch {
  readonly images: Uint8Array;
  readonly labels: Int32Array;
}

/** Which images: by index where the data is on the device, otherwise NHWC images themselves: bytes, or normalised. */
export type StepBatch = { readonly indices: Int32Array } | { readonly images: RealArray | Uint8Array; readonly labels: Labels };

export interface StepResult {
  /** Mean over the batch, before the update. */
  readonly loss: number;
  /** Images classified correctly. */
  readonly correct: number;
  /** Stream elements that left the fixed-point range; then the step was not exact. */
  readonly outOfRange: number;
  /** What was NaN, infinite or beyond 2^64: the normalised images, the running statistics or the parameters after the step; empty where nothing was. */
  readonly notFinite: readonly NotFinite[];
}

/** Runs a program on the network's session; given by the network. */
export type RunProgram = (inputs: [BufferId, Values][], outputs: BufferId[]) => Promise<Values[]>;

const CODE = "ERR_INVALID_ARGUMENT";

/** One step of training at a time, as Network.prepareTraining records it; trainRevNet is built on it. */
export class TrainingStep {
  /** @internal */
  constructor(
    private readonly program: TrainingProgram,
    private readonly optimizer: OptimizerName,
    private readonly runProgram: RunProgram,
    /** Bytes that the session will hold once the step has run. */
    readonly planned: () => MemoryReport,
    private readonly batch: BatchGiver,
  ) {}

  get batchSize(): number {
    return this.program.n;
  }

  /** Values that the streams of a step hold, all blocks' together: what `outOfRange` counts over. @internal */
  get streamElements(): number {
    return this.program.streamElements;
  }

  /** Several steps may be started at once; they run in order. @throws RevNetError ERR_INVALID_ARGUMENT, ERR_DISPOSED */
  async run(settings: StepSettings & StepBatch): Promise<StepResult> {
    const kind = optimizerKind(this.optimizer);
    checkOptions(settings, [...Object.keys(kind.settings), "step", "seed", "indices", "images", "labels"], "step");
    const {
      step = 0,
      seed: _,
      indices: __,
      images: ___,
      labels: ____,
      ...given
    } = settings as StepSettings & Record<string, unknown>;
    const of = checkSettings(this.optimizer, given, "", CODE);
    const hyperparameters = Float64Array.from(kind.values(of, checkInteger(step, 0, Number.MAX_SAFE_INTEGER, "step", CODE)));
    const { outOfRange, notFinite, loss, correct } = this.program;
    const inputs: [BufferId, Values][] = [[this.program.hyperparameters, hyperparameters], ...this.batch.inputs(settings)];
    inputs.push(...zeroed(outOfRange), [notFinite, new Int32Array(NOT_FINITE.length)]);
    const results = await this.runProgram(inputs, [loss, correct, ...optional(outOfRange), notFinite]);
    return {
      loss: results[0]![0]!,
      correct: results[1]![0]!,
      outOfRange: outOfRange === undefined ? 0 : results[2]![0]!,
      notFinite: NOT_FINITE.filter((_, i) => results.at(-1)![i] !== 0),
    };
  }
}

/** What a step is a function of, besides the parameters. */
export type StepImages = StepBatch & { readonly step?: number; readonly seed?: number | bigint };

/** From a step's images to the inputs of its program. */
export class BatchGiver {
  constructor(
    private readonly spec: NetworkSpec,
    private readonly program: { readonly n: number; readonly inputs: BatchInputs },
    /** Where images that are given as bytes go. */
    private readonly given?: { readonly images: BufferId; readonly labels: BufferId },
  ) {}

  /** @throws RevNetError ERR_INVALID_ARGUMENT */
  inputs(settings: StepImages): [BufferId, Values][] {
    if (this.given) return this.#bytes(settings, this.given);
    const { indices, images, labels } = this.program.inputs;
    if (indices !== undefined) {
      if (!("indices" in settings) || !types.isInt32Array(settings.indices) || settings.indices.length !== this.program.n)
        throw new RevNetError(
          CODE,
          `indices: expected an Int32Array of ${this.program.n}, got ${describe((settings as { indices?: unknown }).indices)}`,
        );
      return stepInputs(this.program.inputs, { seed: 0, step: 0, ...settings });
    }
    if (!("images" in settings))
      throw new RevNetError(CODE, "this step takes { images, labels }, since no data set was given for it");
    const count = checkNormalized(this.spec, settings.images);
    if (count !== this.program.n) throw new RevNetError(CODE, `images: expected a batch of ${this.program.n}, got ${count}`);
    return [
      [images!, settings.images],
      [labels!, checkLabels(this.spec, settings.labels, count)],
    ];
  }

  #bytes(settings: StepImages, to: { images: BufferId; labels: BufferId }): [BufferId, Values][] {
    if (!("images" in settings) || !types.isUint8Array(settings.images))
      throw new RevNetError(CODE, "this step takes { images, labels } with the images in a Uint8Array");
    const count = checkBatch(this.spec, settings.images);
    if (count !== this.program.n) throw new RevNetError(CODE, `images: expected a batch of ${this.program.n}, got ${count}`);
    return [
      [to.images, settings.images],
      [to.labels, checkLabels(this.spec, settings.labels, count)],
      ...stepInputs(this.program.inputs, { seed: 0, step: 0, ...settings, indices: everyRow(count) }),
    ];
  }
}

/** The indices of a batch that is on the device by itself: each image is gathered from its own row. */
export const everyRow = (count: number): Int32Array => Int32Array.from({ length: count }, (_, i) => i);

/** The inputs of a program that chooses its images from the data set. */
export function stepInputs({ indices, counter }: BatchInputs, key: StepKey): [BufferId, Values][] {
  return [
    [indices!, key.indices],
    [counter!, Int32Array.of(...words(key.seed), ...words(key.step))],
  ];
}

/** A 64-bit number as two words, low first. */
function words(value: number | bigint): [number, number] {
  const bits = checkSeed(value);
  return [Number(BigInt.asIntN(32, bits)), Number(BigInt.asIntN(32, bits >> 32n))];
}

/** A seed: a safe integer or a bigint, at least 0 and below 2^64. */
export function checkSeed(seed: unknown, what = "seed"): bigint {
  const bits = typeof seed === "bigint" ? seed : typeof seed === "number" && Number.isSafeInteger(seed) ? BigInt(seed) : -1n;
  if (bits < 0n || bits >= 1n << 64n)
    throw new RevNetError(CODE, `${what}: expected an integer from 0 to 2^64 - 1, got ${describe(seed)}`);
  return bits;
}

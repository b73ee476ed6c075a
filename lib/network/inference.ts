/** Classifying images with the running statistics: batch by batch, for any count of them. */
import { types } from "node:util";
import type { BufferId, Values } from "../../binding.js";
import { abortable } from "../data/abort.js";
import {
  type AnyDataset,
  type AnySplit,
  type BrokenImage,
  chooseSplit,
  inOrder,
  SPLIT_CHOICES,
  type SplitChoice,
} from "../data/dataset.js";
import { RevNetError } from "../errors.js";
import { checkChoice, checkInteger, checkOptions, isFiniteValue } from "../validation.js";
import { matchClasses } from "./classes.js";
import type { Executor } from "./executor.js";
import type { Images, Preprocessing } from "./images.js";
import * as images from "./images.js";
import type { RealArray } from "./parameters.js";
import { inferenceProgram } from "./program.js";
import { MAX_BATCH } from "./recipe.js";
import type { Streams } from "./recorder.js";
import { type CalibrationBin, type ClassScores, classScores, Scores } from "./scores.js";
import type { NetworkSpec } from "./spec.js";
import type { Topology } from "./topology.js";

/** What Network.evaluate takes. */
export interface EvaluationOptions {
  /** Of a data set: which split, "test" by default; "all": its splits one after the other. */
  readonly split?: SplitChoice;
  /** Default 128; the result depends on it by rounding alone. */
  readonly batchSize?: number;
  /** Ends the evaluation between two batches, with ERR_ABORTED. */
  readonly signal?: AbortSignal;
  /** Called after each batch with the images done and those there are. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** What Network.evaluate gives. */
export interface Evaluation {
  /** Mean cross-entropy, in nats. */
  readonly loss: number;
  /** Fraction classified wrongly. */
  readonly error: number;
  /** Fraction whose class is not among the five of greatest probability; null where there are at most five classes. */
  readonly top5Error: number | null;
  /** Expected calibration error: how far the probabilities of the network's answers are from how often these are right. */
  readonly calibrationError: number;
  /** The same by probability, in 15 equal parts. */
  readonly calibration: readonly CalibrationBin[];
  /** Precision, recall and F1 of each class. */
  readonly classScores: readonly ClassScores[];
  /** [true class][predicted class] counts. */
  readonly confusion: number[][];
  /** Of each image, its cross-entropy; of a broken one, 0. */
  readonly losses: Float64Array;
  /** Of each image, the class predicted; of a broken one, -1. */
  readonly predictions: Int32Array;
  /** Each image's class, -1 where it is broken. */
  readonly labels: Int32Array;
  /** Images that could not be decoded, and count for nothing. */
  readonly broken: readonly BrokenImage[];
  /**
   * Stream elements that left the fixed-point range. Batches that had some were computed again on float32 streams, so all results are
   * right.
   */
  readonly outOfRange: number;
}

const DEFAULT_BATCH = 128;

export class Inference {
  readonly #spec: NetworkSpec;
  #warned = false;
  #warnedOfDark = false;

  constructor(
    private readonly topology: Topology,
    private readonly executor: Executor,
    private readonly streams: Streams,
  ) {
    this.#spec = topology.spec;
  }

  /** [count][classes] @throws RevNetError ERR_NOT_FINITE */
  async logits(given: Images, preprocessing: Preprocessing): Promise<RealArray> {
    const count = images.checkImages(this.#spec, given);
    // Batches follow one another, and the caller may use the array again meanwhile.
    const pixels = given.slice();
    images.checkFinite(this.#spec, pixels);
    if (images.areTooDark(pixels, preprocessing)) this.#warnOfDark();
    const noLabels = new Int32Array(count).fill(-1);
    const parts: RealArray[] = [];
    let left = 0;
    for (let first = 0; first < count; first += DEFAULT_BATCH) {
      const rows = Math.min(count - first, DEFAULT_BATCH);
      // Few sizes of batch, hence few programs, whatever the counts.
      const n = 2 ** Math.ceil(Math.log2(rows));
      const { logits, outOfRange } = await this.#batch(pixels, noLabels, first, rows, n, preprocessing);
      left += outOfRange;
      parts.push(logits.subarray(0, rows * this.#spec.classes));
    }
    this.warn(left);
    return images.concatenate(parts);
  }

  /** @param names the network's classes, where they are known */
  async evaluate(
    data: AnyDataset | AnySplit,
    options: EvaluationOptions,
    preprocessing: Preprocessing,
    names: readonly string[] | undefined,
  ): Promise<Evaluation> {
    checkOptions(options, ["split", "batchSize", "signal", "onProgress"]);
    const { batchSize, signal, onProgress } = options;
    const named =
      typeof data === "object" && data !== null && "classes" in data && Array.isArray(data.classes) && data.classes.length > 0;
    const matched = named ? matchClasses(this.#spec, names, data) : undefined;
    const split = this.#split(data, options.split);
    const n = checkInteger(batchSize ?? Math.min(DEFAULT_BATCH, split.count), 1, MAX_BATCH, "batchSize", "ERR_INVALID_ARGUMENT");
    const { classes } = this.#spec;
    const scores = new Scores(classes);
    const losses = new Float64Array(split.count);
    const predictions = new Int32Array(split.count).fill(-1);
    const labels = new Int32Array(split.count).fill(-1);
    const broken: BrokenImage[] = [];
    let [loss, first, outOfRange] = [0, 0, 0];
    for await (const read of abortable(inOrder(split, n), signal, "the evaluation was aborted")) {
      const given = matched ? { ...read, labels: read.labels.map((label) => (label < 0 ? label : matched[label]!)) } : read;
      const rows = given.labels.length;
      const batch = await this.#batch(given.images, given.labels, 0, rows, n, preprocessing);
      const whole = given.labels.filter((label) => label >= 0).length;
      if (whole > 0) loss += batch.loss * whole;
      outOfRange += batch.outOfRange;
      for (const image of given.broken) broken.push(image);
      labels.set(given.labels, first);
      for (let row = 0; row < rows; ++row) {
        const label = given.labels[row]!;
        if (label < 0) continue;
        const logits = batch.logits.subarray(row * classes, (row + 1) * classes);
        losses[first + row] = images.crossEntropy(logits, label);
        predictions[first + row] = scores.add(label, logits);
      }
      first += rows;
      onProgress?.(first, split.count);
    }
    if (scores.images === 0) throw new RevNetError("ERR_INVALID_DATA", `none of the ${split.count} images could be decoded`);
    const { error, top5Error, calibrationError, calibration, confusion } = scores;
    return {
      loss: loss / scores.images,
      error,
      top5Error,
      calibrationError,
      calibration,
      classScores: classScores(confusion),
      confusion,
      losses,
      predictions,
      labels,
      broken,
      outOfRange,
    };
  }

  /** @throws RevNetError ERR_INVALID_ARGUMENT, ERR_INVALID_DATA */
  #split(data: AnyDataset | AnySplit, choice: SplitChoice | undefined): AnySplit {
    if (choice === undefined) return images.checkSplit<AnySplit>(this.#spec, data);
    checkChoice(choice, SPLIT_CHOICES, "split", "ERR_INVALID_ARGUMENT");
    if (data === null || typeof data !== "object" || !("test" in data))
      throw new RevNetError("ERR_INVALID_ARGUMENT", "split: is for data sets");
    const { train, validation, test } = data;
    for (const split of [train, validation, test]) if (split && split.count > 0) images.checkSplit(this.#spec, split);
    return chooseSplit(data, choice);
  }

  /**
   * Rows [first, first + rows) in a batch of n; rows beyond are left out. Where a value leaves the fixed-point range the batch is
   * computed again on float32 streams: nothing has to be reversed here.
   */
  async #batch(pixels: Images, labels: Int32Array, first: number, rows: number, n: number, preprocessing: Preprocessing) {
    const elements = images.imageElements(this.#spec);
    const bytes = types.isUint8Array(pixels);
    const given = pixels.subarray(first * elements, (first + rows) * elements);
    const batchImages = padded(types.isUint8Array(given) ? given : images.normalize(given, preprocessing), n * elements);
    const batchLabels = new Int32Array(n).fill(-1);
    batchLabels.set(labels.subarray(first, first + rows));
    const source = bytes ? { type: "bytes" as const, scale: preprocessing.scale } : { type: "real" as const };

    const compute = async (streams: Streams) => {
      const recorded = this.executor.program(`inference ${n} ${streams} ${JSON.stringify(source)}`, (buffers) =>
        inferenceProgram(this.topology, buffers, { n, streams, source }),
      );
      const { inputs, outOfRange, ...program } = recorded.program;
      const batch: [BufferId, Values][] = [[inputs.images!, batchImages], [inputs.labels!, batchLabels], ...zeroed(outOfRange)];
      if (bytes) {
        const indices = Int32Array.from({ length: n }, (_, i) => (i < rows ? i : -1));
        batch.push([inputs.indices!, indices], [inputs.counter!, new Int32Array(4)]);
      }
      const outputs = [program.loss, program.logits, ...optional(outOfRange)];
      const [loss, logits, left] = await this.executor.run(recorded, batch, outputs);
      return { loss: loss![0]!, logits: logits as RealArray, outOfRange: left?.[0] ?? 0 };
    };
    let result = await compute(this.streams);
    const { outOfRange } = result;
    if (outOfRange > 0) result = { ...(await compute("float32")), outOfRange };
    this.#checkFinite(result.logits, first, rows);
    return result;
  }

  /** Tells once that values were out of range: where nothing that is returned has their count, or whoever called may not look at it. */
  warn(outOfRange: number): void {
    if (this.#warned || outOfRange === 0) return;
    this.#warned = true;
    process.emitWarning(
      `${outOfRange} values of '${this.#spec.name}' left the range of fixed-point streams, +-512; such batches are computed again on float32 streams`,
      { code: "REVNET_OUT_OF_RANGE" },
    );
  }

  #warnOfDark(): void {
    if (this.#warnedOfDark) return;
    this.#warnedOfDark = true;
    process.emitWarning(
      `all pixels are at most 1, where '${this.#spec.name}' expects 0 to 255; multiply them by 255, or set the network's preprocessing`,
      { type: "RevNetWarning", code: "REVNET_PIXELS_AT_MOST_1" },
    );
  }

  /** NaN, infinity and what is far too large reach the logits from whatever is computed from: ReLU and pooling let them through. */
  #checkFinite(logits: RealArray, first: number, rows: number): void {
    const { classes } = this.#spec;
    const at = logits.subarray(0, rows * classes).findIndex((logit) => !isFiniteValue(logit));
    if (at < 0) return;
    const culprit = this.executor.host.notFinite();
    throw new RevNetError(
      "ERR_NOT_FINITE",
      culprit
        ? `the network's ${culprit}, so it classifies nothing`
        : `the logits of image ${first + Math.floor(at / classes)} are NaN, infinite or beyond 2^64: expected finite pixels, and a network whose values are not as large`,
    );
  }
}

/** The input that sets a program's count of elements out of range to 0, where it has one. */
export const zeroed = (outOfRange: BufferId | undefined): [BufferId, Values][] =>
  outOfRange === undefined ? [] : [[outOfRange, new Int32Array(1)]];
export const optional = (buffer: BufferId | undefined): BufferId[] => (buffer === undefined ? [] : [buffer]);

/** With zeros behind, so that there are `elements`. */
function padded(values: RealArray | Uint8Array, elements: number): RealArray | Uint8Array {
  if (values.length === elements) return values;
  const longer = types.isUint8Array(values)
    ? new Uint8Array(elements)
    : types.isFloat64Array(values)
      ? new Float64Array(elements)
      : new Float32Array(elements);
  longer.set(values);
  return longer;
}

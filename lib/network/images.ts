/** Images and labels on their way into a network: checks, and the arithmetic from bytes to what the first convolution reads. */

import { types } from "node:util";
import { type AnySplit, isStreamed } from "../data/dataset.js";
import { toPixels } from "../data/picture.js";
import { exponential, logarithm } from "../elementary.js";
import { RevNetError } from "../errors.js";
import { areFinite, describe, isFiniteValue, isGone } from "../validation.js";
import type { RealArray } from "./parameters.js";
import { MAX_BATCH } from "./recipe.js";
import type { NetworkSpec } from "./spec.js";

const CODE = "ERR_INVALID_ARGUMENT";

/** The network sees (pixel - mean) * scale. */
export interface Preprocessing {
  /** [height * width * channels] mean image, in the units of the bytes. */
  readonly mean: Float32Array;
  /** Not 0; 1 / 255 by default. */
  readonly scale: number;
}

/** [count][height][width][channels], 0 to 255. */
export type Images = Uint8Array | Float32Array | Float64Array;
/** The bytes of image files, one image each; or of one image's pixels, [height][width][channels]. */
export type ImageFiles = readonly Uint8Array[];
/** One class for each image, in [0, classes). */
export type Labels = ArrayLike<number> | ArrayLike<bigint>;

export const imageElements = ({ input: [h, w, c] }: NetworkSpec): number => h * w * c;

export function defaultPreprocessing(spec: NetworkSpec): Preprocessing {
  return { mean: new Float32Array(imageElements(spec)), scale: 1 / 255 };
}

export function checkPreprocessing(spec: NetworkSpec, value: unknown, code = CODE): Preprocessing {
  if (value === null || typeof value !== "object")
    throw new RevNetError(code, `preprocessing: expected { mean, scale }, got ${describe(value)}`);
  const { mean, scale } = value as { mean?: unknown; scale?: unknown };
  const elements = imageElements(spec);
  const isList = Array.isArray(mean) || types.isFloat32Array(mean) || types.isFloat64Array(mean);
  if (!isList || mean.length !== elements || !isFiniteList(mean))
    throw new RevNetError(
      code,
      `preprocessing: mean: expected ${elements} finite numbers (height * width * channels), got ${describe(mean)}`,
    );
  if (typeof scale !== "number" || !Number.isFinite(scale) || scale === 0)
    throw new RevNetError(code, `preprocessing: scale: expected a finite number other than 0, got ${describe(scale)}`);
  return { mean: new Float32Array(mean as ArrayLike<number>), scale };
}

function isFiniteList(values: readonly unknown[] | RealArray): boolean {
  if (Array.isArray(values) && !values.every((value) => typeof value === "number")) return false;
  return areFinite(values as ArrayLike<number>);
}

/** One after another, as a network's input. @throws RevNetError ERR_INVALID_ARGUMENT, ERR_INVALID_DATA, ERR_SHARP_MISSING */
export async function decodeImages(spec: NetworkSpec, files: ImageFiles): Promise<Uint8Array> {
  const pixels = new Uint8Array(files.length * imageElements(spec));
  const decode = async (file: unknown, i: number) => {
    if (!types.isUint8Array(file) || isGone(file))
      throw new RevNetError(CODE, `images[${i}]: expected a Uint8Array, got ${describe(file)}`);
    // A copy: the decoder reads it on another thread, when the caller may have gone on.
    pixels.set(await toPixels(file.slice(), spec.input, `images[${i}]`), i * imageElements(spec));
  };
  await Promise.all(files.map(decode));
  return pixels;
}

/** @returns how many images there are */
export function checkImages(spec: NetworkSpec, images: unknown, maximum = Infinity): number {
  const [h, w, c] = spec.input;
  if (!(types.isUint8Array(images) || types.isFloat32Array(images) || types.isFloat64Array(images)))
    throw new RevNetError(CODE, `images: expected a Uint8Array, Float32Array or Float64Array, got ${describe(images)}`);
  if (isGone(images)) throw new RevNetError(CODE, `images: expected images, got ${describe(images)}`);
  const count = images.length / imageElements(spec);
  if (!Number.isInteger(count))
    throw new RevNetError(
      CODE,
      `images: expected a multiple of ${h} x ${w} x ${c} = ${imageElements(spec)} values, got ${images.length}`,
    );
  if (count > maximum) throw new RevNetError(CODE, `images: expected at most ${maximum} in one batch, got ${count}`);
  return count;
}

/** One batch, of at least one image. @returns how many */
export function checkBatch(spec: NetworkSpec, images: unknown): number {
  const count = checkImages(spec, images, MAX_BATCH);
  if (count === 0) throw new RevNetError(CODE, "images: expected at least one image");
  return count;
}

/** One batch of numbers as the first convolution reads them; bytes cannot be meant. @returns how many images */
export function checkNormalized(spec: NetworkSpec, images: unknown): number {
  if (types.isUint8Array(images))
    throw new RevNetError(CODE, "images: expected normalised images in a Float32Array or Float64Array, got a Uint8Array");
  const count = checkBatch(spec, images);
  checkFinite(spec, images as RealArray);
  return count;
}

/** Bytes are what they are. @throws RevNetError ERR_NOT_FINITE naming the image */
export function checkFinite(spec: NetworkSpec, images: Images): void {
  if (types.isUint8Array(images) || areFinite(images)) return;
  const at = (images as RealArray).findIndex((value) => !isFiniteValue(value));
  const image = Math.floor(at / imageElements(spec));
  throw new RevNetError("ERR_NOT_FINITE", `images: image ${image} holds ${images[at]}, expected values from -2^64 to 2^64`);
}

/** Labels in an array or in any typed array of integers. @returns the labels, each in [0, classes) */
export function checkLabels(spec: NetworkSpec, labels: unknown, count: number): Int32Array {
  if (!isIntegers(labels) && !Array.isArray(labels))
    throw new RevNetError(CODE, `labels: expected an array or a typed array of integers, got ${describe(labels)}`);
  if (labels.length !== count)
    throw new RevNetError(CODE, `labels: expected one for each of ${count} images, got ${describe(labels)}`);
  const checked = types.isInt32Array(labels) ? labels : new Int32Array(count);
  for (let i = 0; i < count; ++i) {
    const given: unknown = labels[i];
    const label = typeof given === "bigint" ? Number(given) : given;
    if (!Number.isInteger(label) || (label as number) < 0 || (label as number) >= spec.classes)
      throw new RevNetError(CODE, `labels[${i}]: expected a class from 0 to ${spec.classes - 1}, got ${describe(given)}`);
    if (checked !== labels) checked[i] = label as number;
  }
  return checked;
}

type Integers = ArrayLike<number | bigint>;

const isIntegers = (value: unknown): value is Integers =>
  types.isTypedArray(value) && !/^Float/.test((value as unknown as Record<symbol, string>)[Symbol.toStringTag]!);

/** A split, or the test split of a data set. What a stream gives is checked when it comes. */
export function checkSplit<S extends AnySplit>(spec: NetworkSpec, data: S | { readonly test: S }): S {
  if (data === null || typeof data !== "object")
    throw new RevNetError(CODE, `data: expected a Dataset or a split, got ${describe(data)}`);
  const split = "test" in data ? data.test : data;
  if (split !== null && typeof split === "object" && isStreamed(split)) return split;
  if (split === null || typeof split !== "object" || !types.isUint8Array(split.images))
    throw new RevNetError(CODE, "data: expected { count, images: Uint8Array, labels: Int32Array }");
  const count = checkImages(spec, split.images);
  if (count !== split.count || count === 0)
    throw new RevNetError(CODE, `data: expected at least one image and count = ${count}, got count ${describe(split.count)}`);
  const labels = checkLabels(spec, split.labels, count);
  return labels === split.labels ? split : { ...split, labels };
}

/** What a scale makes at most of pixels from 0 to 1 where it is meant for those from 0 to 255: no network would see anything. */
const UNSEEN = 0.05;

/** Whether pixels from 0 to 1 were given where 0 to 255 is expected, which nothing else would show. Bytes are what they are. */
export function areTooDark(images: Images, { scale }: Preprocessing): boolean {
  if (types.isUint8Array(images) || Math.abs(scale) > UNSEEN) return false;
  let largest = 0;
  for (let i = 0; i < images.length && largest <= 1; ++i) largest = Math.max(largest, images[i]!);
  return largest > 0 && largest <= 1;
}

/** (pixel - mean) * scale, in the device's precision. */
export function normalize(images: Images, { mean, scale }: Preprocessing): RealArray {
  const normalized = types.isFloat64Array(images) ? new Float64Array(images.length) : new Float32Array(images.length);
  for (let first = 0; first < images.length; first += mean.length)
    for (let i = 0; i < mean.length; ++i) normalized[first + i] = (images[first + i]! - mean[i]!) * scale;
  return normalized;
}

/** Of each row of [rows][classes]. */
export function softmax(logits: RealArray, classes: number): Float32Array {
  const probabilities = new Float32Array(logits.length);
  for (let first = 0; first < logits.length; first += classes) {
    const row = logits.subarray(first, first + classes);
    const largest = row[argmax(row)]!;
    let sum = 0;
    for (const logit of row) sum += exponential(logit - largest);
    for (let i = 0; i < classes; ++i) probabilities[first + i] = exponential(row[i]! - largest) / sum;
  }
  return probabilities;
}

/** Of one image's logits. */
export function crossEntropy(logits: RealArray, label: number): number {
  const largest = logits[argmax(logits)]!;
  let sum = 0;
  for (const logit of logits) sum += exponential(logit - largest);
  return logarithm(sum) + largest - logits[label]!;
}

/** One array, of the parts' type; Float32Array where there are none. */
export function concatenate(parts: readonly RealArray[]): RealArray {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const whole = types.isFloat64Array(parts[0]) ? new Float64Array(length) : new Float32Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Index of the largest, the first one of equals. */
export function argmax(values: RealArray): number {
  let best = 0;
  for (let i = 1; i < values.length; ++i) if (values[i]! > values[best]!) best = i;
  return best;
}

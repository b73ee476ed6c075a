/** What a classifier's answers say beside their loss: error, top-5 error, precision and recall of each class, and calibration. */
import { argmax, softmax } from "./images.js";
import type { RealArray } from "./parameters.js";

/** Of one class; null where nothing is divided by nothing. */
export interface ClassScores {
  /** Whose label it is. */
  readonly images: number;
  /** Of those that are taken for it, the fraction that are of it. */
  readonly precision: number | null;
  /** Of those that are of it, the fraction that are taken for it. */
  readonly recall: number | null;
  /** The harmonic mean of both, 2 TP / (2 TP + FP + FN). */
  readonly f1: number | null;
}

/** Images whose greatest probability is in one of CALIBRATION_BINS equal parts of [0, 1]; means are null where there are none. */
export interface CalibrationBin {
  readonly images: number;
  /** Mean of the greatest probabilities. */
  readonly confidence: number | null;
  /** Fraction classified rightly. */
  readonly accuracy: number | null;
}

export const CALIBRATION_BINS = 15;
const TOP = 5;

const part = (some: number, all: number): number | null => (all === 0 ? null : some / all);
const sumOf = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0);

/** Of each class, by [label][prediction] counts. */
export function classScores(confusion: readonly (readonly number[])[]): ClassScores[] {
  return confusion.map((row, label) => {
    const right = row[label]!;
    const images = sumOf(row);
    const taken = sumOf(confusion.map((other) => other[label]!));
    return { images, precision: part(right, taken), recall: part(right, images), f1: part(2 * right, images + taken) };
  });
}

/** The mean F1 of the classes that have images; null: there are none. */
export function macroF1(scores: readonly ClassScores[]): number | null {
  const present = scores.filter(({ images }) => images > 0);
  return part(sumOf(present.map(({ f1 }) => f1 ?? 0)), present.length);
}

/** With their names: all, or where there are more than `most`, so many of those that have images, the lowest F1 first. */
export function namedScores(
  scores: readonly ClassScores[],
  names: readonly string[],
  most: number,
): (ClassScores & { name: string })[] {
  const named = scores.map((own, label) => ({ ...own, name: names[label]! }));
  if (named.length <= most) return named;
  const present = named.filter(({ images }) => images > 0);
  return present.sort((a, b) => a.f1! - b.f1!).slice(0, most);
}

/** Counts image by image. */
export class Scores {
  /** [label][prediction] counts. */
  readonly confusion: number[][];
  #images = 0;
  #right = 0;
  #inTop = 0;
  readonly #bins = Array.from({ length: CALIBRATION_BINS }, () => ({ images: 0, confidence: 0, right: 0 }));

  constructor(private readonly classes: number) {
    this.confusion = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  }

  get images(): number {
    return this.#images;
  }

  /** @param logits of one image. @returns the class predicted: of equal ones the first */
  add(label: number, logits: RealArray): number {
    const prediction = argmax(logits);
    const right = prediction === label ? 1 : 0;
    const own = logits[label]!;
    let before = 0;
    for (const [other, logit] of logits.entries()) if (logit > own || (logit === own && other < label)) before += 1;
    const confidence = softmax(logits, this.classes)[prediction]!;
    const bin = this.#bins[Math.min(Math.floor(confidence * CALIBRATION_BINS), CALIBRATION_BINS - 1)]!;
    bin.images += 1;
    bin.confidence += confidence;
    bin.right += right;
    this.confusion[label]![prediction]! += 1;
    this.#images += 1;
    this.#right += right;
    if (before < TOP) this.#inTop += 1;
    return prediction;
  }

  /** Fraction classified wrongly, of one image at least. */
  get error(): number {
    return (this.#images - this.#right) / this.#images;
  }

  /** Fraction whose label is not among the five classes of greatest probability; null where there are no more classes than these. */
  get top5Error(): number | null {
    return this.classes <= TOP ? null : (this.#images - this.#inTop) / this.#images;
  }

  get calibration(): CalibrationBin[] {
    return this.#bins.map(({ images, confidence, right }) => ({
      images,
      confidence: part(confidence, images),
      accuracy: part(right, images),
    }));
  }

  /**
   * The expected calibration error: the mean distance between what the network gives as the probability of its answers, and how many of
   * them are right, by bins (Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3).
   */
  get calibrationError(): number {
    return sumOf(this.#bins.map(({ confidence, right }) => Math.abs(confidence - right))) / this.#images;
  }
}

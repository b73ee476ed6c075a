/**
 * A problem is a small piece of a network as data: named tensors, the ops that make its forward pass, and the ops that make
 * its backward pass. The gradient test differentiates the forward pass numerically; the backend test and `revnet doctor --verify` run
 * every op on the reference and on another device. Op records name their tensors; device.ts turns names into buffer ids.
 */
import type { Convolution, ElementType, Values } from "../../binding.js";
import { Random } from "./random.js";

export interface Tensor {
  type: ElementType;
  elements: number;
  /** Initial values. A tensor without any is an output: undefined until an op writes it. */
  values?: Values;
  /** Begins one element into its memory, so that no access of several elements is aligned. */
  shifted?: boolean;
}

/** An op record of binding.d.ts with tensor names in place of buffer ids. */
export type Step = { op: string; [field: string]: unknown };
export type Stream = "real" | "fixed";

/** The grid of a 32-bit stream and the precision of a 32-bit float: what every device can hold. */
export const STREAM_STEP = 2 ** -22;
/** Whether tensors of the type hold numbers, not indices or bytes. */
export const isNumber = (type: ElementType | undefined): boolean => type !== undefined && type !== "index" && type !== "byte";
export const toStreamGrid = (value: number): number => Math.round(value / STREAM_STEP) * STREAM_STEP;

export class Problem {
  readonly tensors = new Map<string, Tensor>();
  readonly forward: Step[] = [];
  readonly backward: Step[] = [];
  /**
   * loss = sum over these pairs of tensor * weights after the forward pass. The weights are the initial values of the second
   * tensor, which is thereby d loss / d tensor for the backward pass; null: weight 1.
   */
  readonly loss: [tensor: string, weights: string | null][] = [];
  /** An input, and the tensor that holds its gradient after the backward pass. */
  readonly gradients: [input: string, gradient: string][] = [];
  /** Tensors with undefined contents after an op: not compared. */
  readonly scratch = new Set<string>();
  readonly random: Random;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  /** Adds a tensor of given values and returns its name. */
  input(name: string, type: ElementType, values: Values): string {
    this.tensors.set(name, { type, elements: values.length, values });
    return name;
  }

  /** Adds a tensor of normal random values, which every device can represent exactly. */
  normal(name: string, type: ElementType, elements: number, scale = 1, mean = 0): string {
    const round = (value: number): number => toStreamGrid(Math.fround(value));
    return this.input(
      name,
      type,
      Float64Array.from({ length: elements }, () => round(mean + scale * this.random.normal())),
    );
  }

  /** Adds a tensor that ops write. */
  output(name: string, elements: number, type: ElementType = "real"): string {
    this.tensors.set(name, { type, elements });
    return name;
  }

  /** Adds statistics [2][c] of the present x [pixels][c], computed by a step of the forward pass: an identity convolution. */
  statisticsOf(x: string, shape: { n: number; h: number; w: number; c: number }): string {
    const { n, h, w, c } = shape;
    const identity = Float64Array.from({ length: c * c }, (_, i) => (i % (c + 1) === 0 ? 1 : 0));
    const yStatistics = this.output(`${x}.statistics`, 2 * c);
    this.forward.push({
      op: "convolutionForward",
      convolution: { n, h, w, c, k: c, kernel: 1, stride: 1 },
      x,
      weight: this.input(`${x}.identity`, "real", identity),
      y: this.output(`${x}.copy`, n * h * w * c),
      yStatistics,
    });
    return yStatistics;
  }

  /** The fields of a norm whose statistics are in the tensor named. */
  norm(prefix: string, c: number, statistics: string): { statistics: string; gamma: string; beta: string; epsilon: number } {
    const gamma = Float64Array.from({ length: c }, () => (this.random.uniform() < 0.2 ? -1 : 1) * (0.5 + this.random.uniform()));
    return {
      statistics,
      gamma: this.input(`${prefix}.gamma`, "real", gamma.map(toStreamGrid)),
      beta: this.normal(`${prefix}.beta`, "real", c, 0.5),
      epsilon: 1e-3,
    };
  }

  /** The fields of a norm's gradient. */
  normGradient(prefix: string, c: number): { gammaGradient: string; betaGradient: string } {
    const gammaGradient = this.output(`${prefix}.gammaGradient`, c);
    const betaGradient = this.output(`${prefix}.betaGradient`, c);
    this.gradients.push([`${prefix}.gamma`, gammaGradient], [`${prefix}.beta`, betaGradient]);
    return { gammaGradient, betaGradient };
  }

  weight(name: string, { taps, c, k }: { taps: number; c: number; k: number }): string {
    return this.normal(name, "real", taps * c * k, 1 / Math.sqrt(taps * c));
  }

  weightGradient(weight: string): string {
    const gradient = this.output(`${weight}Gradient`, this.tensors.get(weight)?.elements ?? 0);
    this.gradients.push([weight, gradient]);
    return gradient;
  }
}

export const outEdge = (edge: number, { kernel, stride }: { kernel: number; stride: number }): number =>
  Math.floor((edge + 2 * Math.floor(kernel / 2) - kernel) / stride) + 1;

export const inputElements = ({ n, h, w, c }: { n: number; h: number; w: number; c: number }): number => n * h * w * c;

export const outputElements = (s: Convolution): number => s.n * outEdge(s.h, s) * outEdge(s.w, s) * s.k;

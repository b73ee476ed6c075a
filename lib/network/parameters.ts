/**
 * Where each parameter lies. All trained parameters are one flat buffer, and so are their gradients and momenta: one fused
 * optimizer kernel, one section of a checkpoint. Those that weight decay applies to come first. Running statistics are a
 * second flat buffer, [2][c] (mean, variance) for each normalised tensor. Every tensor starts at a multiple of 16 elements.
 *
 * Outside, a convolution's weight is [out][in][kh][kw] (OIHW); on the device it is [kh][kw][in][out], since kernels read
 * the output channels of one tap together. The permutation happens here, at the boundary.
 */
import { types } from "node:util";
import { unknownMessage } from "../validation.js";
import { blockConvolutions, type ConvolutionLayer, type NormLayer, norms, type Topology } from "./topology.js";

/** A run of elements in a flat buffer. */
export interface Segment {
  readonly offset: number;
  readonly elements: number;
}

export type Initializer =
  /** Cut at two standard deviations; `std` is that of the normal before it is cut. */
  | { readonly type: "truncatedNormal"; readonly std: number }
  | { readonly type: "uniform"; readonly limit: number }
  | { readonly type: "constant"; readonly value: number };

export interface ParameterEntry {
  readonly name: string;
  /** As seen from outside: [out, in, kh, kw], [out, in] or [c]. */
  readonly shape: readonly number[];
  readonly elements: number;
  readonly kind: "convolution" | "linear" | "vector";
  /** The flat buffer: trained, or running statistics. */
  readonly buffer: "parameters" | "running";
  /** Weight decay applies. */
  readonly decayed: boolean;
  readonly initializer: Initializer;
  /** One for each part of a norm, otherwise a single one; together `elements` long. */
  readonly segments: readonly Segment[];
}

/** Where one part of a norm keeps its parameters and running statistics ([2][c]). */
export interface NormSegments {
  readonly gamma: Segment;
  readonly beta: Segment;
  readonly running: Segment;
}

const ALIGNMENT = 16;

class Flat {
  elements = 0;
  take(elements: number): Segment {
    const offset = this.elements;
    this.elements += Math.ceil(elements / ALIGNMENT) * ALIGNMENT;
    return { offset, elements };
  }
}

export class ParameterLayout {
  /** By name, in the order of PyTorch's state_dict. */
  readonly entries: ReadonlyMap<string, ParameterEntry>;
  /** By the norm's name, then its part. */
  readonly norms: ReadonlyMap<string, readonly NormSegments[]>;
  /** Elements of the flat parameters, padding included, and how many of them weight decay applies to. */
  readonly elements: number;
  readonly decayed: number;
  /** Elements of the flat running statistics. */
  readonly runningElements: number;
  /** Trained parameters: what papers count. */
  readonly count: number;

  constructor(topology: Topology) {
    const parameters = new Flat();
    const running = new Flat();
    const { linear } = topology.head;
    const convolutions = [topology.stem.convolution, ...topology.blocks.flatMap(blockConvolutions)];

    const weights = new Map(convolutions.map(({ name, shape }) => [name, parameters.take(shape.k * shape.c * shape.kernel ** 2)]));
    weights.set(linear.name, parameters.take(linear.out * linear.in));
    this.decayed = parameters.elements;
    this.norms = new Map(
      norms(topology).map((norm) => {
        const c = norm.channels / norm.inputs.length;
        return [
          norm.name,
          norm.inputs.map(() => ({ gamma: parameters.take(c), beta: parameters.take(c), running: running.take(2 * c) })),
        ];
      }),
    );
    const bias = parameters.take(linear.out);
    this.elements = parameters.elements;
    this.runningElements = running.elements;

    const entries = [
      convolutionEntry(topology.stem.convolution, weights),
      ...this.normEntries(topology.stem.norm),
      ...topology.blocks.flatMap((block) =>
        blockConvolutions(block).flatMap((layer) => [
          ...(layer.norm ? this.normEntries(layer.norm) : []),
          convolutionEntry(layer, weights),
        ]),
      ),
      ...this.normEntries(topology.head.norm),
      {
        ...entry(`${linear.name}.weight`, [linear.out, linear.in], [weights.get(linear.name)!]),
        kind: "linear" as const,
        decayed: true,
        initializer: { type: "uniform" as const, limit: Math.sqrt(3 / linear.in) },
      },
      entry(`${linear.name}.bias`, [linear.out], [bias]),
    ];
    this.entries = new Map(entries.map((e) => [e.name, e]));
    this.count = entries.reduce((sum, e) => sum + (e.buffer === "parameters" ? e.elements : 0), 0);
  }

  /** How the names and shapes of tensors differ from these parameters', in words; undefined where they are the same. */
  mismatch(tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>): string | undefined {
    for (const name of tensors.keys()) if (!this.entries.has(name)) return unknownMessage("parameter", name, this.entries.keys());
    for (const { name, shape } of this.entries.values()) {
      const given = tensors.get(name)?.shape;
      if (!given) return `parameter '${name}' is missing`;
      if (given.length !== shape.length || shape.some((size, i) => size !== given[i]))
        return `parameter '${name}': expected shape [${shape}], got [${given.slice(0, 16)}]`;
    }
    return undefined;
  }

  private normEntries(norm: NormLayer): ParameterEntry[] {
    const parts = this.norms.get(norm.name)!;
    const shape = [norm.channels];
    const half = (first: boolean) =>
      parts.map(({ running: { offset, elements } }) => ({
        offset: first ? offset : offset + elements / 2,
        elements: elements / 2,
      }));
    const one = { type: "constant", value: 1 } as const;
    return [
      {
        ...entry(
          `${norm.name}.weight`,
          shape,
          parts.map((p) => p.gamma),
        ),
        initializer: one,
      },
      entry(
        `${norm.name}.bias`,
        shape,
        parts.map((p) => p.beta),
      ),
      { ...entry(`${norm.name}.running_mean`, shape, half(true)), buffer: "running" },
      { ...entry(`${norm.name}.running_var`, shape, half(false)), buffer: "running", initializer: one },
    ];
  }
}

/** A vector of zeros among the trained parameters, without weight decay. */
function entry(name: string, shape: readonly number[], segments: readonly Segment[]): ParameterEntry {
  const elements = shape.reduce((a, b) => a * b);
  return {
    name,
    shape,
    elements,
    kind: "vector",
    buffer: "parameters",
    decayed: false,
    initializer: { type: "constant", value: 0 },
    segments,
  };
}

function convolutionEntry({ name, shape }: ConvolutionLayer, weights: ReadonlyMap<string, Segment>): ParameterEntry {
  const { k, c, kernel } = shape;
  return {
    ...entry(`${name}.weight`, [k, c, kernel, kernel], [weights.get(name)!]),
    kind: "convolution",
    decayed: true,
    initializer: { type: "truncatedNormal", std: Math.sqrt(2 / (kernel * kernel * k)) },
  };
}

/** What a device computes with, on the host: float32, or float64 on the reference. */
export type RealArray = Float32Array | Float64Array;

/** Copies the tensor `entry` out of a flat buffer, OIHW for a convolution. */
export function unpack(entry: ParameterEntry, flat: RealArray): RealArray {
  const data = types.isFloat64Array(flat) ? new Float64Array(entry.elements) : new Float32Array(entry.elements);
  if (entry.kind === "convolution") {
    const { offset } = entry.segments[0]!;
    forEachRun(entry.shape, (outside, step, device, count) => {
      for (let i = 0; i < count; ++i) data[outside + i * step] = flat[offset + device + i]!;
    });
    return data;
  }
  let at = 0;
  for (const { offset, elements } of entry.segments) {
    data.set(flat.subarray(offset, offset + elements), at);
    at += elements;
  }
  return data;
}

/** Copies `data`, in the layout that `unpack` gives, into a flat buffer. */
export function pack(entry: ParameterEntry, data: RealArray | readonly number[], flat: RealArray): void {
  if (entry.kind === "convolution") {
    const { offset } = entry.segments[0]!;
    forEachRun(entry.shape, (outside, step, device, count) => {
      for (let i = 0; i < count; ++i) flat[offset + device + i] = data[outside + i * step]!;
    });
    return;
  }
  let at = 0;
  for (const { offset, elements } of entry.segments) {
    flat.set(elements === data.length ? data : data.slice(at, at + elements), offset);
    at += elements;
  }
}

/** So few that the lines of cache that they are read from, or written to, are all still there for the next input channel. */
const RUN = 16;

/**
 * Pairs runs of output channels, at `outside`, `outside + step`, ... of [out][in][kh][kw], with where they lie side by side in
 * [kh][kw][in][out]. A tensor has millions of weights, and the event loop waits.
 */
function forEachRun(shape: readonly number[], visit: (outside: number, step: number, device: number, count: number) => void): void {
  const [k, c, kh, kw] = shape as [number, number, number, number];
  const taps = kh * kw;
  for (let o = 0; o < k; o += RUN)
    for (let i = 0; i < c; ++i)
      for (let tap = 0; tap < taps; ++tap) visit((o * c + i) * taps + tap, c * taps, (tap * c + i) * k + o, Math.min(RUN, k - o));
}

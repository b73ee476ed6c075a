/**
 * What a training step costs on a GPU by arithmetic alone: for every kernel that it launches, the bytes it has to move through
 * device memory at least (each tensor once, whatever the caches do), and its multiplications and additions. No measurement: what
 * measurements are compared with (bench/roofline.mjs, `revnet doctor --verify`).
 */
import type { BufferId, Convolution, Extent, Layer, Op } from "../../binding.js";
import { NetworkBuffers } from "../network/buffers.js";
import { type Precision, type StreamGradients, streamGradientsOf } from "../network/device.js";
import { imageElements } from "../network/images.js";
import { trainingProgram } from "../network/program.js";
import type { Activations } from "../network/recorder.js";
import type { NetworkSpec } from "../network/spec.js";
import { buildTopology } from "../network/topology.js";
import { outputElements } from "./problem.js";

export interface Kernel {
  readonly kernel: string;
  readonly bytes: number;
  readonly flops?: number;
  /** Of threads, where more or fewer of them would matter; absent: enough to fill a GPU, or too little work to. */
  readonly blocks?: number;
  /** Whether the block that ends last adds up what all have left. */
  readonly tail?: boolean;
}

/** Bytes of a parameter or a statistic. */
const FLOAT = 4;
/** Of a launch: kBlocks of native/cuda/convolution.cuh. Two passes that share one have half of them each. */
const BLOCKS = 264;

/** Bytes of the numbers that most of a step's bytes are: those of images and streams, hidden tensors, and gradients of streams. */
export interface Storage {
  readonly stream: number;
  readonly hidden: number;
  readonly gradient: number;
}
/** As native/cuda stores them. */
export function storageOf(precision: Precision, streamGradients: StreamGradients = streamGradientsOf(precision)): Storage {
  return { stream: 4, hidden: precision === "bfloat16" ? 2 : 4, gradient: streamGradients === "bfloat16" ? 2 : 4 };
}

const shapeOf = (c: Convolution) => ({
  input: elements(c),
  output: outputElements(c),
  weights: c.kernel ** 2 * c.c * c.k,
});
const elements = ({ n, h, w, c }: Extent): number => n * h * w * c;
const flopsOf = (c: Convolution): number => 2 * shapeOf(c).output * c.kernel ** 2 * c.c;

/**
 * Blocks that share the pixels in the weights' gradient: planBackwardWeights of native/cuda/weights_gradient.cu, where tiles are not
 * cut short by shared memory.
 */
function splits(conv: Convolution, blocks: number): number {
  const up = (a: number, b: number) => Math.ceil(a / b);
  const powerFrom = (value: number) => 2 ** Math.ceil(Math.log2(Math.max(value, 16)));
  const taps = conv.kernel ** 2;
  const outputs = shapeOf(conv).output / conv.k;
  let chunk = Math.min(conv.kernel === 1 ? 128 : conv.kernel === 3 ? 32 : 16, powerFrom(conv.c));
  /** Blocks of a split: each has up to 5 tiles of 16 x 16 channels for each of 8 warps. */
  const parts = (columns: number) =>
    up(taps, Math.floor((5 * Math.floor(128 / columns)) / (chunk / 16))) * up(conv.c, chunk) * up(conv.k, columns);
  const widths = [16, 32, 64].filter((columns) => columns <= powerFrom(conv.k));
  let columns = widths.reduce((best, wider) => (parts(wider) < parts(best) ? wider : best));
  let pixels = 256;
  while (2 * up(outputs, pixels) * parts(columns) <= blocks && Math.max(columns, chunk, pixels / 4) > 16) {
    if (columns >= chunk && columns > 16) columns /= 2;
    else if (chunk > 16) chunk /= 2;
    else pixels /= 2;
  }
  return Math.max(1, Math.min(Math.floor(blocks / parts(columns)), up(outputs, pixels)));
}

/** Tiles of 128 pixels, up to 512 blocks of them, times tiles of 64 channels: planPass of native/cuda/convolution.cu. */
const blocksOf = (elements: number, channels: number): number =>
  Math.min(Math.ceil(elements / channels / 128), 512) * Math.ceil(channels / 64);

/** y = base + q(F(x)), or without the addition. */
function forward(layers: readonly { convolution: Convolution }[], adds: boolean, storage: Storage): Kernel[] {
  return layers.map(({ convolution }, i) => {
    const { input, output } = shapeOf(convolution);
    const last = i === layers.length - 1;
    const written = (last ? storage.stream : storage.hidden) * output * (last && adds ? 2 : 1);
    return {
      kernel: "convolve, forward",
      bytes: (i === 0 ? storage.stream : storage.hidden) * input + written,
      flops: flopsOf(convolution),
      blocks: blocksOf(output, convolution.k),
      tail: true,
    };
  });
}

function backward(layers: readonly Layer[], { stream, hidden, gradient }: Storage): Kernel[] {
  const kernels: Kernel[] = [];
  let partials = 0;
  for (let i = layers.length - 1; i >= 0; i--) {
    const { convolution, statistics } = layers[i]!;
    const shape = shapeOf(convolution);
    const input = (i === 0 ? stream : hidden) * shape.input;
    // The gradient of an inner tensor is read through the norm above it: dz, which is stored like a hidden tensor, and the tensor.
    const dy = (i === layers.length - 1 ? gradient : 2 * hidden) * shape.output;
    const split = splits(convolution, statistics === undefined ? BLOCKS : BLOCKS / 2);
    const flops = flopsOf(convolution);
    const sums = FLOAT * shape.weights * split;
    const dx = hidden * shape.input;
    const blocks = blocksOf(shape.input, convolution.c);
    if (statistics === undefined)
      kernels.push(
        { kernel: "weights gradient", bytes: input + dy + sums, flops },
        { kernel: "convolve, backward data", bytes: dy + dx, flops, blocks },
      );
    // Both read dy and the input, the one while the other has it in the cache.
    else kernels.push({ kernel: "backward layer", bytes: dy + input + dx + sums, flops: 2 * flops, blocks, tail: true });
    if (split > 1) partials += shape.weights * (split + 1);
  }
  const [first] = layers;
  const read = hidden + (first!.statistics === undefined ? 0 : stream);
  kernels.push({ kernel: "end of backward", bytes: FLOAT * partials + (read + 2 * gradient) * shapeOf(first!.convolution).input });
  return kernels;
}

const shortcut = (op: Extent & { k: number; stride: number }, size: number): Kernel[] => [
  { kernel: "shortcut", bytes: size * (elements(op) + (elements(op) / op.c / op.stride ** 2) * op.k) },
];
const pooled = ({ n, h, w, c }: Extent): number => n * (Math.floor((h - 1) / 2) + 1) * (Math.floor((w - 1) / 2) + 1) * c;
/** `size`, `pooledSize`: bytes of an element of the large tensor and of the pooled one, which has a tap for each. */
const maxPool = (op: Extent, size: number, pooledSize = size): Kernel[] => [
  { kernel: "max pool", bytes: size * elements(op) + (pooledSize + 1) * pooled(op) },
];
const linear = ({ n, in: inputs, out }: { n: number; in: number; out: number }): Kernel => ({
  kernel: "linear",
  bytes: FLOAT * (n * inputs + inputs * out + n * out),
  flops: 2 * n * inputs * out,
});

/** The kernels of an op alone, as native/cuda launches them, but for what is prepared for all ops. */
function kernelsOf(op: Op, storage: Storage): Kernel[] {
  const { stream, hidden, gradient } = storage;
  switch (op.op) {
    case "gatherBatch":
      return [{ kernel: "gather", bytes: 5 * elements(op) }];
    case "convolutionForward": {
      // The stem's output is stored like hidden tensors; with fixed-point streams, all others count what leaves the range.
      const [kernel] = forward([op], false, storage) as [Kernel];
      const narrowed = op.outOfRange === undefined ? (stream - hidden) * shapeOf(op.convolution).output : 0;
      return [{ ...kernel, bytes: kernel.bytes - narrowed }];
    }
    case "convolutionBackwardData": {
      const { input, output } = shapeOf(op.convolution);
      const bytes = gradient * (input + output);
      return [{ kernel: "convolve, backward data", bytes, flops: flopsOf(op.convolution) }];
    }
    case "convolutionBackwardWeights": {
      const { input, output, weights } = shapeOf(op.convolution);
      const split = splits(op.convolution, BLOCKS);
      const bytes = stream * input + gradient * output + FLOAT * weights * split;
      return [
        { kernel: "weights gradient", bytes, flops: flopsOf(op.convolution) },
        ...(split > 1 ? [{ kernel: "sum of partial weights", bytes: FLOAT * weights * (split + 1) }] : []),
      ];
    }
    case "batchNormReluForward":
      return [{ kernel: "batch norm", bytes: (hidden + stream) * elements(op) }];
    case "batchNormReluBackward":
      return [
        { kernel: "batch norm, backward sums", bytes: (hidden + gradient) * elements(op), tail: true },
        { kernel: "batch norm, backward", bytes: (hidden + 2 * gradient) * elements(op) },
      ];
    case "updateRunningStatistics":
      return [{ kernel: "running statistics", bytes: 0 }];
    case "shortcutForward":
      return shortcut(op, stream);
    case "shortcutBackward":
      return shortcut(op, gradient);
    case "maxPoolForward":
      return maxPool(op, hidden, stream);
    case "maxPoolBackward":
      return maxPool(op, gradient);
    case "globalAveragePoolForward":
      return [{ kernel: "average pool", bytes: op.parts.length * stream * elements(op) }];
    case "globalAveragePoolBackward":
      return [
        { kernel: "average pool, backward sums", bytes: op.parts.length * stream * elements(op), tail: true },
        { kernel: "average pool, backward", bytes: op.parts.length * (stream + gradient) * elements(op) },
      ];
    case "linearForward":
      return [linear(op)];
    case "linearBackward": {
      const one = linear(op);
      return [{ ...one, bytes: 2 * one.bytes, flops: 2 * one.flops! }];
    }
    case "softmaxCrossEntropy":
      return [{ kernel: "cross-entropy", bytes: FLOAT * 2 * op.n * op.classes, tail: true }];
    case "residualForward":
      return forward(op.function, true, storage);
    case "residualBackward":
      return backward(op.function, storage);
    case "reversibleForward":
    case "reversibleInverse":
      return [...forward(op.f, true, storage), ...forward(op.g, true, storage)];
    case "reversibleBackward": {
      const kernels = [op.g, op.f].map((layers) => [...forward(layers, true, storage), ...backward(layers, storage)]);
      const [g, f] = kernels as [Kernel[], Kernel[]];
      // The end of G's backward pass shares the launch of F's first layer, unless that is its last.
      if (op.f.length > 1) f[0] = { ...f[0]!, bytes: f[0]!.bytes + g.pop()!.bytes };
      return [...g, ...f];
    }
    case "sgdUpdate":
      return [{ kernel: "sgd", bytes: FLOAT * 5 * op.elements }];
    case "adamwUpdate":
      return [{ kernel: "adamw", bytes: FLOAT * 7 * op.elements }];
    case "clipGradientNorm":
      return [
        { kernel: "gradient norm", bytes: FLOAT * op.elements },
        { kernel: "clip", bytes: FLOAT * 2 * op.elements },
      ];
    case "copy":
    case "maximumDifference":
      return [{ kernel: op.op, bytes: FLOAT * 2 * op.elements }];
  }
}

/** One launch before all others: each weight in each direction in which it is used, read and written. */
function prepare(ops: readonly Op[]): Kernel {
  const packed = new Map<string, number>();
  const use = (layers: readonly { convolution: Convolution; weight: BufferId }[], ...directions: string[]) => {
    for (const { convolution, weight } of layers)
      for (const direction of directions) packed.set(`${weight} ${direction}`, shapeOf(convolution).weights);
  };
  for (const op of ops) {
    if (op.op === "convolutionForward") use([op], "forward");
    else if (op.op === "convolutionBackwardData") use([op], "backward");
    else if (op.op === "residualForward") use(op.function, "forward");
    else if (op.op === "residualBackward") use(op.function, "backward");
    else if (op.op === "reversibleForward" || op.op === "reversibleInverse") use([...op.f, ...op.g], "forward");
    else if (op.op === "reversibleBackward") use([...op.f, ...op.g], "forward", "backward");
  }
  return { kernel: "prepare", bytes: [...packed.values()].reduce((sum, weights) => sum + 2 * FLOAT * weights, 0) };
}

/** How many neighbouring ops of a kind are one launch. */
const TOGETHER: { readonly [op: string]: number } = { updateRunningStatistics: 64, shortcutForward: 2, shortcutBackward: 2 };

/** The kernels of a program. */
export function launchesOf(ops: readonly Op[], storage: Storage): Kernel[] {
  const kernels = [prepare(ops)];
  let together = 0;
  for (const [i, op] of ops.entries()) {
    together = op.op === ops[i - 1]?.op && together < (TOGETHER[op.op] ?? 1) ? together + 1 : 1;
    const own = kernelsOf(op, storage);
    if (together === 1) kernels.push(...own);
    else kernels.push({ ...own[0]!, bytes: kernels.pop()!.bytes + own[0]!.bytes });
  }
  return kernels;
}

/** The kernels of a training step with fixed-point streams on n images of a data set, and how many ops they belong to. */
export function stepKernels(
  spec: NetworkSpec,
  n: number,
  activations: Activations,
  storage: Storage,
): { kernels: Kernel[]; ops: number } {
  const topology = buildTopology(spec);
  const buffers = new NetworkBuffers(topology);
  const images = buffers.add({ name: "images", type: "byte", elements: n * imageElements(spec), category: "data" });
  const labels = buffers.add({ name: "labels", type: "index", elements: n, category: "data" });
  const source = { type: "dataset", images, labels, count: n, padding: 4, flip: true, scale: 1 / 255 } as const;
  const { ops } = trainingProgram(topology, buffers, { n, activations, streams: "fixed", source, optimizer: "sgd" });
  return { kernels: launchesOf(ops, storage), ops: ops.length };
}

/**
 * What a training step costs on a GPU by arithmetic alone: for every kernel that it launches, the bytes it has to move through
 * device memory at least (each tensor once, whatever the caches do), and its multiplications and additions. No measurement: what
 * measurements are compared with (bench/roofline.mjs, `revnet doctor --verify`).
 */
import type { Convolution, Extent, Layer, Op } from "../../binding.js";
import { NetworkBuffers } from "../network/buffers.js";
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
}

/** Bytes of a number in device memory, in every precision. */
const FLOAT = 4;

const shapeOf = (c: Convolution) => ({
  input: elements(c),
  output: outputElements(c),
  weights: c.kernel ** 2 * c.c * c.k,
});
const elements = ({ n, h, w, c }: Extent): number => n * h * w * c;
const flopsOf = (c: Convolution): number => 2 * shapeOf(c).output * c.kernel ** 2 * c.c;

/** Blocks that share the pixels in the weights' gradient: planBackwardWeights of native/cuda/weights_gradient.cu. */
function splits(c: Convolution): number {
  const up = (a: number, b: number) => Math.ceil(a / b);
  let columns = 64;
  while (columns > 16 && columns / 2 >= c.k) columns /= 2;
  let chunk = c.kernel === 1 ? 64 : 32;
  while (chunk > 16 && chunk / 2 >= c.c) chunk /= 2;
  const itemsPerTap = (chunk / 16) * (columns / Math.min(columns, 32));
  const parts = up(c.kernel ** 2, Math.floor(36 / itemsPerTap)) * up(c.c, chunk) * up(c.k, columns);
  return Math.max(1, Math.min(up(128, parts), up(up(shapeOf(c).output / c.k, 64), 2)));
}

const prepare = (layers: readonly { convolution: Convolution }[], directions: number): Kernel => ({
  kernel: "prepare",
  bytes: layers.reduce((sum, { convolution }) => sum + shapeOf(convolution).weights * FLOAT * 2 * directions, 0),
});

/** y = base + q(F(x)), or without the addition. */
function forward(layers: readonly { convolution: Convolution }[], adds: boolean): Kernel[] {
  return layers.map(({ convolution }, i) => {
    const { input, output } = shapeOf(convolution);
    const base = adds && i === layers.length - 1 ? output : 0;
    return { kernel: "convolve, forward", bytes: FLOAT * (input + output + base), flops: flopsOf(convolution) };
  });
}

function backward(layers: readonly Layer[]): Kernel[] {
  const kernels: Kernel[] = [];
  let partials = 0;
  for (let i = layers.length - 1; i >= 0; i--) {
    const { convolution, statistics } = layers[i]!;
    const { input, output, weights } = shapeOf(convolution);
    // The gradient of an inner tensor is read through the norm above it: dz and the tensor itself.
    const gradient = i === layers.length - 1 ? output : 2 * output;
    const split = splits(convolution);
    const flops = flopsOf(convolution);
    kernels.push({ kernel: "weights gradient", bytes: FLOAT * (input + gradient + weights * split), flops });
    const masked = statistics === undefined ? 0 : input;
    kernels.push({ kernel: "convolve, backward data", bytes: FLOAT * (gradient + input + masked), flops });
    if (split > 1) partials += weights * (split + 1);
  }
  const [first] = layers;
  if (partials > 0) kernels.push({ kernel: "sum of partial weights", bytes: FLOAT * partials });
  const { input } = shapeOf(first!.convolution);
  kernels.push({ kernel: "add gradient", bytes: FLOAT * input * (first!.statistics === undefined ? 3 : 4) });
  return kernels;
}

const shortcut = (op: Extent & { k: number; stride: number }): Kernel[] => [
  { kernel: "shortcut", bytes: FLOAT * (elements(op) + (elements(op) / op.c / op.stride ** 2) * op.k) },
];
const pooled = ({ n, h, w, c }: Extent): number => n * (Math.floor((h - 1) / 2) + 1) * (Math.floor((w - 1) / 2) + 1) * c;
const maxPool = (op: Extent): Kernel[] => [{ kernel: "max pool", bytes: FLOAT * elements(op) + 5 * pooled(op) }];
const linear = ({ n, in: inputs, out }: { n: number; in: number; out: number }): Kernel => ({
  kernel: "linear",
  bytes: FLOAT * (n * inputs + inputs * out + n * out),
  flops: 2 * n * inputs * out,
});

/** The kernels of an op, as native/cuda launches them. */
export function kernelsOf(op: Op): Kernel[] {
  switch (op.op) {
    case "gatherBatch":
      return [{ kernel: "gather", bytes: 5 * elements(op) }];
    case "convolutionForward":
      return [prepare([op], 1), ...forward([op], false)];
    case "convolutionBackwardData": {
      const { input, output } = shapeOf(op.convolution);
      const bytes = FLOAT * (input + output);
      return [prepare([op], 1), { kernel: "convolve, backward data", bytes, flops: flopsOf(op.convolution) }];
    }
    case "convolutionBackwardWeights": {
      const { input, output, weights } = shapeOf(op.convolution);
      const split = splits(op.convolution);
      const bytes = FLOAT * (input + output + weights * split);
      return [
        { kernel: "prepare", bytes: 0 },
        { kernel: "weights gradient", bytes, flops: flopsOf(op.convolution) },
        ...(split > 1 ? [{ kernel: "sum of partial weights", bytes: FLOAT * weights * (split + 1) }] : []),
      ];
    }
    case "batchNormReluForward":
      return [{ kernel: "batch norm", bytes: FLOAT * 2 * elements(op) }];
    case "batchNormReluBackward":
      return [
        { kernel: "batch norm, backward sums", bytes: FLOAT * 2 * elements(op) },
        { kernel: "batch norm, backward", bytes: FLOAT * 3 * elements(op) },
      ];
    case "updateRunningStatistics":
      return [{ kernel: "running statistics", bytes: 0 }];
    case "shortcutForward":
    case "shortcutBackward":
      return shortcut(op);
    case "maxPoolForward":
    case "maxPoolBackward":
      return maxPool(op);
    case "globalAveragePoolForward":
      return [{ kernel: "average pool", bytes: FLOAT * elements(op) * op.parts.length }];
    case "globalAveragePoolBackward":
      return [
        { kernel: "average pool, backward sums", bytes: FLOAT * elements(op) * op.parts.length },
        { kernel: "average pool, backward", bytes: FLOAT * 2 * elements(op) * op.parts.length },
      ];
    case "linearForward":
      return [linear(op)];
    case "linearBackward":
      return [linear(op), linear(op)];
    case "softmaxCrossEntropy":
      return [{ kernel: "cross-entropy", bytes: FLOAT * 2 * op.n * op.classes }];
    case "residualForward":
      return [prepare(op.function, 1), ...forward(op.function, true)];
    case "residualBackward":
      return [prepare(op.function, 1), ...backward(op.function)];
    case "reversibleForward":
    case "reversibleInverse":
      return [prepare([...op.f, ...op.g], 1), ...forward(op.f, true), ...forward(op.g, true)];
    case "reversibleBackward":
      return [prepare([...op.f, ...op.g], 2), ...[op.g, op.f].flatMap((layers) => [...forward(layers, true), ...backward(layers)])];
    case "sgdUpdate":
      return [{ kernel: "sgd", bytes: FLOAT * 5 * op.elements }];
    case "copy":
    case "maximumDifference":
      return [{ kernel: op.op, bytes: FLOAT * 2 * op.elements }];
  }
}

/** The kernels of a training step with fixed-point streams on n images of a data set, and how many ops they belong to. */
export function stepKernels(spec: NetworkSpec, n: number, activations: Activations): { kernels: Kernel[]; ops: number } {
  const topology = buildTopology(spec);
  const buffers = new NetworkBuffers(topology);
  const images = buffers.add({ name: "images", type: "byte", elements: n * imageElements(spec), category: "data" });
  const labels = buffers.add({ name: "labels", type: "index", elements: n, category: "data" });
  const source = { type: "dataset", images, labels, count: n, padding: 4, flip: true, scale: 1 / 255 } as const;
  const { ops } = trainingProgram(topology, buffers, { n, activations, streams: "fixed", source });
  // Updates of running statistics that follow one another are one launch for up to 64.
  const launched = ops.filter(({ op }, i) => op !== "updateRunningStatistics" || ops[i - 1]?.op !== op);
  return { kernels: launched.flatMap(kernelsOf), ops: ops.length };
}

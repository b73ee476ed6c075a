/**
 * The op cases of `revnet doctor --verify`: the fewest that reach every kernel of a GPU. Its templates differ by the width of
 * accesses (channels that are a multiple of 4, and aligned, or not) and, for convolutions, by how many columns a block writes
 * (16, 32 or 64, by channels and pixels). The tests' own list (test/ops/cases.ts) is ten times as long.
 */
import type { Case, Parameters } from "./families.js";

/** What has no convolutions. */
const elementwise: (Parameters & { shifted?: boolean })[] = [
  { family: "batchNormRelu", n: 5, h: 8, w: 8, c: 16, parts: 2, stream: "real", y: "fixed" },
  { family: "batchNormRelu", n: 3, h: 2, w: 7, c: 5, parts: 1, stream: "real", y: "real" },
  { family: "batchNormRelu", n: 2, h: 4, w: 4, c: 8, parts: 1, stream: "real", y: "real", shifted: true },
  { family: "shortcut", n: 5, h: 8, w: 8, c: 16, k: 28, stride: 2, stream: "fixed" },
  { family: "shortcut", n: 2, h: 6, w: 4, c: 5, k: 7, stride: 2, stream: "real" },
  { family: "shortcut", n: 2, h: 3, w: 4, c: 8, k: 8, stride: 1, stream: "real", shifted: true },
  { family: "maxPool", n: 3, h: 9, w: 8, c: 16, parts: 2, stream: "real", y: "fixed" },
  { family: "maxPool", n: 2, h: 5, w: 7, c: 5, parts: 1, stream: "real", y: "real" },
  { family: "maxPool", n: 2, h: 5, w: 4, c: 8, parts: 1, stream: "real", y: "real", shifted: true },
  { family: "globalAveragePool", n: 4, h: 6, w: 5, c: 64, parts: 2, stream: "fixed" },
  { family: "globalAveragePool", n: 3, h: 2, w: 7, c: 5, parts: 1, stream: "real" },
  { family: "globalAveragePool", n: 2, h: 3, w: 3, c: 8, parts: 1, stream: "real", shifted: true },
  { family: "linear", n: 7, in: 224, out: 100, stream: "real" },
  { family: "linear", n: 3, in: 5, out: 10, stream: "real", shifted: true },
  { family: "softmaxCrossEntropy", n: 5, classes: 10, stream: "real" },
  { family: "softmaxCrossEntropy", n: 7, classes: 1000, stream: "real", shifted: true },
  { family: "update", elements: 4096, stream: "fixed" },
  { family: "update", elements: 1003, stream: "real" },
  { family: "update", elements: 512, stream: "fixed", shifted: true },
  { family: "runningStatistics", c: 70, count: 9, stream: "real" },
  { family: "gatherBatch", n: 5, h: 8, w: 8, c: 4, padding: 2, flip: true, stream: "real" },
  { family: "gatherBatch", n: 3, h: 5, w: 7, c: 3, padding: 1, flip: true, stream: "real" },
];

/** What every precision has kernels of its own for. */
const convolving: (Parameters & { shifted?: boolean })[] = [
  // Blocks of 64 columns: forward, and backward data; the weights' gradient in many parts, whose sum is a kernel too.
  { family: "convolution", n: 12, h: 32, w: 32, c: 3, k: 36, kernel: 3, stride: 1, norm: true, stream: "fixed", y: "fixed" },
  { family: "convolution", n: 12, h: 32, w: 32, c: 36, k: 3, kernel: 1, stride: 1, norm: false, stream: "real", y: "real" },
  // The same of 32.
  { family: "convolution", n: 12, h: 32, w: 32, c: 4, k: 28, kernel: 1, stride: 1, norm: true, stream: "real", y: "fixed" },
  // Several input chunks and column tiles, few pixels; then with stride 2.
  { family: "convolution", n: 1, h: 9, w: 11, c: 56, k: 64, kernel: 3, stride: 1, norm: true, stream: "real", y: "real" },
  { family: "convolution", n: 2, h: 16, w: 16, c: 28, k: 56, kernel: 3, stride: 2, norm: true, stream: "fixed", y: "real" },
  { family: "convolution", n: 2, h: 15, w: 14, c: 3, k: 64, kernel: 7, stride: 2, norm: false, stream: "real", y: "real" },
  { family: "convolution", n: 4, h: 7, w: 4, c: 5, k: 14, kernel: 1, stride: 2, norm: true, stream: "fixed", y: "real" },
  {
    family: "convolution",
    n: 3,
    h: 6,
    w: 9,
    c: 16,
    k: 8,
    kernel: 3,
    stride: 1,
    norm: true,
    stream: "real",
    y: "real",
    shifted: true,
  },
  { family: "residual", n: 4, h: 9, w: 7, c: 16, k: 28, hidden: 28, kernel: 3, stride: 2, normless: true, stream: "fixed" },
  { family: "residual", n: 3, h: 5, w: 4, c: 3, k: 3, hidden: 5, kernel: 3, stride: 1, alias: true, stream: "real" },
  { family: "residual", n: 2, h: 10, w: 8, c: 56, k: 64, hidden: 14, kernel: 3, stride: 2, bottleneck: true, stream: "fixed" },
  { family: "residual", n: 2, h: 4, w: 5, c: 8, k: 8, hidden: 8, kernel: 3, stride: 1, stream: "real", shifted: true },
  { family: "reversible", n: 2, h: 8, w: 8, c: 16, hidden: 16, kernel: 3, stream: "fixed" },
  { family: "reversible", n: 3, h: 5, w: 4, c: 3, hidden: 3, kernel: 3, stream: "real" },
  { family: "reversible", n: 2, h: 8, w: 8, c: 64, hidden: 16, kernel: 3, bottleneck: true, stream: "fixed" },
  { family: "reversible", n: 2, h: 5, w: 4, c: 16, hidden: 4, kernel: 3, bottleneck: true, running: true, stream: "fixed" },
  { family: "reversible", n: 2, h: 4, w: 4, c: 8, hidden: 8, kernel: 3, stream: "fixed", shifted: true },
];

export const elementwiseCases: readonly Case[] = elementwise.map((parameters, i) => ({ ...parameters, seed: 2000 + i }) as Case);
export const convolvingCases: readonly Case[] = convolving.map((parameters, i) => ({ ...parameters, seed: 2100 + i }) as Case);

/**
 * The list of op cases that every backend must pass. Between them: channels 1, 3, 5, 8, 14, 16, 28, 56, 64; edges 1 to 17,
 * odd and not square, 32; batches 1 to 7, 12, 66; kernels 1, 3, 7; strides 1, 2; with and without norm; real and fixed streams; one and
 * two parts; basic and bottleneck functions; operands that are one buffer where the op allows it.
 */
import type { Case, Families, Parameters } from "../../lib/verify/families.js";
import type { Stream } from "../../lib/verify/problem.js";

const streams: Stream[] = ["real", "fixed"];
const pick = <T>(values: readonly T[], i: number): T => values[i % values.length] as T;

const convolutionShapes = [
  { n: 1, h: 1, w: 1, c: 1, k: 1 },
  { n: 2, h: 3, w: 5, c: 3, k: 5 },
  { n: 3, h: 7, w: 4, c: 5, k: 8 },
  { n: 4, h: 8, w: 8, c: 8, k: 14 },
  { n: 7, h: 6, w: 9, c: 14, k: 16 },
  { n: 5, h: 17, w: 2, c: 16, k: 28 },
  { n: 2, h: 16, w: 16, c: 28, k: 56 },
  { n: 1, h: 13, w: 17, c: 56, k: 64 },
  { n: 6, h: 5, w: 11, c: 64, k: 3 },
  { n: 2, h: 15, w: 14, c: 3, k: 64 },
];

const convolutions = convolutionShapes.flatMap((shape, i) =>
  [1, 3, ...(shape.c <= 16 ? [7] : [])].flatMap((kernel, j) =>
    [1, 2].map((stride, l): Parameters<"convolution"> => {
      const turn = i + j + l; // spreads the variants over the shapes
      return {
        family: "convolution",
        ...shape,
        kernel,
        stride,
        norm: turn % 3 > 0,
        stream: pick(streams, turn >> 1),
        y: pick(streams, turn),
      };
    }),
  ),
);

/** For a GPU: enough pixels for its kernels' widest tiles (6 and 12 images), and for more than one tile a block (66). */
const largeConvolutions = [
  { n: 12, c: 3, k: 64, kernel: 3, norm: true, stream: "fixed", y: "fixed" },
  { n: 12, c: 64, k: 3, kernel: 3, norm: true, stream: "real", y: "real" },
  { n: 6, c: 56, k: 56, kernel: 1, norm: false, stream: "real", y: "fixed" },
  { n: 66, c: 8, k: 16, kernel: 1, norm: true, stream: "fixed", y: "real" },
].map((parameters) => ({ family: "convolution", h: 32, w: 32, stride: 1, ...parameters }) as Parameters<"convolution">);

const extents = [
  { n: 1, h: 1, w: 1, c: 1 },
  { n: 2, h: 1, w: 1, c: 3 },
  { n: 3, h: 2, w: 7, c: 5 },
  { n: 7, h: 3, w: 3, c: 8 },
  { n: 2, h: 9, w: 4, c: 14 },
  { n: 5, h: 8, w: 8, c: 16 },
  { n: 1, h: 17, w: 5, c: 28 },
  { n: 2, h: 5, w: 16, c: 56 },
  { n: 4, h: 6, w: 11, c: 64 },
];

const elementwise = extents.flatMap((extent, i): Parameters[] => {
  const parts = extent.c % 2 === 0 && i % 3 > 0 ? 2 : 1;
  const [stream, y] = [pick(streams, i), pick(streams, i + 1)];
  const { n, h, w, c } = extent;
  return [
    { family: "batchNormRelu", ...extent, parts, stream, y },
    { family: "maxPool", ...extent, parts, stream, y },
    { family: "globalAveragePool", ...extent, parts: pick([1, 2] as const, i), stream },
    { family: "shortcut", ...extent, k: c, stride: 1, stream },
    { family: "shortcut", n, h: 2 * h, w: 2 * w, c, k: c + pick([0, 2, c], i) * (c % 2 === 0 ? 1 : 2), stride: 2, stream },
  ];
});

const classifier: Parameters[] = [
  { family: "linear", n: 1, in: 1, out: 1, stream: "real" },
  { family: "linear", n: 3, in: 5, out: 10, stream: "real" },
  { family: "linear", n: 7, in: 224, out: 100, stream: "real" },
  { family: "softmaxCrossEntropy", n: 1, classes: 2, stream: "real" },
  { family: "softmaxCrossEntropy", n: 5, classes: 10, stream: "real" },
  { family: "softmaxCrossEntropy", n: 7, classes: 1000, stream: "real" },
];

const residuals: Families["residual"][] = [
  { n: 1, h: 1, w: 5, c: 1, k: 1, hidden: 1, kernel: 3, stride: 1 },
  { n: 3, h: 5, w: 4, c: 3, k: 3, hidden: 5, kernel: 3, stride: 1, alias: true },
  { n: 2, h: 6, w: 6, c: 8, k: 14, hidden: 14, kernel: 3, stride: 2 },
  { n: 4, h: 9, w: 7, c: 16, k: 28, hidden: 28, kernel: 3, stride: 2, normless: true },
  { n: 2, h: 8, w: 8, c: 28, k: 28, hidden: 28, kernel: 3, stride: 1, alias: true },
  { n: 1, h: 7, w: 9, c: 56, k: 56, hidden: 56, kernel: 3, stride: 1 },
  { n: 5, h: 3, w: 6, c: 5, k: 8, hidden: 3, kernel: 1, stride: 2 },
  { n: 7, h: 4, w: 3, c: 8, k: 8, hidden: 2, kernel: 3, stride: 1, bottleneck: true, alias: true },
  { n: 2, h: 8, w: 10, c: 16, k: 64, hidden: 16, kernel: 3, stride: 1, bottleneck: true, normless: true },
  { n: 2, h: 10, w: 8, c: 56, k: 64, hidden: 14, kernel: 3, stride: 2, bottleneck: true },
  { n: 3, h: 4, w: 5, c: 14, k: 16, hidden: 8, kernel: 3, stride: 1, running: true },
  { n: 2, h: 5, w: 3, c: 8, k: 8, hidden: 4, kernel: 3, stride: 1, bottleneck: true, running: true, alias: true },
];

const reversibles: Families["reversible"][] = [
  { n: 4, h: 1, w: 1, c: 1, hidden: 3, kernel: 3 },
  { n: 3, h: 5, w: 4, c: 3, hidden: 3, kernel: 3 },
  { n: 7, h: 3, w: 7, c: 5, hidden: 8, kernel: 1 },
  { n: 2, h: 8, w: 8, c: 16, hidden: 16, kernel: 3 },
  { n: 5, h: 6, w: 9, c: 14, hidden: 14, kernel: 3 },
  { n: 1, h: 16, w: 15, c: 28, hidden: 28, kernel: 3 },
  { n: 2, h: 8, w: 7, c: 56, hidden: 56, kernel: 3 },
  { n: 4, h: 7, w: 5, c: 8, hidden: 2, kernel: 3, bottleneck: true },
  { n: 2, h: 8, w: 8, c: 64, hidden: 16, kernel: 3, bottleneck: true },
  { n: 3, h: 4, w: 4, c: 8, hidden: 5, kernel: 3, running: true },
  { n: 2, h: 5, w: 4, c: 16, hidden: 4, kernel: 3, bottleneck: true, running: true },
];

const both = <F extends "residual" | "reversible", T>(family: F, list: T[]) =>
  list.flatMap((parameters) => streams.map((stream) => ({ family, stream, ...parameters })));

export const cases: Case[] = [
  ...convolutions,
  ...elementwise,
  ...classifier,
  ...both("residual", residuals),
  ...both("reversible", reversibles),
].map((parameters, i) => ({ ...parameters, seed: 1000 + i }) as Case);

/** Optimizers and other flat passes, which have no derivative: more than a vector, a slice of the CPU and a block takes, and less. */
export const updateCases: Case[] = [1, 3, 1003, 40_001].map((elements, i) => ({
  family: "update",
  elements,
  stream: pick(streams, i),
  seed: 1600 + i,
}));

export const largeCases: Case[] = largeConvolutions.map((parameters, i) => ({ ...parameters, seed: 1500 + i }) as Case);

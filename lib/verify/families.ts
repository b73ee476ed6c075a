/** One generator for each family of ops: from a case's parameters to a problem. */
import type { Convolution } from "../../binding.js";
import { inputElements, isNumber, outEdge, outputElements, Problem, type Stream } from "./problem.js";

interface Extent {
  n: number;
  h: number;
  w: number;
  c: number;
}

/** Parameters by family; all of them plain data. */
export interface Families {
  /** `y`: the element type that is written. */
  convolution: Convolution & { norm: boolean; y: Stream };
  batchNormRelu: Extent & { parts: 1 | 2; y: Stream };
  shortcut: Extent & { k: number; stride: number };
  maxPool: Extent & { parts: 1 | 2; y: Stream };
  globalAveragePool: Extent & { parts: 1 | 2 };
  linear: { n: number; in: number; out: number };
  softmaxCrossEntropy: { n: number; classes: number };
  /** `alias`: base is y, and dx is dy (where the shape is kept). `normless`: the first layer has no norm. */
  residual: Extent & ResidualShape & { k: number; stride: number; normless?: boolean; alias?: boolean; running?: boolean };
  /** `running`: statistics are given, as in inference; only the forward pass and its inverse then make sense. */
  reversible: Extent & ResidualShape & { running?: boolean };
  /** Of so many parameters, of which the first two thirds are decayed; and a copy and a comparison of as many elements. */
  update: { elements: number };
  runningStatistics: { c: number; count: number };
  gatherBatch: Extent & { padding: number; flip: boolean };
}
/** Layers of a residual function: two of `kernel`, or a bottleneck 1 - kernel - 1 of `hidden` channels. */
interface ResidualShape {
  kernel: number;
  hidden: number;
  bottleneck?: boolean;
}

export type Family = keyof Families;
export type Parameters<F extends Family = Family> = { [G in F]: { family: G; stream: Stream } & Families[G] }[F];
/** `shifted`: no tensor of real numbers or of a stream is aligned to more than an element. */
export type Case = Parameters & { seed: number; shifted?: boolean };
type Generator<F extends Family> = (problem: Problem, parameters: Families[F], stream: Stream) => void;

const generators: { [F in Family]: Generator<F> } = {
  convolution(problem, { norm: hasNorm, y: yType, ...rest }, stream) {
    const convolution = pickConvolution(rest);
    const { c, k, kernel } = convolution;
    const x = problem.normal("x", stream, inputElements(convolution));
    const norm = hasNorm ? problem.norm("norm", c, problem.statisticsOf(x, convolution)) : {};
    const weight = problem.weight("weight", { taps: kernel * kernel, c, k });
    const elements = outputElements(convolution);
    const dy = problem.normal("dy", "gradient", elements);
    const y = problem.output("y", elements, yType);
    const yStatistics = problem.output("y.statistics", 2 * k);
    const outOfRange = problem.input("outOfRange", "index", Int32Array.of(0));
    problem.forward.push({ op: "convolutionForward", convolution, ...norm, x, weight, y, yStatistics, outOfRange });
    problem.loss.push([y, dy]);
    const dx = problem.output("dx", inputElements(convolution), "gradient");
    problem.backward.push(
      { op: "convolutionBackwardData", convolution, weight, dy, dx },
      { op: "convolutionBackwardWeights", convolution, ...norm, x, dy, weightGradient: problem.weightGradient(weight) },
    );
    // With a norm, dx is d loss / d norm(x), which another op takes further.
    if (!hasNorm) problem.gradients.push([x, dx]);
  },

  batchNormRelu(problem, { parts, y: yType, n, h, w, c }) {
    const extent = { n, h, w, c };
    const elements = inputElements(extent);
    const x = problem.normal("x", "hidden", elements, 1.5, 0.3);
    const norm = problem.norm("norm", c, problem.statisticsOf(x, extent));
    const names = halves(parts);
    const dy = names.map((part) => problem.normal(`dy${part}`, "gradient", elements / parts));
    const y = names.map((part) => problem.output(`y${part}`, elements / parts, yType));
    const dx = problem.output("dx", elements, "gradient");
    problem.forward.push({ op: "batchNormReluForward", ...extent, ...norm, x, y });
    problem.backward.push({ op: "batchNormReluBackward", ...extent, ...norm, ...problem.normGradient("norm", c), x, dy, dx });
    for (const part of names) problem.loss.push([`y${part}`, `dy${part}`]);
    problem.gradients.push([x, dx]);
  },

  shortcut(problem, { k, stride, n, h, w, c }, stream) {
    const extent = { n, h, w, c };
    const elements = (n * h * w * k) / stride ** 2;
    const x = problem.normal("x", stream, inputElements(extent));
    const y = problem.output("y", elements, stream);
    const dy = problem.normal("dy", "gradient", elements);
    const dx = problem.output("dx", inputElements(extent), "gradient");
    problem.forward.push({ op: "shortcutForward", ...extent, k, stride, x, y });
    problem.backward.push({ op: "shortcutBackward", ...extent, k, stride, dy, dx });
    problem.loss.push([y, dy]);
    problem.gradients.push([x, dx]);
  },

  maxPool(problem, { parts, y: yType, n, h, w, c }) {
    const extent = { n, h, w, c };
    const x = problem.normal("x", "real", inputElements(extent));
    const norm = problem.norm("norm", c, problem.statisticsOf(x, extent));
    const window = { kernel: 3, stride: 2 };
    const elements = n * outEdge(h, window) * outEdge(w, window) * c;
    const names = halves(parts);
    const y = names.map((part) => problem.output(`y${part}`, elements / parts, yType));
    const dy = names.map((part) => problem.normal(`dy${part}`, "gradient", elements / parts));
    const argmax = problem.output("argmax", elements, "byte");
    // Back through the pool to d loss / d norm(x), and from there through the norm.
    const dActivation = problem.output("dActivation", inputElements(extent), "gradient");
    const dx = problem.output("dx", inputElements(extent), "gradient");
    problem.forward.push({ op: "maxPoolForward", ...extent, ...norm, x, y, argmax });
    problem.backward.push(
      { op: "maxPoolBackward", ...extent, dy, argmax, dx: dActivation },
      { op: "batchNormReluBackward", ...extent, ...norm, ...problem.normGradient("norm", c), x, dy: [dActivation], dx },
    );
    for (const part of names) problem.loss.push([`y${part}`, `dy${part}`]);
    problem.gradients.push([x, dx]);
  },

  globalAveragePool(problem, { parts, n, h, w, c }, stream) {
    const extent = { n, h, w, c };
    const y = problem.output("y", n * parts * c);
    const dy = problem.normal("dy", "real", n * parts * c);
    const all = halves(parts).map((part) => {
      const x = problem.normal(`x${part}`, stream, inputElements(extent));
      const norm = problem.norm(`norm${part}`, c, problem.statisticsOf(x, extent));
      const dx = problem.output(`dx${part}`, inputElements(extent), "gradient");
      problem.gradients.push([x, dx]);
      return { forward: { ...norm, x }, backward: { ...norm, ...problem.normGradient(`norm${part}`, c), x, dx } };
    });
    problem.forward.push({ op: "globalAveragePoolForward", ...extent, parts: all.map(({ forward }) => forward), y });
    problem.backward.push({ op: "globalAveragePoolBackward", ...extent, parts: all.map(({ backward }) => backward), dy });
    problem.loss.push([y, dy]);
  },

  linear(problem, shape) {
    const { n, in: inputs, out } = shape;
    const x = problem.normal("x", "real", n * inputs);
    const weight = problem.normal("weight", "real", out * inputs, 1 / Math.sqrt(inputs));
    const bias = problem.normal("bias", "real", out);
    const dy = problem.normal("dy", "real", n * out);
    const y = problem.output("y", n * out);
    const dx = problem.output("dx", n * inputs);
    const biasGradient = problem.output("biasGradient", out);
    problem.forward.push({ op: "linearForward", ...shape, x, weight, bias, y });
    const weightGradient = problem.weightGradient(weight);
    problem.backward.push({ op: "linearBackward", ...shape, x, weight, dy, dx, weightGradient, biasGradient });
    problem.loss.push([y, dy]);
    problem.gradients.push([x, dx], [bias, biasGradient]);
  },

  softmaxCrossEntropy(problem, { n, classes }) {
    const x = problem.normal("x", "real", n * classes, 3);
    // Every third row has no valid label and must not count.
    const labels = Int32Array.from({ length: n }, (_, i) =>
      i % 3 === 1 ? (i % 2 ? -1 : classes) : problem.random.integer(classes),
    );
    problem.input("labels", "index", labels);
    const outputs = {
      loss: problem.output("loss", 1),
      correct: problem.output("correct", 1, "index"),
      dx: problem.output("dx", n * classes),
    };
    problem.forward.push({ op: "softmaxCrossEntropy", n, classes, x, labels: "labels", ...outputs });
    problem.loss.push(["loss", null]);
    problem.gradients.push([x, "dx"]);
  },

  residual(problem, { n, h, w, c, k, stride, normless, alias, running, ...shape }, stream) {
    const x = problem.normal("x", stream, n * h * w * c);
    const f = residualFunction(
      problem,
      "f",
      { n, h, w, c, k, stride, ...shape },
      normless ? null : problem.statisticsOf(x, { n, h, w, c }),
      running,
    );
    const y = alias ? problem.normal("y", stream, f.elements) : problem.output("y", f.elements, stream);
    const base = alias ? y : problem.normal("base", stream, f.elements);
    const dy = problem.normal("dy", "gradient", f.elements);
    const dx = alias ? dy : problem.normal("dx", "gradient", n * h * w * c);
    problem.forward.push({
      op: "residualForward",
      function: f.layers,
      computeStatistics: !running,
      x,
      base,
      y,
      hidden: f.hidden,
      ...(running ? {} : { yStatistics: problem.output("y.statistics", 2 * k) }),
      outOfRange: problem.input("outOfRange", "index", Int32Array.of(0)),
    });
    problem.backward.push({ op: "residualBackward", function: f.layers, gradient: f.gradient, x, hidden: f.hidden, dy, dx });
    // dx is accumulated into: what is in it before is the gradient of another use of x, here of sum(x * dx).
    problem.loss.push([y, dy], [x, dx]);
    problem.gradients.push([x, dx]);
  },

  reversible(problem, { n, h, w, c, running, ...shape }, stream) {
    const extent = { n, h, w, c };
    const elements = inputElements(extent);
    const stream1 = problem.normal("stream1", stream, elements);
    const stream2 = problem.normal("stream2", stream, elements);
    const given = (name: string): string => problem.input(name, "real", runningStatistics(problem, c));
    const statistics1 = running ? given("statistics1") : problem.output("statistics1", 2 * c);
    const written = running ? {} : { statistics1, statistics2: problem.output("statistics2", 2 * c) };
    const block = { ...extent, k: c, stride: 1, ...shape };
    const f = residualFunction(problem, "f", block, problem.statisticsOf(stream2, extent), running);
    const g = residualFunction(problem, "g", block, statistics1, running);
    for (const name of f.hidden) problem.scratch.add(name);
    const gradient1 = problem.normal("gradient1", "gradient", elements);
    const gradient2 = problem.normal("gradient2", "gradient", elements);
    const both = { f: f.layers, g: g.layers, stream1, stream2, hidden: f.hidden };
    const outOfRange = problem.input("outOfRange", "index", Int32Array.of(0));
    problem.forward.push({ op: "reversibleForward", ...both, computeStatistics: !running, ...written, outOfRange });
    problem.backward.push(
      running
        ? { op: "reversibleInverse", ...both }
        : { op: "reversibleBackward", ...both, fGradient: f.gradient, gGradient: g.gradient, gradient1, gradient2 },
    );
    problem.loss.push([stream1, gradient1], [stream2, gradient2]);
    problem.gradients.push([stream1, gradient1], [stream2, gradient2]);
  },

  update(problem, { elements }, stream) {
    const operands = {
      elements,
      decayed: Math.floor((2 * elements) / 3),
      parameters: problem.normal("parameters", "real", elements),
      gradients: problem.normal("gradients", "real", elements),
      notFinite: problem.input("notFinite", "index", Int32Array.of(0)),
    };
    const { gradients } = operands;
    const momenta = problem.normal("momenta", "real", elements);
    const mean = problem.normal("mean", "real", elements);
    const square = problem.input("square", "real", positive(problem, elements));
    const hyperparameters = (name: string, ...values: number[]) => problem.input(name, "real", Float64Array.from(values));
    const a = problem.normal("a", stream, elements);
    const b = problem.normal("b", stream, elements);
    problem.forward.push(
      { op: "sgdUpdate", ...operands, momenta, hyperparameters: hyperparameters("sgd", 0.125, 0.875, 0.25, 0) },
      { op: "sgdUpdate", ...operands, momenta, hyperparameters: hyperparameters("nesterov", 0.125, 0.875, 0.25, 1) },
      {
        op: "adamwUpdate",
        ...{ ...operands, mean, square },
        hyperparameters: hyperparameters("adamw", 0.03125, 0.25, 0.875, 0.125, 0.75, 0.25, 0.5, 2 ** -10),
      },
      { op: "clipGradientNorm", elements, maxNorm: 0.5, gradients, norm: problem.output("norm", 1) },
      { op: "copy", elements, x: a, y: problem.output("copy", elements, stream) },
      { op: "maximumDifference", elements, a, b, y: problem.output("difference", 1) },
    );
  },

  runningStatistics(problem, { c, count }) {
    const statistics = problem.input("statistics", "real", runningStatistics(problem, c));
    const running = problem.input("running", "real", runningStatistics(problem, c));
    const flag = problem.input("notFinite", "index", Int32Array.of(0));
    problem.forward.push({ op: "updateRunningStatistics", c, count, momentum: 0.125, statistics, running, notFinite: flag });
  },

  gatherBatch(problem, { n, h, w, c, padding, flip }) {
    const pixels = h * w * c;
    const count = 2 * n + 1;
    const integers = (length: number, bound: number) => Array.from({ length }, () => problem.random.integer(bound));
    problem.forward.push({
      op: "gatherBatch",
      ...{ n, h, w, c, count, padding, flip, scale: 1 / 256 },
      images: problem.input("images", "byte", Uint8Array.from(integers(count * pixels, 256))),
      labels: problem.input("labels", "index", Int32Array.from(integers(count, 10))),
      // One of them is no image's, which gives zeros and the label -1.
      indices: problem.input("indices", "index", Int32Array.from([-1, ...integers(n - 1, count)])),
      mean: problem.input("mean", "real", Float64Array.from(integers(pixels, 256))),
      counter: problem.input("counter", "index", Int32Array.from(integers(4, 2 ** 31))),
      y: problem.output("y", n * pixels),
      yLabels: problem.output("yLabels", n, "index"),
      notFinite: problem.input("notFinite", "index", Int32Array.of(0)),
    });
  },
};

const halves = (parts: 1 | 2): string[] => (parts === 1 ? [""] : ["1", "2"]);
const pickConvolution = ({ n, h, w, c, k, kernel, stride }: Convolution): Convolution => ({ n, h, w, c, k, kernel, stride });

/** From 1/2 to 1. */
function positive(problem: Problem, elements: number): Float64Array {
  return Float64Array.from({ length: elements }, () => Math.fround(0.5 + problem.random.uniform() / 2));
}

/** Statistics as inference would have them: means near 0, variances near 1. */
function runningStatistics(problem: Problem, c: number): Float64Array {
  return Float64Array.from({ length: 2 * c }, (_, i) => (i < c ? 0 : 1) + Math.fround(0.3 * (problem.random.uniform() - 0.5)));
}

/** `statistics`: of the first norm; null: none. The later norms' are written by the forward pass, or given if `running`. */
function residualFunction(
  problem: Problem,
  prefix: string,
  shape: Families["residual"],
  statistics: string | null,
  running: boolean | undefined,
) {
  const { n, c, k, hidden, kernel, bottleneck } = shape;
  const channels = bottleneck ? [c, hidden, hidden, k] : [c, hidden, k];
  const kernels = bottleneck ? [1, kernel, 1] : [kernel, kernel];
  let { h, w } = shape;
  const layers = kernels.map((kernel, i) => {
    const stride = i === 0 ? shape.stride : 1;
    const convolution: Convolution = { n, h, w, c: channels[i] as number, k: channels[i + 1] as number, kernel, stride };
    h = outEdge(h, convolution);
    w = outEdge(w, convolution);
    const name = `${prefix}.${i + 1}`;
    const inner = (): string =>
      running
        ? problem.input(`${name}.statistics`, "real", runningStatistics(problem, convolution.c))
        : problem.output(`${name}.statistics`, 2 * convolution.c);
    const own = i === 0 ? statistics : inner();
    const weight = problem.weight(`${name}.weight`, { taps: kernel ** 2, c: convolution.c, k: convolution.k });
    return { convolution, weight, ...(own === null ? {} : problem.norm(name, convolution.c, own)) };
  });
  return {
    layers,
    gradient: layers.map((layer, i) => ({
      weightGradient: problem.weightGradient(layer.weight),
      ...("gamma" in layer ? problem.normGradient(`${prefix}.${i + 1}`, layer.convolution.c) : {}),
    })),
    // F and G of a reversible block share these.
    hidden: layers
      .slice(0, -1)
      .map(({ convolution }, i) => problem.output(`hidden${i + 1}`, outputElements(convolution), "hidden")),
    elements: outputElements((layers.at(-1) as { convolution: Convolution }).convolution),
  };
}

/** The problem of a case; another `attempt` draws other values. */
export function generate({ family, seed, stream, shifted, ...parameters }: Case, attempt = 0): Problem {
  const problem = new Problem(seed + 7919 * attempt);
  (generators[family] as Generator<Family>)(problem, parameters as never, stream);
  if (shifted) for (const tensor of problem.tensors.values()) tensor.shifted = isNumber(tensor.type);
  return problem;
}

/** One line that says which case it is. */
export function title({ family, seed, ...parameters }: Case): string {
  const shown = Object.entries(parameters).filter(([, value]) => value !== false);
  return `${family} ${shown.map(([name, value]) => (value === true ? name : `${name}=${value}`)).join(" ")} (seed ${seed})`;
}

/**
 * What a training step costs on a GPU by arithmetic alone: for every kernel that it launches, the bytes it has to move through
 * device memory at least (each tensor once, whatever the caches do) and its multiplications and additions. With a GPU's limits,
 * the least time that this takes.
 *
 *   node bench/roofline.mjs MODEL... [--batch-size 100] [--activations reversible] [--precision tf32] [--bandwidth 4.8e12]
 *                           [--flops N] [--launch 2.5e-6]
 *
 * `bandwidth` in bytes/s, `flops` of convolutions a second, `launch`: the least time that a kernel of a graph takes, in seconds. The
 * defaults are the data sheet's numbers of an H200, its matrix units at the 0.6 that mma.sync can reach of them. This is no
 * measurement: it is what measurements are to be compared with.
 */
import { parseArgs } from "node:util";
import buffersModule from "../dist/network/buffers.js";
import modelsModule from "../dist/network/models.js";
import programModule from "../dist/network/program.js";
import topologyModule from "../dist/network/topology.js";

const RATES = { float32: 60e12, tf32: 0.6 * 494e12, bfloat16: 0.6 * 989e12 };

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    "batch-size": { type: "string", default: "100" },
    activations: { type: "string", default: "reversible" },
    precision: { type: "string", default: "tf32" },
    bandwidth: { type: "string", default: "4.8e12" },
    flops: { type: "string" },
    launch: { type: "string", default: "2.5e-6" },
  },
});
const n = Number(values["batch-size"]);
const bandwidth = Number(values.bandwidth);
const rate = Number(values.flops ?? RATES[values.precision]);
const launch = Number(values.launch);

const FLOAT = 4;
const outEdge = ({ kernel, stride }, size) => Math.floor((size + 2 * Math.floor(kernel / 2) - kernel) / stride) + 1;
const shapeOf = (c) => ({
  input: c.n * c.h * c.w * c.c,
  output: c.n * outEdge(c, c.h) * outEdge(c, c.w) * c.k,
  weights: c.kernel ** 2 * c.c * c.k,
});
const flopsOf = (c) => 2 * shapeOf(c).output * c.kernel ** 2 * c.c;

/** Blocks that share the pixels in the weights' gradient: planBackwardWeights of native/cuda/weights_gradient.cu. */
function splits(c) {
  const up = (a, b) => Math.ceil(a / b);
  let columns = 64;
  while (columns > 16 && columns / 2 >= c.k) columns /= 2;
  let chunk = c.kernel === 1 ? 64 : 32;
  while (chunk > 16 && chunk / 2 >= c.c) chunk /= 2;
  const itemsPerTap = (chunk / 16) * (columns / Math.min(columns, 32));
  const parts = up(c.kernel ** 2, Math.floor(36 / itemsPerTap)) * up(c.c, chunk) * up(c.k, columns);
  return Math.max(1, Math.min(up(128, parts), up(up(shapeOf(c).output / c.k, 64), 2)));
}

const prepare = (layers, directions) => ({
  kernel: "prepare",
  bytes: layers.reduce((sum, { convolution }) => sum + shapeOf(convolution).weights * FLOAT * 2 * directions, 0),
});

/** y = base + q(F(x)), or without the addition. */
function forward(layers, adds) {
  return layers.map(({ convolution }, i) => {
    const { input, output } = shapeOf(convolution);
    const base = adds && i === layers.length - 1 ? output : 0;
    return { kernel: "convolve, forward", bytes: FLOAT * (input + output + base), flops: flopsOf(convolution) };
  });
}

function backward(layers) {
  const kernels = [];
  let partials = 0;
  for (let i = layers.length - 1; i >= 0; i--) {
    const { convolution, norm } = layers[i];
    const { input, output, weights } = shapeOf(convolution);
    // The gradient of an inner tensor is read through the norm above it: dz and the tensor itself.
    const gradient = i === layers.length - 1 ? output : 2 * output;
    const split = splits(convolution);
    const flops = flopsOf(convolution);
    kernels.push({ kernel: "weights gradient", bytes: FLOAT * (input + gradient + weights * split), flops });
    kernels.push({ kernel: "convolve, backward data", bytes: FLOAT * (gradient + input + (norm === null ? 0 : input)), flops });
    if (split > 1) partials += weights * (split + 1);
  }
  const { input } = shapeOf(layers[0].convolution);
  if (partials > 0) kernels.push({ kernel: "sum of partial weights", bytes: FLOAT * partials });
  kernels.push({ kernel: "add gradient", bytes: FLOAT * input * (layers[0].statistics === undefined ? 3 : 4) });
  return kernels;
}

const elements = ({ n, h, w, c }) => n * h * w * c;
const shortcutBytes = ({ extent, k, stride }) => FLOAT * (elements(extent) + (elements(extent) / extent.c / stride ** 2) * k);
const pooled = ({ n, h, w, c }) => n * (Math.floor((h - 1) / 2) + 1) * (Math.floor((w - 1) / 2) + 1) * c;
const linear = ({ n, in: inputs, out }) => ({ bytes: FLOAT * (n * inputs + inputs * out + n * out), flops: 2 * n * inputs * out });

/** The kernels of an op, as native/cuda launches them. */
const KERNELS = {
  gatherBatch: (op) => [{ kernel: "gather", bytes: 5 * elements(op) }],
  convolutionForward: (op) => [prepare([op], 1), ...forward([op], false)],
  convolutionBackwardData: (op) => {
    const { input, output } = shapeOf(op.convolution);
    return [
      prepare([op], 1),
      { kernel: "convolve, backward data", bytes: FLOAT * (input + output), flops: flopsOf(op.convolution) },
    ];
  },
  convolutionBackwardWeights: (op) => {
    const { input, output, weights } = shapeOf(op.convolution);
    const split = splits(op.convolution);
    return [
      { kernel: "prepare", bytes: 0 },
      { kernel: "weights gradient", bytes: FLOAT * (input + output + weights * split), flops: flopsOf(op.convolution) },
      ...(split > 1 ? [{ kernel: "sum of partial weights", bytes: FLOAT * weights * (split + 1) }] : []),
    ];
  },
  batchNormReluForward: (op) => [{ kernel: "batch norm", bytes: FLOAT * 2 * elements(op) }],
  batchNormReluBackward: (op) => [
    { kernel: "batch norm, backward sums", bytes: FLOAT * 2 * elements(op) },
    { kernel: "batch norm, backward", bytes: FLOAT * 3 * elements(op) },
  ],
  updateRunningStatistics: () => [{ kernel: "running statistics", bytes: 0 }],
  shortcutForward: (op) => [{ kernel: "shortcut", bytes: shortcutBytes({ extent: op, ...op }) }],
  shortcutBackward: (op) => [{ kernel: "shortcut", bytes: shortcutBytes({ extent: op, ...op }) }],
  maxPoolForward: (op) => [{ kernel: "max pool", bytes: FLOAT * elements(op) + 5 * pooled(op) }],
  maxPoolBackward: (op) => [{ kernel: "max pool", bytes: FLOAT * elements(op) + 5 * pooled(op) }],
  globalAveragePoolForward: (op) => [{ kernel: "average pool", bytes: FLOAT * elements(op) * op.parts.length }],
  globalAveragePoolBackward: (op) => [
    { kernel: "average pool, backward sums", bytes: FLOAT * elements(op) * op.parts.length },
    { kernel: "average pool, backward", bytes: FLOAT * 2 * elements(op) * op.parts.length },
  ],
  linearForward: (op) => [{ kernel: "linear", ...linear(op) }],
  linearBackward: (op) => [1, 2].map(() => ({ kernel: "linear", ...linear(op) })),
  softmaxCrossEntropy: (op) => [{ kernel: "cross-entropy", bytes: FLOAT * 2 * op.n * op.classes }],
  residualForward: (op) => [prepare(op.function, 1), ...forward(op.function, true)],
  residualBackward: (op) => [prepare(op.function, 1), ...backward(op.function)],
  reversibleForward: (op) => [prepare([...op.f, ...op.g], 1), ...forward(op.f, true), ...forward(op.g, true)],
  reversibleBackward: (op) => [
    prepare([...op.f, ...op.g], 2),
    ...[op.g, op.f].flatMap((layers) => [...forward(layers, true), ...backward(layers)]),
  ],
  sgdUpdate: (op) => [{ kernel: "sgd", bytes: FLOAT * 5 * op.elements }],
  copy: (op) => [{ kernel: "copy", bytes: FLOAT * 2 * op.elements }],
};

const gigabytes = (bytes) => (bytes / 1e9).toFixed(3);
const milliseconds = (seconds) => (seconds * 1e3).toFixed(3);

for (const model of positionals.length > 0 ? positionals : ["revnet-38"]) {
  const spec = modelsModule.resolveModel(model);
  const topology = topologyModule.buildTopology(spec);
  const buffers = new buffersModule.NetworkBuffers(topology);
  const [h, w, c] = spec.input;
  const images = buffers.add({ name: "images", type: "byte", elements: n * h * w * c, category: "data" });
  const labels = buffers.add({ name: "labels", type: "index", elements: n, category: "data" });
  const source = { type: "dataset", images, labels, count: n, padding: 4, flip: true, scale: 1 / 255 };
  const { ops } = programModule.trainingProgram(topology, buffers, {
    n,
    activations: values.activations,
    streams: "fixed",
    source,
  });

  const rows = new Map();
  // Updates of running statistics that follow one another are one launch for up to 64.
  const alone = ops.filter(({ op }, i) => op !== "updateRunningStatistics" || ops[i - 1].op !== op);
  for (const kernel of alone.flatMap((op) => KERNELS[op.op](op))) {
    const { bytes, flops = 0 } = kernel;
    const row = rows.get(kernel.kernel) ?? { launches: 0, bytes: 0, flops: 0, least: 0 };
    rows.set(kernel.kernel, {
      launches: row.launches + 1,
      bytes: row.bytes + bytes,
      flops: row.flops + flops,
      least: row.least + Math.max(launch, bytes / bandwidth, flops / rate),
    });
  }
  const sum = (key) => [...rows.values()].reduce((total, row) => total + row[key], 0);
  console.log(`\n${model}, batch ${n}, ${values.activations}, ${values.precision}: ${ops.length} ops\n`);
  console.log("| kernel | launches | GB | GFLOP | least time, ms |\n|---|---:|---:|---:|---:|");
  for (const [kernel, row] of [...rows].sort(([, a], [, b]) => b.least - a.least))
    console.log(
      `| ${kernel} | ${row.launches} | ${gigabytes(row.bytes)} | ${(row.flops / 1e9).toFixed(2)} | ${milliseconds(row.least)} |`,
    );
  console.log(
    `| all | ${sum("launches")} | ${gigabytes(sum("bytes"))} | ${(sum("flops") / 1e9).toFixed(2)} | ${milliseconds(sum("least"))} |`,
  );
}

/**
 * How near do a device's gradients come to those of float64? On one batch, for every arithmetic and way of storing: the relative error
 * of all gradients taken together, and of the worst tensor. Beside them PyTorch's under autocast to bfloat16, with the same weights.
 *
 *   node bench/gradients.mjs MODEL|GOLDEN.safetensors... [--device cuda] [--batch-size 8] [--steps 0] [--peer PEER.py] [--python PROGRAM]
 *
 * A MODEL has its initial weights, after so many steps of training on drawn shapes on the CPU, and a batch of those; a golden file (as
 * test/network/golden.test.ts reads) brings weights, batch and PyTorch's float64 gradients.
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import safetensorsModule from "../dist/formats/safetensors.js";
import { createNetwork, openDataset } from "../dist/index.mjs";
import modelsModule from "../dist/network/models.js";

const { readSafetensors, writeSafetensors } = safetensorsModule;
const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    device: { type: "string", default: "cuda" },
    "batch-size": { type: "string", default: "8" },
    steps: { type: "string", default: "0" },
    peer: { type: "string" },
    python: { type: "string", default: "python3" },
  },
});
const [n, steps] = [values["batch-size"], values.steps].map(Number);
const { device } = values;

const VARIANTS = [
  { title: "float32", options: { device } },
  { title: "tf32", options: { device, precision: "tf32" } },
  {
    title: "bfloat16, gradients of streams in float32",
    options: { device, precision: "bfloat16", streamGradients: "float32" },
  },
  { title: "bfloat16", options: { device, precision: "bfloat16" } },
];

/** Images [n][c][h][w] or [n][h][w][c] the other way. */
function transposed(data, [count, a, b]) {
  const result = new Float64Array(data.length);
  for (let i = 0; i < count; i++)
    for (let j = 0; j < a; j++) for (let k = 0; k < b; k++) result[(i * b + k) * a + j] = Number(data[(i * a + j) * b + k]);
  return result;
}

async function gradientsOf({ spec, weights, images, labels }, options) {
  const network = await createNetwork(spec, options);
  network.setParameters(weights);
  const { gradients } = await network.lossAndGradients(images, labels);
  network.dispose();
  return gradients;
}

async function golden(file) {
  const { metadata, tensors } = await readSafetensors(file);
  const under = (prefix) =>
    new Map([...tensors].filter(([name]) => name.startsWith(prefix)).map(([name, tensor]) => [name.slice(prefix.length), tensor]));
  const { shape, data } = tensors.get("images");
  return {
    spec: JSON.parse(metadata.get("spec")),
    weights: under("weights."),
    images: transposed(data, [shape[0], shape[1], shape[2] * shape[3]]),
    labels: Array.from(tensors.get("labels").data, Number),
    expected: under("gradients."),
  };
}

async function drawn(model) {
  const spec = modelsModule.resolveModel(model);
  const { train } = await openDataset("shapes", { trainCount: 2000, testCount: 10 });
  const network = await createNetwork(spec, { device: "cpu", seed: 0 });
  const elements = train.images.length / train.count;
  const preprocessing = { mean: new Float32Array(elements).fill(128), scale: 1 / 64 };
  network.preprocessing = preprocessing;
  if (steps > 0) {
    const step = await network.prepareTraining({ batchSize: 50, data: train });
    for (let i = 0; i < steps; i++) {
      const indices = Int32Array.from({ length: 50 }, (_, j) => (50 * i + j) % train.count);
      await step.run({ learningRate: 0.1, momentum: 0.9, weightDecay: 2e-4, seed: 0, step: i, indices });
    }
    await network.refreshParameters();
  }
  const weights = new Map([...network.parameters].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]));
  network.dispose();
  const images = Float64Array.from(train.images.subarray(0, n * elements), (value) => (value - 128) / 64);
  const labels = Array.from(train.labels.subarray(0, n));
  const problem = { spec, weights, images, labels };
  return { ...problem, expected: await gradientsOf(problem, { device: "reference" }) };
}

/** PyTorch's gradients under autocast to bfloat16. */
async function peerGradients({ spec, weights, images, labels }) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "gradients-"));
  const here = path.dirname(fileURLToPath(import.meta.url));
  const [h, w, c] = spec.input;
  const nchw = transposed(images, [labels.length, h * w, c]);
  const tensors = new Map(
    [...weights].map(([name, { shape, data }]) => [`weights.${name}`, { shape, data: Float32Array.from(data) }]),
  );
  tensors.set("images", { shape: [labels.length, c, h, w], data: Float32Array.from(nchw) });
  tensors.set("labels", { shape: [labels.length], data: Float32Array.from(labels) });
  await writeSafetensors(path.join(folder, "problem.safetensors"), tensors, { spec: JSON.stringify(spec) });
  const { status } = spawnSync(values.python, [path.join(here, "gradients_peer.py"), values.peer, folder], { stdio: "inherit" });
  if (status !== 0) throw new Error("the peer failed");
  const { tensors: result } = await readSafetensors(path.join(folder, "gradients.safetensors"));
  fs.rmSync(folder, { recursive: true });
  return result;
}

/** ||a - b|| / ||b||, of all tensors together and of the worst. */
function errorOf(actual, expected) {
  let [difference, norm, worst] = [0, 0, 0];
  for (const [name, { data }] of expected) {
    const own = actual.get(name).data;
    let [d, m] = [0, 0];
    for (let i = 0; i < data.length; i++) {
      d += (own[i] - data[i]) ** 2;
      m += data[i] ** 2;
    }
    [difference, norm, worst] = [difference + d, norm + m, Math.max(worst, Math.sqrt(d / m))];
  }
  return [Math.sqrt(difference / norm), worst].map((error) => error.toExponential(1)).join("; ");
}

const titles = [...VARIANTS.map(({ title }) => title), ...(values.peer ? ["PyTorch, autocast to bfloat16"] : [])];
console.log(`| gradients of | ${titles.join(" | ")} |\n|---|${"---|".repeat(titles.length)}`);
for (const name of positionals.length > 0 ? positionals : ["revnet-38"]) {
  const problem = name.endsWith(".safetensors") ? await golden(name) : await drawn(name);
  const cells = [];
  for (const { options } of VARIANTS) cells.push(errorOf(await gradientsOf(problem, options), problem.expected));
  if (values.peer) cells.push(errorOf(await peerGradients(problem), problem.expected));
  console.log(`| ${problem.spec.name}, batch ${problem.labels.length} | ${cells.join(" | ")} |`);
}

/**
 * How exact is reversing? For both stream arithmetics: train, and now and then invert every reversible block and compare the
 * gradients of reversible mode with those of stored mode on the same batch, block by block (the paper's research question 4).
 *
 *   node bench/numerics.mjs MODEL DATA_DIR [--steps 200] [--every 50] [--batch-size 100] [--threads N]
 *
 * DATA_DIR holds CIFAR-10's binary files. Prints the tables of docs/numerics.md.
 */
import { parseArgs } from "node:util";
import { createNetwork, openDataset } from "../dist/index.mjs";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    steps: { type: "string", default: "200" },
    every: { type: "string", default: "50" },
    "batch-size": { type: "string", default: "100" },
    threads: { type: "string" },
  },
});
const [model = "revnet-110", dataDir] = positionals;
const [steps, every, n] = [values.steps, values.every, values["batch-size"]].map(Number);
const threads = values.threads === undefined ? {} : { threads: Number(values.threads) };

const dataset = await openDataset("cifar-10", { dataDir });
const { train } = dataset;
const imageBytes = train.images.length / train.count;
const mean = new Float32Array(imageBytes);
for (let i = 0; i < train.images.length; i++) mean[i % imageBytes] += train.images[i] / train.count;

/** Degrees between two gradients, given as lists of tensors; NaN where one is not finite. */
function angle(a, b) {
  let aa = 0;
  let bb = 0;
  for (let t = 0; t < a.length; t++)
    for (let i = 0; i < a[t].length; i++) {
      aa += a[t][i] ** 2;
      bb += b[t][i] ** 2;
    }
  // From the difference of the unit vectors: acos loses all digits near 1.
  let chord = 0;
  for (let t = 0; t < a.length; t++)
    for (let i = 0; i < a[t].length; i++) chord += (a[t][i] / Math.sqrt(aa) - b[t][i] / Math.sqrt(bb)) ** 2;
  return (2 * Math.asin(Math.min(1, Math.sqrt(chord) / 2)) * 180) / Math.PI;
}

const blockOf = (name) => /^stages\.(\d+)\.(\d+)\./.exec(name)?.slice(1, 3).join(".");

async function measure(network, images, normalized, labels) {
  const { blocks } = await network.reconstruct(images);
  const reversible = await network.lossAndGradients(normalized, labels, { activations: "reversible" });
  const stored = await network.lossAndGradients(normalized, labels, { activations: "stored" });
  const perBlock = new Map();
  for (const [name, { data }] of reversible.gradients) {
    const block = blockOf(name);
    if (block === undefined) continue;
    const pair = perBlock.get(block) ?? perBlock.set(block, [[], []]).get(block);
    pair[0].push(data);
    pair[1].push(stored.gradients.get(name).data);
  }
  return blocks.map(({ stage, block, error }) => ({
    name: `${stage}.${block}`,
    error,
    angle: angle(...perBlock.get(`${stage}.${block}`)),
  }));
}

async function study(streams) {
  const network = createNetwork(model, { device: "cpu", seed: 0, streams, ...threads });
  network.preprocessing = { mean, scale: 1 / 255 };
  const step = await network.prepareTraining({ batchSize: n, activations: "reversible", data: train, padding: 2, flip: true });
  const images = train.images.slice(0, n * imageBytes);
  const labels = train.labels.slice(0, n);
  const normalized = Float32Array.from(images, (value, i) => (value - mean[i % imageBytes]) / 255);
  const rows = [];
  for (let done = 0; done <= steps; done++) {
    if (done % every === 0) rows.push({ step: done, blocks: await measure(network, images, normalized, labels) });
    if (done === steps) break;
    const indices = Int32Array.from({ length: n }, (_, i) => (done * n + i) % train.count);
    await step.run({ learningRate: 0.1, momentum: 0.9, weightDecay: 2e-4, seed: 0, step: done, indices });
  }
  network.dispose();
  return rows;
}

const exponent = (x) => (x === 0 ? "0" : x.toExponential(1));
const results = { float32: await study("float32"), fixed: await study("fixed") };

console.log(`${model}, batch ${n}, learning rate 0.1: largest over the reversible blocks\n`);
console.log(
  "| after steps | float32: reconstruction error | float32: gradient angle | fixed: reconstruction error | fixed: gradient angle |",
);
console.log("|---|---|---|---|---|");
const largest = (row, key) => exponent(Math.max(...row.blocks.map((block) => block[key])));
results.float32.forEach((row, i) => {
  const exact = results.fixed[i];
  console.log(
    `| ${row.step} | ${largest(row, "error")} | ${largest(row, "angle")}° | ${largest(exact, "error")} | ${largest(exact, "angle")}° |`,
  );
});
console.log(
  `\nBy block after ${steps} steps\n\n| block | float32: error | float32: angle | fixed: error | fixed: angle |\n|---|---|---|---|---|`,
);
results.float32.at(-1).blocks.forEach((block, i) => {
  const exact = results.fixed.at(-1).blocks[i];
  console.log(
    `| ${block.name} | ${exponent(block.error)} | ${exponent(block.angle)}° | ${exponent(exact.error)} | ${exponent(exact.angle)}° |`,
  );
});

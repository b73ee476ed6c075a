// Does anything hold up the event loop? The delay of its turns while networks train, data is drawn and the live page is made, and how long
// calls take that are to return at once: node bench/event-loop.mjs [DEVICE of the large network]
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createNetwork, loadNetwork, openDataset, trainRevNet } from "revnet";
import sharp from "sharp";
import { LiveRun } from "../dist/report/live.js";

const folder = await mkdtemp(path.join(tmpdir(), "revnet-bench-event-loop-"));

const show = (name, ...figures) =>
  console.log(`${name.padEnd(36)} ${figures.map((milliseconds) => milliseconds.toFixed(1).padStart(8)).join("")}`);

/** Prints the delay of the event loop's turns while `body` runs. */
async function delays(name, body) {
  const delay = monitorEventLoopDelay({ resolution: 2 });
  // It sees a turn between two of its own, hence not the first and the last.
  const turns = () => new Promise((resolve) => setTimeout(resolve, 10));
  delay.enable();
  await turns();
  await body();
  await turns();
  delay.disable();
  show(name, delay.percentile(50) / 1e6, delay.percentile(99) / 1e6, delay.max / 1e6);
}

/** Prints how long `call` takes, over many calls. */
async function durations(name, count, call) {
  const sorted = [];
  for (let i = 0; i < count; i++) sorted.push(await call(i));
  sorted.sort((a, b) => a - b);
  show(name, sorted[count >> 1], sorted[Math.floor(0.99 * count)], sorted.at(-1));
}

const timed = (body) => {
  const start = performance.now();
  body();
  return performance.now() - start;
};

async function train(options) {
  (await trainRevNet(options)).network.dispose();
}

async function writeImages(count) {
  for (const [label, name] of ["a", "b", "c"].entries()) {
    await mkdir(path.join(folder, "images", name), { recursive: true });
    for (let i = 0; i < count; i++) {
      const pixels = Uint8Array.from({ length: 60 * 45 * 3 }, (_, at) => (at * (label + 2) + 31 * i) % 256);
      const file = await sharp(pixels, { raw: { width: 60, height: 45, channels: 3 } })
        .jpeg()
        .toBuffer();
      await writeFile(path.join(folder, "images", name, `${i}.jpg`), file);
    }
  }
}

console.log(`${"milliseconds".padEnd(36)} ${["median", "p99", "max"].map((name) => name.padStart(8)).join("")}`);

await delays("drawing 2,000 shapes", () => openDataset("shapes", { trainCount: 2000, testCount: 10 }));
const shapes = await openDataset("shapes", { trainCount: 2000, testCount: 100 });
const common = { steps: 15, validateEvery: 10 };
await delays("training revnet-38, files written", () =>
  train({ ...common, model: "revnet-38", data: shapes, batchSize: 20, outDir: path.join(folder, "run") }),
);

await writeImages(40);
const small = { name: "small", kind: "revnet", stem: "cifar", input: [48, 48, 3], classes: 3, units: [2, 2], strides: [1, 2] };
await delays("training on image files", () =>
  train({
    ...common,
    model: { ...small, filters: [16, 16, 32], bottleneck: false },
    data: "image-folder",
    dataDir: path.join(folder, "images"),
    batchSize: 32,
    augment: { padding: 0, flip: true, resizedCrop: 0.3 },
    outDir: path.join(folder, "images-run"),
  }),
);

// 45 million parameters, which nothing may go through, copy or make in one go.
const large = "revnet-104";
const largeFile = path.join(folder, "large.safetensors");
const device = process.argv[2] ?? "cpu";
let network;
await delays(`making ${large}`, async () => {
  network = createNetwork(large, { device });
});
await delays(`saving ${large}`, () => network.save(largeFile));
network.dispose();
await delays(`loading ${large}`, async () => {
  network = await loadNetwork(largeFile, { device });
});
await delays(`exporting ${large}`, () => network.exportOnnx(path.join(folder, "large.onnx")));
network.dispose();
const photo = new Uint8Array(224 * 224 * 3);
const photos = (count) => ({ count, images: new Uint8Array(count * photo.length), labels: new Int32Array(count) });
const classes = Array.from({ length: 1000 }, (_, i) => `class ${i}`);
await delays(`${large} until the start of training`, async () => {
  const abort = new AbortController();
  const data = { name: "photos", shape: [224, 224, 3], classes, train: photos(8), test: photos(2) };
  const run = trainRevNet({ model: large, data, batchSize: 2, steps: 1, device, signal: abort.signal });
  run.catch(() => {});
  for await (const { type } of run) if (type === "start") break;
  abort.abort();
});

const memory = { parameters: 0, gradients: 0, optimizer: 0, activations: 0, workspace: 0, data: 0, total: 0 };
const config = { model: { name: "x", units: [1] }, batchSize: 1, steps: 600_000 };
const live = new LiveRun({ folder: undefined, config, settings: {}, memory, resumedFrom: 0 });
for (let step = 1; step <= 600_000; step++)
  live.take({ type: "step", step, loss: 1, error: 0.5, learningRate: 0.1, milliseconds: 1 });
await durations("live page after 600,000 steps", 100, () => timed(() => live.content()));

const pixels = new Uint8Array(20 * 32 * 32 * 3);
const labels = new Int32Array(20);
await durations("disposing while a step runs", 30, async (i) => {
  const network = createNetwork("revnet-110", { seed: i });
  const step = await network.prepareTraining({ batchSize: 20 });
  const running = step
    .run({ learningRate: 0.1, momentum: 0.9, weightDecay: 0, seed: 1, step: 0, images: pixels, labels })
    .catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, i));
  const duration = timed(() => network.dispose());
  await running;
  return duration;
});

await rm(folder, { recursive: true });

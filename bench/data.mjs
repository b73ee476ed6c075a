// Does reading image files keep the training step busy? Trains in turns from the JPEG files of a folder and from its pack, and
// compares the throughput: node bench/data.mjs [MODEL] [BATCH] [STEPS] [ROUNDS]
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { packFolder, resolveModel, trainRevNet } from "revnet";
import sharp from "sharp";

const [model = "revnet-56", batch = "8", steps = "12", rounds = "3"] = process.argv.slice(2);
const folder = await mkdtemp(path.join(tmpdir(), "revnet-bench-data-"));
const [width, height] = [500, 375]; // ImageNet's most frequent size

for (const [label, name] of ["a", "b"].entries()) {
  await mkdir(path.join(folder, name));
  for (let i = 0; i < 60; i++) {
    const pixels = new Uint8Array(width * height * 3);
    for (let at = 0; at < pixels.length; at++)
      pixels[at] = 128 + 60 * Math.sin(at / (20 + 40 * label + i) + (at % 3)) + 40 * (Math.random() - 0.5);
    const file = await sharp(pixels, { raw: { width, height, channels: 3 } })
      .jpeg({ quality: 90 })
      .toBuffer();
    await writeFile(path.join(folder, name, `${i}.jpg`), file);
  }
}

async function rate() {
  const run = await trainRevNet({
    model,
    data: "image-folder",
    dataDir: folder,
    batchSize: Number(batch),
    steps: Number(steps),
    testCount: 2,
  });
  run.network.dispose();
  // The first steps wait for the first batches; then the whole of the rest counts, not a median, which would hide waiting.
  const timed = run.history.steps.slice(2);
  return (1000 * Number(batch) * timed.length) / timed.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
}

const pack = path.join(folder, `revnet-${resolveModel(model).input.join("x")}.pack`);
const fromFiles = async () => {
  await rm(pack, { force: true });
  return rate();
};
const fromPack = async () => {
  await packFolder(folder, resolveModel(model).input);
  return rate();
};
// In turns, so that whatever else the machine does meets both; the ratio is that of two trainings one after the other.
const pairs = [];
for (let round = 0; round < Number(rounds); round++) {
  if (round % 2 === 0) pairs.push({ files: await fromFiles(), packed: await fromPack() });
  else {
    const packed = await fromPack();
    pairs.push({ files: await fromFiles(), packed });
  }
}
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const line = (name, values) =>
  `${name.padEnd(17)}  ${values.map((v) => v.toFixed(2)).join("  ")}  median ${median(values).toFixed(3)}`;
console.log(
  line(
    "files, images/s",
    pairs.map(({ files }) => files),
  ),
);
console.log(
  line(
    "packed, images/s",
    pairs.map(({ packed }) => packed),
  ),
);
console.log(
  line(
    "files / packed",
    pairs.map(({ files, packed }) => files / packed),
  ),
);
await rm(folder, { recursive: true });

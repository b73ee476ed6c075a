// Trains on a folder of images, one subfolder for each class: node examples/own-folder.mjs DIR [OUT]
// Without DIR it draws itself a folder: discs and squares.
import { mkdir, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { openDataset, trainRevNet } from "revnet";
import sharp from "sharp";

const [dataDir = await drawFolder(), outDir = path.join(dataDir, "run")] = process.argv.slice(2);
const steps = Number(process.env.STEPS ?? 100);
const shape = [64, 64, 3]; // what images of any size are resized and cropped to

// How many classes there are decides the network's last layer.
const data = await openDataset("image-folder", { dataDir, shape });
console.log(`${data.train.count} images to train on, ${data.test.count} to validate, of ${data.classes.join(", ")}`);

const run = trainRevNet({
  model: {
    name: "own-folder",
    kind: "revnet",
    stem: "cifar",
    input: shape,
    classes: data.classes.length,
    filters: [16, 32, 64, 96],
    units: [2, 2, 2],
    strides: [2, 2, 2],
    bottleneck: false,
  },
  data,
  batchSize: 16,
  steps,
  optimizer: { learningRate: 0.05 },
  schedule: "cosine",
  augment: { padding: 0, flip: true, resizedCrop: 0.5 },
  outDir,
  resume: true, // stop it when you like: the same command goes on
});
for await (const event of run) {
  if (event.type === "brokenImage") console.log(`left out: ${event.file}: ${event.reason}`);
  if (event.type === "validation") console.log(`step ${event.step}: error ${(100 * event.error).toFixed(1)} %`);
}
const { network } = await run;
network.dispose();
await data.close();
console.log(`report: ${path.join(outDir, "report.html")}`);
console.log(`try it: npx revnet predict ${path.join(outDir, "model.safetensors")} IMAGE`);

async function drawFolder() {
  const folder = await mkdtemp(path.join(tmpdir(), "revnet-folder-"));
  for (const name of ["disc", "square"]) {
    await mkdir(path.join(folder, name));
    for (let i = 0; i < 60; i++) {
      const [x, y, r] = [30 + 36 * Math.random(), 30 + 36 * Math.random(), 12 + 14 * Math.random()];
      const [hue, ground] = [360 * Math.random(), 360 * Math.random()];
      const fill = `fill="hsl(${hue}, 80%, 60%)"`;
      const form = {
        disc: `<circle cx="${x}" cy="${y}" r="${r}" ${fill}/>`,
        square: `<rect x="${x - r}" y="${y - r}" width="${2 * r}" height="${2 * r}" ${fill}/>`,
      }[name];
      const svg = `<svg width="96" height="96"><rect width="96" height="96" fill="hsl(${ground}, 50%, 25%)"/>${form}</svg>`;
      await sharp(Buffer.from(svg))
        .jpeg()
        .toFile(path.join(folder, name, `${i}.jpg`));
    }
  }
  return folder;
}

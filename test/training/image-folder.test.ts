/** Training on a folder of images: what is broken is named, a resumed run is the same run, the ImageNet networks run. */
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { loadNetwork, memoryPlan, packFolder, type TrainingEvent, type TrainOptions, trainRevNet } from "../../lib/index.js";
import { rejection } from "../support/errors.js";
import { writeClasses } from "../support/pictures.js";
import { TINY_REVNET, tinyDataset } from "../support/tiny.js";

const MODEL = { ...TINY_REVNET, classes: 3 };
const AUGMENT = { padding: 0, flip: true, resizedCrop: 0.3 };

async function finish(options: TrainOptions) {
  const events: TrainingEvent[] = [];
  const run = trainRevNet({ device: "cpu", seed: 1, ...options });
  for await (const event of run) events.push(event);
  const { network, ...result } = await run;
  network.dispose();
  return { ...result, events };
}

describe("training on image files", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-streams-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("names 3 broken images among 1,000 in the summary, the events and the metrics", async () => {
    const data = path.join(folder, "data");
    await writeClasses(path.join(data, "train"), 330, 10, 10);
    await writeClasses(path.join(data, "val"), 4, 10, 10);
    await truncate(path.join(data, "train/blue/001.jpg"), 200);
    await writeFile(path.join(data, "train/red/150.png"), "");
    await writeFile(path.join(data, "val/green/002.webp"), "not an image");
    const out = path.join(folder, "run");
    const options = { model: MODEL, data: "image-folder", dataDir: data, batchSize: 33, epochs: 1, augment: AUGMENT } as const;
    const { summary, events } = await finish({ ...options, outDir: out });
    const names = summary.brokenImages.map(({ file }) => path.relative(data, file).split(path.sep).join("/")).sort();
    expect(names).to.deep.equal(["train/blue/001.jpg", "train/red/150.png", "val/green/002.webp"]);
    expect(events.filter(({ type }) => type === "brokenImage")).to.have.length(3);
    expect(events.some(({ type }) => type === "data")).to.equal(true);
    const written = JSON.parse(await readFile(path.join(out, "summary.json"), "utf8"));
    expect(written.brokenImages).to.deep.equal(summary.brokenImages);
    const lines = (await readFile(path.join(out, "metrics.jsonl"), "utf8")).trim().split("\n");
    expect(lines.filter((line) => JSON.parse(line).type === "brokenImage")).to.have.length(3);
    // Steps and validations go on around them.
    expect(summary.steps).to.equal(30);
    expect(summary.testError).to.be.within(0, 1);
    expect(await rejection(trainRevNet({ ...options, device: "cpu", brokenImages: "fail" }), "ERR_INVALID_DATA")).to.match(
      /(001\.jpg|150\.png|002\.webp): /,
    );
  });

  it("is the same run when it is resumed, from files or from a pack, reversible or stored", async () => {
    await writeClasses(folder, 12);
    await truncate(path.join(folder, "red/004.jpg"), 100);
    const options = {
      model: MODEL,
      data: "image-folder",
      dataDir: folder,
      batchSize: 8,
      augment: AUGMENT,
      epochs: 3,
      validationShare: 0.2,
      checkpointEvery: 2,
    } as const;
    const whole = await finish({ ...options, outDir: path.join(folder, ".whole") });
    expect(whole.summary.steps).to.equal(9);
    const out = path.join(folder, ".parts");
    for (const stopAt of [3, 6]) {
      const controller = new AbortController();
      const run = trainRevNet({ ...options, device: "cpu", seed: 1, outDir: out, resume: true, signal: controller.signal });
      const stopped = rejection(run, "ERR_ABORTED");
      for await (const event of run[Symbol.asyncIterator]()) {
        if (event.type !== "step" || event.step !== stopAt) continue;
        controller.abort();
        break;
      }
      await stopped;
    }
    // The rest from a pack, which is to change nothing.
    await packFolder(folder, [8, 8, 3]);
    const resumed = await finish({ ...options, outDir: out, resume: true });
    expect(resumed.summary.weightsSha256).to.equal(whole.summary.weightsSha256);
    expect(resumed.summary.brokenImages).to.deep.equal(whole.summary.brokenImages).and.to.have.length(1);
    const { checkpointEvery: _, ...rest } = options;
    const stored = await finish({ ...rest, activations: "stored", threads: 1 });
    expect(stored.summary.weightsSha256).to.equal(whole.summary.weightsSha256);
    // Without crops it is another run.
    const other = trainRevNet({
      ...options,
      device: "cpu",
      seed: 1,
      outDir: out,
      resume: true,
      augment: { padding: 0, flip: true },
    });
    await rejection(other, "ERR_RESUME_MISMATCH");
  });

  it("takes the memory that the plan says, whatever the number of images", async () => {
    await writeClasses(folder, 12);
    const { summary } = await finish({ model: MODEL, data: "image-folder", dataDir: folder, batchSize: 8, steps: 2 });
    expect(summary.memory.data).to.equal(memoryPlan(MODEL, { batchSize: 8, device: "cpu" }).data);
  });

  it("takes the memory that the plan says with verification, too, which changes nothing of the run", async () => {
    await writeClasses(folder, 12);
    const options = { model: MODEL, data: "image-folder", dataDir: folder, batchSize: 8, steps: 5, augment: AUGMENT } as const;
    const { summary } = await finish(options);
    const verified = await finish({ ...options, verifyEvery: 2 });
    expect(verified.summary.weightsSha256).to.equal(summary.weightsSha256);
    expect(verified.summary.memory).to.deep.equal(memoryPlan(MODEL, { batchSize: 8, device: "cpu", verify: true }));
    expect(verified.history.verifications.map(({ step, maxError, cosine }) => [step, maxError, cosine])).to.deep.equal([
      [2, 0, 1],
      [4, 0, 1],
    ]);
  });

  it("is verified on the images of the last step, also where that was before a resume", async () => {
    const { test, ...tiny } = tinyDataset();
    const image = (i: number) => ({ image: tiny.train.images.subarray(192 * i, 192 * (i + 1)), label: tiny.train.labels[i]! });
    const abort = new AbortController();
    let calls = 0;
    const source = (signalled: boolean) =>
      function* () {
        const call = calls++;
        for (let i = 0; i < 64; i++) {
          // The images of step 4 are asked for while step 3 runs, which is then done but not verified.
          if (signalled && call === 1 && i === 3 * 16) abort.abort();
          yield image(i);
        }
      };
    const options = (signalled: boolean) => ({
      model: TINY_REVNET,
      data: { ...tiny, train: source(signalled), test },
      batchSize: 16,
      steps: 6,
      // Their drift is a figure that depends on every pixel.
      streams: "float32" as const,
      verifyEvery: 3,
      augment: { padding: 1, flip: true },
    });
    const whole = await finish(options(false));
    calls = 0;
    const out = path.join(folder, "run");
    await rejection(trainRevNet({ device: "cpu", seed: 1, ...options(true), outDir: out, signal: abort.signal }), "ERR_ABORTED");
    const lines = (await readFile(path.join(out, "metrics.jsonl"), "utf8")).trim().split("\n");
    expect(lines.map((line) => JSON.parse(line).type)).to.deep.equal(["step", "step", "step"]);
    const resumed = await finish({ ...options(false), outDir: out, resume: true });
    const figures = ({ history }: typeof whole) => history.verifications.map(({ milliseconds: _, ...rest }) => rest);
    expect(figures(resumed).map(({ step }) => step)).to.deep.equal([3, 6]);
    expect(figures(whole)[0]!.maxError).to.be.greaterThan(0);
    expect(figures(resumed)).to.deep.equal(figures(whole));
  });

  it("keeps the classes' names in the model's file", async () => {
    await writeClasses(folder, 4);
    const out = path.join(folder, ".run");
    await finish({ model: MODEL, data: "image-folder", dataDir: folder, batchSize: 4, steps: 2, outDir: out });
    for (const file of ["model.safetensors", "checkpoints/best.safetensors"]) {
      const network = await loadNetwork(path.join(out, file), { device: "cpu" });
      expect(network.classNames, file).to.deep.equal(["blue", "green", "red"]);
      expect(() => {
        network.classNames = ["one"];
      }).to.throw(/expected 3 names/);
      network.dispose();
    }
  });

  for (const [model, steps] of [
    ["revnet-56", 2],
    ["resnet-50", 2],
    ["revnet-104", 1],
    ["resnet-101", 1],
  ] as const)
    it(`runs the ImageNet recipe of ${model} at 224x224`, async function () {
      this.timeout(180_000);
      await writeClasses(folder, 2, 300, 240);
      const { summary, history } = await finish({
        model,
        data: "image-folder",
        dataDir: folder,
        batchSize: 2,
        steps,
        testCount: 1,
      });
      expect(summary.steps).to.equal(steps);
      expect(history.steps.every(({ loss }) => Number.isFinite(loss))).to.equal(true);
      expect(summary.testError).to.be.within(0, 1);
      expect(summary.reconstruction.exact).to.equal(model.startsWith("revnet") ? true : null);
    });
});

/** A run that was stopped goes on with the same images, or says which have changed. */
import { copyFile, mkdtemp, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { packFolder, type TrainOptions, trainRevNet } from "../../lib/index.js";
import { rejection } from "../support/errors.js";
import { writeClasses } from "../support/pictures.js";
import { TINY_REVNET, tinyDataset, tinyOptions } from "../support/tiny.js";

describe("changed data", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-changed-"));
    await writeClasses(path.join(folder, "data"), 4, 8, 8);
  });
  afterEach(() => rm(folder, { recursive: true }));

  const options = (more: Partial<TrainOptions> = {}): TrainOptions => ({
    model: { ...TINY_REVNET, classes: 3 },
    data: "image-folder",
    dataDir: path.join(folder, "data"),
    device: "reference",
    batchSize: 3,
    steps: 6,
    augment: false,
    schedule: "constant",
    outDir: path.join(folder, "run"),
    ...more,
  });

  /** Stops after the fourth step: with three steps an epoch, all images were read. */
  async function stopped(more: Partial<TrainOptions> = {}): Promise<void> {
    const controller = new AbortController();
    const run = trainRevNet(options({ ...more, signal: controller.signal }));
    for await (const event of run) if (event.type === "step" && event.step === 4) controller.abort();
  }
  const stop = async (more: Partial<TrainOptions> = {}) => rejection(stopped(more), "ERR_ABORTED");
  async function resumed(more: Partial<TrainOptions> = {}) {
    const { network, summary } = await trainRevNet(options({ resume: true, ...more }));
    network.dispose();
    return summary;
  }
  const image = (name: string) => path.join(folder, "data", name);

  /** Another image of the same size, at the same time. */
  async function replace(name: string): Promise<void> {
    const { atime, mtime } = await stat(image(name));
    const bytes = await readFile(image(name));
    bytes[bytes.length >> 1]! ^= 1;
    await writeFile(image(name), bytes);
    await utimes(image(name), atime, mtime);
  }

  it("is named and refused, and goes on where it is accepted, which is recorded", async () => {
    await stop();
    await replace("green/000.png");
    const message = await rejection(resumed(), "ERR_RESUME_MISMATCH");
    expect(message).to.include("green/000.png has changed").and.include("acceptChangedData");
    const summary = await resumed({ acceptChangedData: true });
    expect(summary.steps).to.equal(6);
    expect(summary.dataChanges).to.have.length(1);
    expect(summary.dataChanges[0]).to.deep.include({ count: 1, changes: ["green/000.png has changed"] });
    // The step that was started ahead belongs to the run.
    expect(summary.dataChanges[0]!.step).to.be.within(4, 5);
    // From now on it is the run's.
    expect((await resumed()).dataChanges).to.deep.equal(summary.dataChanges);
  });

  it("is no change where files were copied, touched or linked: what they hold counts", async () => {
    await stop();
    await copyFile(image("red/001.jpg"), path.join(folder, "copy"));
    await rename(path.join(folder, "copy"), image("red/001.jpg"));
    await utimes(image("blue/000.png"), 1, 1);
    expect((await resumed()).dataChanges).to.deep.equal([]);
  });

  it("is no change where the file system composes accents in another way", async () => {
    await rename(image("red"), image("\u00e9"));
    await rename(image("\u00e9/000.png"), image("\u00e9/\u00fc.png"));
    const whole = await resumed({ outDir: path.join(folder, "whole") });
    await stop();
    await rename(image("\u00e9"), image("e\u0301"));
    await rename(image("e\u0301/\u00fc.png"), image("e\u0301/u\u0308.png"));
    const { dataChanges, weightsSha256 } = await resumed();
    expect(dataChanges).to.deep.equal([]);
    expect(weightsSha256).to.equal(whole.weightsSha256);
  });

  it("is named where files are new or gone", async () => {
    await stop();
    await rename(image("red/000.png"), image("red/new.png"));
    const message = await rejection(resumed(), "ERR_RESUME_MISMATCH");
    expect(message).to.include("red/000.png is gone").and.include("red/new.png is new");
  });

  it("is noticed in a pack as well", async () => {
    await packFolder(path.join(folder, "data"), [8, 8, 3]);
    await stop();
    const { network } = await trainRevNet(options({ resume: true, steps: 6 }));
    network.dispose();
    await rm(path.join(folder, "run"), { recursive: true });
    await stop();
    await copyFile(image("green/003.png"), image("green/000.png"));
    await packFolder(path.join(folder, "data"), [8, 8, 3]);
    expect(await rejection(resumed(), "ERR_RESUME_MISMATCH")).to.include("green/000.png has changed");
  });

  it("is refused in memory too, and accepted", async () => {
    const outDir = path.join(folder, "run");
    const data = tinyDataset();
    const first = await trainRevNet(tinyOptions({ data, outDir, steps: 2, checkpointEvery: 1 }));
    first.network.dispose();
    const changed = tinyDataset();
    changed.train.images[5]! ^= 1;
    const again = { data: changed, outDir, steps: 2, resume: true };
    expect(await rejection(trainRevNet(tinyOptions(again)), "ERR_RESUME_MISMATCH")).to.match(/images: was "[0-9a-f]{64}", now/);
    const { network, summary } = await trainRevNet(tinyOptions({ ...again, acceptChangedData: true }));
    network.dispose();
    expect(summary.dataChanges).to.have.length(1);
  });
});

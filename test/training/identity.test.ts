/** What a run can be resumed with: each option that changes the bits is part of its identity, and no other. */
import { expect } from "chai";
import type { AnyDataset, Dataset } from "../../lib/data/dataset.js";
import { createNetwork } from "../../lib/index.js";
import { checkIdentity, type Identity, identityOf } from "../../lib/training/identity.js";
import type { Settings } from "../../lib/training/options.js";
import { resolveOptions } from "../../lib/training/settings.js";
import { thrown } from "../support/errors.js";
import { TINY_RESNET, TINY_REVNET, tinyDataset, tinyOptions } from "../support/tiny.js";

const network = (spec = TINY_REVNET, device = "reference") => {
  const made = createNetwork(spec, { device, threads: 1 });
  made.dispose();
  return made;
};
const settings = (overrides: object = {}): Settings => resolveOptions(tinyOptions(overrides));
const identity = (overrides: object = {}, dataset: AnyDataset = tinyDataset(), steps = 6, of = network()) =>
  identityOf(settings(overrides), dataset, of, steps);

/** The differences that the message lists. */
const differences = (was: Identity, is: Identity): string =>
  thrown(() => checkIdentity("step-1", was, is)).message.replace(/^.*same run: |\. Give the options.*$/g, "");

describe("the identity of a run", () => {
  let plain: Identity;
  before(async () => {
    plain = await identity();
  });

  const changing: [what: string, overrides: object, difference: string][] = [
    ["the batch size", { batchSize: 8 }, "batchSize: was 16, now 8"],
    ["the seed", { seed: 1 }, "seed: was 0, now 1"],
    ["the learning rate", { optimizer: { learningRate: 0.06 } }, "optimizer.learningRate: was 0.05, now 0.06"],
    ["the optimizer", { optimizer: { type: "adamw" } }, 'optimizer.type: was "sgd", now "adamw"'],
    ["gradient clipping", { maxGradientNorm: 1 }, "maxGradientNorm: was not given, now 1"],
    ["how running statistics are estimated", { preciseBatchNorm: false }, "preciseBatchNorm: was true, now not given"],
    ["a warm-up", { schedule: { type: "constant", warmup: 0.5 } }, "schedule.warmup: was not given, now 0.5"],
    ["the schedule", { schedule: "cosine" }, 'schedule.type: was "constant", now "cosine"'],
    ["flips", { augment: { padding: 0, flip: true } }, "augment.flip: was false, now true"],
    ["random crops", { augment: { padding: 0, flip: false, resizedCrop: 0.5 } }, "augment.resizedCrop: was not given, now 0.5"],
    ["the precision", { precision: "tf32" }, 'precision: was "float32", now "tf32"'],
    ["patience", { patience: 3 }, 'patience: was not given, now 3; validateEvery: was not given, now "an epoch"'],
    ["how often it is validated, with patience", { patience: 3, validateEvery: 2 }, "validateEvery: was not given, now 2"],
  ];
  for (const [what, overrides, difference] of changing)
    it(`changes with ${what}`, async () => {
      expect(differences(plain, await identity(overrides))).to.include(difference);
    });

  const same: [what: string, overrides: object][] = [
    ["the number of threads", { threads: 3 }],
    ["the folder", { outDir: "elsewhere" }],
    ["how often it is validated, verified and kept", { validateEvery: 1, verifyEvery: 2, outDir: "x", checkpointEvery: 2 }],
    ["the live page", { ui: true }],
    ["what is the default anyway", { preciseBatchNorm: true, scaleLearningRate: true }],
    ["stored activations, where streams are exact", { activations: "stored" }],
  ];
  for (const [what, overrides] of same)
    it(`does not change with ${what}`, async () => {
      checkIdentity("step-1", plain, await identity(overrides));
    });

  it("changes with stored activations where a RevNet's streams drift", async () => {
    const drifting = { streams: "float32" };
    const was = await identity(drifting);
    expect(differences(was, await identity({ ...drifting, activations: "stored" }))).to.equal(
      'activations: was "reversible", now "stored"',
    );
    const resnet = network(TINY_RESNET);
    const [one, other] = await Promise.all(
      ["reversible", "stored"].map((activations) => identity({ ...drifting, activations }, tinyDataset(), 6, resnet)),
    );
    checkIdentity("step-1", one!, other!);
  });

  it("changes with the network, the steps and the device, but not with which of its kind it is", async () => {
    expect(differences(plain, await identity({}, tinyDataset(), 7))).to.equal("steps: was 6, now 7");
    const deeper = network({ ...TINY_REVNET, units: [2, 3] });
    expect(differences(plain, await identity({}, tinyDataset(), 6, deeper))).to.equal("model.units: was [2,2], now [2,3]");
    const cpu = network(TINY_REVNET, "cpu");
    const was = await identity({}, tinyDataset(), 6, cpu);
    expect(differences(plain, was)).to.equal('device: was "reference", now "cpu"');
    const numbered = (device: string) => identity({}, tinyDataset(), 6, { spec: cpu.spec, device } as typeof cpu);
    checkIdentity("step-1", await numbered("cuda:0"), await numbered("cuda:1"));
    // What a model recommends is no part of what it is.
    const recommended = { ...cpu, spec: { ...cpu.spec, recipe: { steps: 5 } }, device: "cpu" } as unknown as typeof cpu;
    checkIdentity("step-1", was, await identity({}, tinyDataset(), 6, recommended));
  });

  it("changes with any byte and any label of either split, and their number", async () => {
    const changed = async (change: (dataset: Dataset) => void) => {
      const dataset = tinyDataset();
      change(dataset);
      return differences(plain, await identity({}, dataset));
    };
    for (const split of ["train", "test"] as const) {
      for (const at of [0, 1000, -1])
        expect(
          await changed(({ [split]: { images } }) => {
            images[at < 0 ? images.length + at : at]! ^= 1;
          }),
          `${split} ${at}`,
        ).to.match(/^images: was "[0-9a-f]{64}", now "[0-9a-f]{64}"$/);
      expect(
        await changed(({ [split]: { labels } }) => {
          labels[labels.length - 1]! ^= 1;
        }),
      ).to.match(/^images: /);
    }
    expect(differences(plain, await identity({}, tinyDataset(64, 21)))).to.match(/^testCount: was 22, now 21; images: /);
    expect(differences(plain, await identity({}, { ...tinyDataset(), name: "other" }))).to.equal(
      'data: was "quadrants", now "other"',
    );
  });

  it("takes a stream's fingerprint for its images", async () => {
    const stream = (fingerprint: string, count = 64) => ({
      count,
      fingerprint,
      batches: () => {},
      inOrder: () => {},
      read: () => {},
    });
    const streamed = (train: string, test = "t") =>
      identity({}, { ...tinyDataset(), train: stream(train), test: stream(test, 22) } as unknown as AnyDataset);
    const was = await streamed("a");
    checkIdentity("step-1", was, await streamed("a"));
    for (const other of [await streamed("b"), await streamed("a", "u")]) expect(differences(was, other)).to.match(/^images: /);
  });

  it("is JSON, as a checkpoint keeps it", async () => {
    expect(JSON.parse(JSON.stringify(plain))).to.deep.equal(plain);
    checkIdentity("step-1", JSON.parse(JSON.stringify(plain)), plain);
  });

  it("is told apart with the file, every difference, and no more of a value than a line holds", () => {
    const error = thrown(() =>
      checkIdentity(
        "run/step-1",
        { a: 1, b: { c: [1], d: null }, e: "x".repeat(200) },
        { a: 2, b: { c: [1, 2], d: null }, f: true },
      ),
    );
    expect(error.code).to.equal("ERR_RESUME_MISMATCH");
    expect(error.message).to.include("'run/step-1'");
    expect(error.message).to.include(
      `a: was 1, now 2; b.c: was [1], now [1,2]; e: was "${"x".repeat(99)}..., now not given; f: was not given, now true. Give`,
    );
  });
});

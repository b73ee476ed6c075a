import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { loadNetwork, memoryPlan, type TrainingEvent, type TrainOptions, trainRevNet } from "../../lib/index.js";
import { rejection } from "../support/errors.js";
import { DEVICES, RUN_FILES, TINY_RESNET, TINY_REVNET, tinyDataset, tinyOptions, trainTiny } from "../support/tiny.js";

const [options, train] = [tinyOptions, trainTiny];

for (const device of DEVICES)
  describe(`training on ${device}`, function () {
    this.timeout(120_000);

    for (const model of [TINY_REVNET, TINY_RESNET])
      it(`teaches ${model.name} a simple task`, async () => {
        const { summary, history } = await train({ device, model, steps: 40, validateEvery: 20 });
        expect(history.steps).to.have.length(40);
        expect(history.steps[0]!.loss).to.be.within(0.7, 4);
        expect(summary.trainLoss).to.be.lessThan(0.5 * history.steps[0]!.loss);
        expect(summary.testError).to.be.at.most(0.1);
        expect(history.validations.map(({ step }) => step)).to.deep.equal([20, 40]);
        expect(history.validations.at(-1)!.error).to.equal(summary.testError);
        expect(history.epochs.map(({ epoch, step }) => [epoch, step])).to.deep.equal(
          Array.from({ length: 10 }, (_, i) => [i + 1, 4 * (i + 1)]),
        );
      });

    it("gives the same bits for the same seed, and others for another", async () => {
      const hash = async (seed: number) => (await train({ device, seed, augment: true })).summary.weightsSha256;
      const [a, b, c] = [await hash(3), await hash(3), await hash(4)];
      expect(a).to.equal(b);
      expect(a).to.not.equal(c);
    });

    it("gives the same bits with reversible and stored activations, for any number of threads", async () => {
      const hashes = new Set<string>();
      for (const activations of ["reversible", "stored"] as const)
        for (const threads of [1, 2, 3])
          hashes.add((await train({ device, activations, threads, augment: true })).summary.weightsSha256);
      expect(hashes.size).to.equal(1);
    });

    it("reconstructs exactly with fixed-point streams, not with float32 ones", async () => {
      const fixed = await train({ device });
      expect(fixed.summary.reconstruction).to.deep.equal({ exact: true, outOfRange: 0 });
      const float = await train({ device, streams: "float32" });
      expect(float.summary.reconstruction.exact).to.equal(false);
      expect((await train({ device, model: TINY_RESNET })).summary.reconstruction.exact).to.equal(null);
    });

    it("reports values that leave the range of the streams, and ends where they are too many", async () => {
      const events: TrainingEvent[] = [];
      // Throws the weights far out in one step.
      const optimizer = { learningRate: 1000, momentum: 0, weightDecay: 0 };
      const run = trainRevNet(options({ device, steps: 20, optimizer, schedule: "constant" }));
      const follow = async () => {
        for await (const event of run) events.push(event);
      };
      const message = await rejection(follow(), "ERR_OUT_OF_RANGE");
      expect(message).to.include("step 2").and.include("try a learning rate of 100 instead of 1,000");
      const outOfRange = events.filter((event) => event.type === "outOfRange");
      expect(outOfRange).to.have.length(1);
      expect(outOfRange[0]!.count).to.be.greaterThan(0);
    });

    it("counts the memory that the plan predicts", async () => {
      for (const activations of ["reversible", "stored"] as const) {
        const { summary } = await train({ device, activations });
        const plan = memoryPlan(TINY_REVNET, { batchSize: 16, activations, device, images: 64 });
        expect(summary.memory.activations).to.equal(plan.activations);
        expect(summary.memory.total).to.be.at.least(plan.total);
      }
    });
  });

describe("trainRevNet", function () {
  this.timeout(120_000);
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-train-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("sends the events of a run in order", async () => {
    const events: TrainingEvent[] = [];
    const run = trainRevNet(options({ steps: 5, validateEvery: 3 }));
    for await (const event of run) events.push(event);
    (await run).network.dispose();
    expect(events.map((event) => ("step" in event ? `${event.type} ${event.step}` : event.type))).to.deep.equal([
      "start",
      "step 1",
      "step 2",
      "step 3",
      "validation 3",
      "step 4",
      "epoch 4",
      "step 5",
      "validation 5",
      "done",
    ]);
    expect(events[0]).to.include({ steps: 5, stepsPerEpoch: 4, batchSize: 16 });
    expect(events.filter((event) => event.type === "step").map(({ epoch }) => epoch)).to.deep.equal([1, 1, 1, 1, 2]);
  });

  it("follows the schedule and the recipe of the model", async () => {
    const recipe = {
      batchSize: 8,
      steps: 8,
      optimizer: { learningRate: 0.4, momentum: 0.5, weightDecay: 0 },
      schedule: { type: "step", milestones: [0.5, 0.75], gamma: 0.1 },
      augment: { padding: 1, flip: true },
    } as const;
    const result = await trainRevNet({
      model: { ...TINY_REVNET, recipe },
      data: tinyDataset(),
      device: "reference",
      optimizer: { learningRate: 0.01 },
    });
    result.network.dispose();
    expect(result.summary).to.include({ steps: 8, batchSize: 8, epochs: 1 });
    expect(result.history.steps.map(({ learningRate }) => Number(learningRate.toPrecision(6)))).to.deep.equal([
      0.01, 0.01, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001,
    ]);
  });

  it("counts epochs of whole batches", async () => {
    const { summary } = await train({ steps: undefined, epochs: 2, data: tinyDataset(37, 5) });
    expect(summary).to.include({ steps: 4, epochs: 2 });
  });

  it("writes config.json, metrics.jsonl, summary.json and a model that loads and evaluates alike", async () => {
    const outDir = path.join(folder, "deep", "run");
    const { summary } = await train({ outDir, seed: 5 });
    expect((await readdir(outDir)).sort()).to.deep.equal(RUN_FILES);
    expect(JSON.parse(await readFile(path.join(outDir, "summary.json"), "utf8"))).to.deep.equal(summary);
    expect(Object.keys(summary)).to.deep.equal([
      "model",
      "kind",
      "parameters",
      "activations",
      "streams",
      "precision",
      "streamGradients",
      "device",
      "threads",
      "seed",
      "batchSize",
      "steps",
      "epochs",
      "trainLoss",
      "testLoss",
      "testError",
      "validationLoss",
      "validationError",
      "stepMilliseconds",
      "imagesPerSecond",
      "memory",
      "reconstruction",
      "leftOut",
      "dataChanges",
      "statisticsBatches",
      "brokenImages",
      "weightsSha256",
    ]);
    const config = JSON.parse(await readFile(path.join(outDir, "config.json"), "utf8"));
    expect(config).to.include({ data: "quadrants", seed: 5, steps: 6, batchSize: 16 });
    expect(config.model).to.deep.equal(TINY_REVNET);
    const lines = (await readFile(path.join(outDir, "metrics.jsonl"), "utf8"))
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines.map(({ type }) => type)).to.deep.equal([
      "step",
      "step",
      "step",
      "step",
      "validation",
      "epoch",
      "step",
      "step",
      "validation",
    ]);
    const network = await loadNetwork(path.join(outDir, "model.safetensors"), { device: "cpu" });
    const { loss, error } = await network.evaluate(tinyDataset());
    network.dispose();
    expect(error).to.equal(summary.testError);
    expect(loss).to.be.closeTo(summary.testLoss!, 1e-4);
  });

  it("ends soon after an abort, and keeps what was trained", async () => {
    const controller = new AbortController();
    const run = trainRevNet(options({ steps: 1000, outDir: folder, signal: controller.signal }));
    let last = 0;
    const loop = (async () => {
      for await (const event of run)
        if (event.type === "step") {
          last = event.step;
          if (event.step === 7) controller.abort(new Error("enough"));
        }
    })();
    expect(await rejection(loop, "ERR_ABORTED")).to.include("after");
    const error = await run.then(
      () => undefined,
      (caught: unknown) => caught as Error,
    );
    expect(error!.cause).to.include({ message: "enough" });
    // The step that was running when the signal came, and the one that was started ahead.
    expect(last).to.be.within(7, 9);
    const summary = JSON.parse(await readFile(path.join(folder, "summary.json"), "utf8"));
    expect(summary).to.include({ steps: last, testError: null });
    const network = await loadNetwork(path.join(folder, "model.safetensors"), { device: "reference" });
    // The file holds float32; what loads from it is what was saved.
    expect(network.parameters.size).to.be.greaterThan(0);
    network.dispose();
    // The weights are those of a run of so many steps; their statistics are estimated at a run's end alone.
    expect(summary.statisticsBatches).to.equal(null);
    expect(summary.weightsSha256).to.equal((await train({ steps: last, preciseBatchNorm: false })).summary.weightsSha256);
  });

  it("does not begin where the signal is aborted already", async () => {
    expect(await rejection(trainRevNet(options({ signal: AbortSignal.abort() })), "ERR_ABORTED")).to.include("0 steps");
  });

  it("stops where something is not finite, and names it and the step", async () => {
    // Weight decay that multiplies the weights by -1e12 each step, until they are beyond 2^64.
    const optimizer = { learningRate: 1e6, weightDecay: 1e6 };
    const message = await rejection(
      trainRevNet(
        options({ steps: 100, outDir: folder, validateEvery: 1000, checkpointEvery: 1000, streams: "float32", optimizer }),
      ),
      "ERR_NOT_FINITE",
    );
    expect(message).to.match(/step \d+ diverged: .*'[\w.]+' holds (NaN|-?Infinity|-?[\d.]+e\+\d+)/);
    expect(await readdir(folder)).to.not.include("model.safetensors");
  });

  it("lets training go on when the loop over its events ends early", async () => {
    const run = trainRevNet(options());
    for await (const event of run) if (event.type === "step") break;
    const { network, summary } = await run;
    network.dispose();
    expect(summary.steps).to.equal(6);
  });

  const refused: [string, Record<string, unknown>, string, RegExp][] = [
    ["an unknown option", { batchsize: 5 }, "ERR_INVALID_ARGUMENT", /batchsize.*batchSize/],
    ["an unknown model", { model: "revnet-83" }, "ERR_UNKNOWN_MODEL", /revnet-38/],
    ["no model", { model: undefined }, "ERR_INVALID_ARGUMENT", /model/],
    ["a spec with an unknown key", { model: { ...TINY_REVNET, unit: [1] } }, "ERR_INVALID_SPEC", /units/],
    ["unknown data", { data: "shape" }, "ERR_INVALID_ARGUMENT", /shapes/],
    ["a data set without splits", { data: { name: "x" } }, "ERR_INVALID_DATA", /data\.train/],
    ["a shape of two", { data: { ...tinyDataset(), shape: [8, 8] } }, "ERR_INVALID_DATA", /data\.shape/],
    ["epochs and steps together", { epochs: 1, steps: 1 }, "ERR_INVALID_ARGUMENT", /epochs, steps/],
    ["no steps", { steps: 0 }, "ERR_INVALID_ARGUMENT", /steps/],
    ["a batch larger than the data", { batchSize: 65 }, "ERR_INVALID_ARGUMENT", /65 is more than the 64/],
    ["a fractional batch", { batchSize: 1.5 }, "ERR_INVALID_ARGUMENT", /batchSize/],
    ["a negative seed", { seed: -1 }, "ERR_INVALID_ARGUMENT", /seed/],
    ["a misspelt mode", { activations: "revrsible" }, "ERR_INVALID_ARGUMENT", /reversible/],
    ["a precision that the device has not", { precision: "bfloat16" }, "ERR_INVALID_ARGUMENT", /precision/],
    ["an unknown device", { device: "gpu" }, "ERR_INVALID_ARGUMENT", /device/],
    ["an absent device", { device: "cuda:99" }, "ERR_DEVICE_UNAVAILABLE", /./],
    ["a misspelt hyperparameter", { optimizer: { learningrate: 1 } }, "ERR_INVALID_ARGUMENT", /learningRate/],
    ["a NaN learning rate", { optimizer: { learningRate: Number.NaN } }, "ERR_INVALID_ARGUMENT", /learningRate/],
    ["an unknown schedule", { schedule: "cosin" }, "ERR_INVALID_ARGUMENT", /cosine/],
    ["a signal that is none", { signal: {} }, "ERR_INVALID_ARGUMENT", /AbortSignal/],
    ["too many threads", { threads: 1e6 }, "ERR_INVALID_ARGUMENT", /threads/],
    [
      "a spec with other classes than the data",
      { model: { ...TINY_REVNET, classes: 5 } },
      "ERR_INVALID_ARGUMENT",
      /5 classes.*has 4/,
    ],
    ["a model for other images", { model: "revnet-38" }, "ERR_INVALID_ARGUMENT", /32x32x3.*8x8x3/],
    ["an outDir that is a file", { outDir: __filename }, "ERR_FILE", /training\.test/],
    ["data options beside a data set object", { dataDir: "x" }, "ERR_INVALID_ARGUMENT", /dataDir/],
  ];
  for (const [what, overrides, code, message] of refused)
    it(`refuses ${what}`, async () => {
      expect(await rejection(trainRevNet(options(overrides as Partial<TrainOptions>)), code)).to.match(message);
    });

  it("refuses options that are none", async () => {
    for (const value of [undefined, null, 5, "revnet-38", []])
      await rejection(trainRevNet(value as unknown as TrainOptions), "ERR_INVALID_ARGUMENT");
  });
});

/** Training with each optimizer: exact, the same for any number of threads, and resumed to the bit. test/ops/updates.test.ts has their values. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { readSafetensors } from "../../lib/formats/safetensors.js";
import { createNetwork, loadNetwork, memoryPlan, type TrainOptions, trainRevNet } from "../../lib/index.js";
import { OPTIMIZER_NAMES } from "../../lib/optimizers/index.js";
import { resolveOptions } from "../../lib/training/settings.js";
import { rejection, thrown } from "../support/errors.js";
import { DEVICES, TINY_REVNET, tinyDataset, tinyOptions, trainTiny } from "../support/tiny.js";

const KINDS: Record<string, Partial<TrainOptions>> = {
  "Nesterov's momentum": { optimizer: { learningRate: 0.05, nesterov: true } },
  AdamW: { optimizer: { type: "adamw", learningRate: 0.01 } },
  "gradient clipping": { maxGradientNorm: 0.5 },
  "AdamW and gradient clipping": { optimizer: { type: "adamw" }, maxGradientNorm: 0.5 },
};
const sha256 = async (overrides: Partial<TrainOptions>) => (await trainTiny({ steps: 8, ...overrides })).summary.weightsSha256;

describe("optimizers", function () {
  this.timeout(300_000);

  for (const device of DEVICES)
    for (const [what, overrides] of Object.entries(KINDS))
      it(`${what}: learns, reversible and stored alike, for any number of threads, on ${device}`, async () => {
        const { summary, history } = await trainTiny({ steps: 24, device, ...overrides });
        expect(history.steps.at(-1)!.loss).to.be.lessThan(history.steps[0]!.loss);
        expect(summary.reconstruction.exact).to.equal(true);
        const own = await sha256({ device, threads: 1, ...overrides });
        for (const other of [{ activations: "stored" }, { threads: 3 }] as const)
          expect(await sha256({ device, threads: 1, ...overrides, ...other }), JSON.stringify(other)).to.equal(own);
        expect(await sha256({ device, threads: 1 }), "it makes a difference").to.not.equal(own);
      });

  it("leave the bits alone where the norm of the gradients is small enough", async () => {
    expect(await sha256({ maxGradientNorm: 1e6 })).to.equal(await sha256({}));
  });

  describe("in a folder", () => {
    let folder: string;
    beforeEach(async () => {
      folder = await mkdtemp(path.join(tmpdir(), "revnet-optimizers-"));
    });
    afterEach(() => rm(folder, { recursive: true }));

    async function stopped(stop: number, overrides: Partial<TrainOptions>): Promise<void> {
      const controller = new AbortController();
      const run = trainRevNet(tinyOptions({ steps: 8, outDir: folder, signal: controller.signal, ...overrides }));
      const end = run.then(
        ({ network }) => network.dispose(),
        () => {},
      );
      try {
        for await (const event of run) if (event.type === "step" && event.step >= stop) controller.abort();
      } catch {
        // ERR_ABORTED
      }
      await end;
    }

    for (const [what, overrides] of Object.entries(KINDS))
      it(`go on to the bits of the uninterrupted run: ${what}`, async () => {
        await stopped(3, overrides);
        expect(await sha256({ outDir: folder, resume: true, ...overrides })).to.equal(await sha256(overrides));
      });

    it("keep their state in checkpoints, which load as models, and refuse another one's", async () => {
      const overrides = { optimizer: { type: "adamw" } } as const;
      await stopped(3, overrides);
      const [last] = (await readdir(path.join(folder, "checkpoints")))
        .filter((name) => name.startsWith("step"))
        .sort()
        .reverse();
      const checkpoint = path.join(folder, "checkpoints", last!);
      const { tensors } = await readSafetensors(checkpoint);
      const state = [...tensors.keys()].filter((name) => name.endsWith("stem.conv.weight"));
      expect(state.sort()).to.deep.equal(["exp_avg.stem.conv.weight", "exp_avg_sq.stem.conv.weight", "stem.conv.weight"]);
      (await loadNetwork(checkpoint, { device: "reference" })).dispose();
      const message = await rejection(trainRevNet(tinyOptions({ steps: 8, outDir: folder, resume: true })), "ERR_RESUME_MISMATCH");
      expect(message).to.include('optimizer.type: was "adamw", now "sgd"').and.include("optimizer.beta1: was 0.9, now not given");
    });
  });

  it("take the memory of their state", () => {
    const options = { batchSize: 4, device: "reference" };
    const [sgd, adamw] = OPTIMIZER_NAMES.map((optimizer) => memoryPlan(TINY_REVNET, { ...options, optimizer }).optimizer);
    expect(adamw).to.equal(2 * sgd!);
  });

  it("take the recipe's settings, or, where it is another one, their defaults", () => {
    const recipe = {
      batchSize: 16,
      steps: 8,
      optimizer: { learningRate: 0.4, momentum: 0.5, weightDecay: 0.25 },
      schedule: { type: "constant" },
      augment: { padding: 0, flip: false },
    } as const;
    const resolve = (optimizer: unknown, more: object = {}) =>
      resolveOptions({ model: { ...TINY_REVNET, recipe }, data: tinyDataset(), optimizer, ...more } as TrainOptions).optimizer;
    const sgd = { type: "sgd", learningRate: 0.4, momentum: 0.5, nesterov: false, weightDecay: 0.25 };
    expect(resolve(undefined)).to.deep.equal(sgd);
    expect(resolve({ nesterov: true })).to.deep.equal({ ...sgd, nesterov: true });
    expect(resolve("adamw")).to.deep.equal({
      ...{ type: "adamw", learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 },
    });
    const refused = (optimizer: unknown) => thrown(() => resolve(optimizer)).message;
    expect(refused("adam")).to.equal("optimizer.type: unknown value 'adam'; did you mean 'adamw'?");
    expect(refused({ type: "adamw", momentum: 0.9 })).to.match(/^optimizer \(adamw\): unknown key 'momentum'/);
    expect(refused({ beta1: 0.5 })).to.match(/^optimizer \(sgd\): unknown key 'beta1'/);
    expect(refused({ type: "adamw", beta2: 1 })).to.match(/^optimizer\.beta2: expected a number from 0 to/);

    // The linear rule.
    expect(resolve(undefined, { batchSize: 8 }).learningRate).to.equal(0.2);
    expect(resolve({ momentum: 0 }, { batchSize: 64 }).learningRate).to.equal(1.6);
    expect(resolve({ learningRate: 0.3 }, { batchSize: 8 }).learningRate).to.equal(0.3);
    expect(resolve("adamw", { batchSize: 8 }).learningRate).to.equal(1e-3);
    expect(resolve(undefined, { batchSize: 8, scaleLearningRate: false }).learningRate).to.equal(0.4);
  });

  it("are told where the learning rate was scaled", async () => {
    const start = async (overrides: Partial<TrainOptions>) => {
      const run = trainRevNet(tinyOptions({ optimizer: {}, ...overrides }));
      let found: unknown;
      for await (const event of run) if (event.type === "start") found = event;
      (await run).network.dispose();
      return found as object;
    };
    expect(await start({})).to.deep.include({ learningRate: 0.016, scaledFrom: { learningRate: 0.1, batchSize: 100 } });
    for (const plain of [{ scaleLearningRate: false }, { optimizer: { learningRate: 0.2 } }])
      expect(await start(plain)).to.not.have.property("scaledFrom");
  });

  it("are steps of a network of one's own", async () => {
    const network = createNetwork(TINY_REVNET, { device: "reference" });
    const { train } = tinyDataset();
    const step = await network.prepareTraining({ batchSize: 4, data: train, optimizer: "adamw" });
    const indices = Int32Array.of(0, 1, 2, 3);
    const losses: number[] = [];
    for (let i = 0; i < 5; ++i) losses.push((await step.run({ step: i, indices })).loss);
    expect(losses.at(-1)).to.be.lessThan(losses[0]!);
    // Its corrections depend on how many steps were done.
    const other = createNetwork(TINY_REVNET, { device: "reference" });
    const always = await other.prepareTraining({ batchSize: 4, data: train, optimizer: "adamw" });
    const uncorrected: number[] = [];
    for (let i = 0; i < 5; ++i) uncorrected.push((await always.run({ indices })).loss);
    other.dispose();
    expect(uncorrected.slice(0, 2)).to.deep.equal(losses.slice(0, 2));
    expect(uncorrected[2]).to.not.equal(losses[2]);
    const message = await rejection(step.run({ momentum: 0.9, indices } as never), "ERR_INVALID_ARGUMENT");
    expect(message).to.equal(
      "step: unknown option 'momentum'; expected one of learningRate, beta1, beta2, epsilon, weightDecay, step, seed, indices, images, labels",
    );
    network.dispose();
  });
});

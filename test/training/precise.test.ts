/** Precise batch norm: running statistics estimated anew. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { createNetwork, type TrainOptions, trainRevNet } from "../../lib/index.js";
import { Batches } from "../../lib/training/batches.js";
import { DEVICES, TINY_REVNET, tinyDataset, tinyOptions, trainTiny } from "../support/tiny.js";

const statistics = (parameters: ReadonlyMap<string, { data: ArrayLike<number> }>) =>
  [...parameters].filter(([name]) => name.includes("running_")).map(([name, { data }]) => [name, Array.from(data)] as const);

describe("precise batch norm", function () {
  this.timeout(300_000);

  for (const device of DEVICES)
    it(`is the mean of the batches' own statistics, on ${device}`, async () => {
      const run = await trainRevNet(tinyOptions({ device, threads: 2 }));
      expect(run.summary.statisticsBatches).to.equal(4);
      // The same by hand: with a momentum of 1 - what is left of it after one step of a new network with these weights.
      const batches = new Batches(64, 16, 0);
      const sums = new Map<string, number[]>();
      for (let step = 0; step < 4; ++step) {
        const network = createNetwork(TINY_REVNET, { device, threads: 1 });
        const zeroed = new Map(
          [...run.network.parameters].map(([name, tensor]) => [
            name,
            name.includes("running_") ? { ...tensor, data: tensor.data.map(() => 0) } : tensor,
          ]),
        );
        network.preprocessing = run.network.preprocessing;
        network.setParameters(zeroed);
        const training = await network.prepareTraining({ batchSize: 16, data: tinyDataset().train });
        await training.run({ learningRate: 0, momentum: 0, weightDecay: 0, step, indices: batches.at(step) });
        await network.refreshParameters();
        for (const [name, values] of statistics(network.parameters)) {
          const sum = sums.get(name) ?? values.map(() => 0);
          // running = 0.99 * 0 + 0.01 * the batch's
          sums.set(
            name,
            sum.map((total, i) => total + (100 * values[i]!) / 4),
          );
        }
        network.dispose();
      }
      const tolerance = device === "reference" ? 1e-9 : 1e-4;
      for (const [name, values] of statistics(run.network.parameters))
        for (const [i, value] of values.entries())
          expect(value, `${name} ${i}`).to.be.closeTo(sums.get(name)![i]!, tolerance * Math.max(1, Math.abs(value)));
      run.network.dispose();
    });

  it("is for short runs, and changes no weights", async () => {
    const weights = async (overrides: Partial<TrainOptions>) => {
      const { network, summary } = await trainRevNet(tinyOptions(overrides));
      const trained = [...network.parameters]
        .filter(([name]) => !name.includes("running_"))
        .map(([, { data }]) => Array.from(data));
      network.dispose();
      return { trained, summary };
    };
    const [precise, plain] = [await weights({}), await weights({ preciseBatchNorm: false })];
    expect(precise.trained).to.deep.equal(plain.trained);
    expect(plain.summary.statisticsBatches).to.equal(null);
    expect(precise.summary.weightsSha256).to.not.equal(plain.summary.weightsSha256);
    const long = await weights({
      steps: 1000,
      model: { ...TINY_REVNET, units: [1, 1], filters: [2, 2, 2] },
      batchSize: 2,
      device: "cpu",
    });
    expect(long.summary.statisticsBatches).to.equal(null);
  });

  it("makes a short run's validation as good as its training", async () => {
    const short = { steps: 12, device: DEVICES.includes("cpu") ? "cpu" : "reference" };
    const [precise, plain] = [await trainTiny(short), await trainTiny({ ...short, preciseBatchNorm: false })];
    const last = precise.history.steps.at(-1)!.loss;
    expect(precise.summary.testLoss!, "by statistics of these weights").to.be.closeTo(last, 0.1);
    expect(plain.summary.testLoss!, "by those that trail behind").to.be.above(last + 0.2);
  });

  it("does not depend on how often it was done, and resumed runs end with the same bits", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "revnet-precise-"));
    try {
      const sha256 = async (overrides: Partial<TrainOptions>) =>
        (await trainTiny({ steps: 8, ...overrides })).summary.weightsSha256;
      const whole = await sha256({});
      expect(await sha256({ validateEvery: 2 })).to.equal(whole);
      const controller = new AbortController();
      const run = trainRevNet(tinyOptions({ steps: 8, outDir: folder, validateEvery: 2, signal: controller.signal }));
      try {
        for await (const event of run) if (event.type === "step" && event.step >= 5) controller.abort();
      } catch {
        // ERR_ABORTED
      }
      expect(await sha256({ outDir: folder, resume: true })).to.equal(whole);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

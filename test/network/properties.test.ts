/** What the package promises of whole networks: exactness, determinism, memory that does not grow with depth. */
import { expect } from "chai";
import type { MemoryReport } from "../../binding.js";
import { memoryPlan } from "../../lib/network/memory.js";
import { createNetwork, type Network, type NetworkOptions } from "../../lib/network/network.js";
import type { Activations } from "../../lib/network/recorder.js";
import type { NetworkSpec } from "../../lib/network/spec.js";
import { onEveryDevice, randomImages, randomSplit, roughNetwork, TINY } from "./support.js";

const BATCH = 6;
const STEP = { learningRate: 0.1, momentum: 0.9, weightDecay: 2e-4, seed: 7n };

async function trained(spec: NetworkSpec, options: NetworkOptions, activations: Activations, steps = 5): Promise<Network> {
  const network = createNetwork(spec, options);
  const split = randomSplit(spec, 20);
  const training = await network.prepareTraining({ batchSize: BATCH, activations, data: split, padding: 2, flip: true });
  for (let step = 0; step < steps; ++step)
    await training.run({ ...STEP, step, indices: Int32Array.from({ length: BATCH }, (_, i) => (7 * step + 3 * i) % split.count) });
  await network.refreshParameters();
  return network;
}

async function weightsAfterTraining(...args: Parameters<typeof trained>): Promise<string> {
  const network = await trained(...args);
  const weights = network.weightsSha256();
  network.dispose();
  return weights;
}

onEveryDevice("a network's training", ({ options, name, exact }) => {
  for (const [title, spec] of Object.entries(TINY)) {
    it(`gives the same bits stored and reversible, and again: ${title}`, async () => {
      const reversible = await weightsAfterTraining(spec, options, "reversible");
      expect(await weightsAfterTraining(spec, options, "stored")).to.equal(reversible);
      expect(await weightsAfterTraining(spec, options, "reversible")).to.equal(reversible);
      expect(await weightsAfterTraining(spec, { ...options, seed: 1 }, "reversible")).not.to.equal(reversible);
    });
    if (name === "cpu")
      it(`gives the same bits for any number of threads: ${title}`, async () => {
        const one = await weightsAfterTraining(spec, { ...options, threads: 1 }, "reversible");
        for (const threads of [2, 3]) expect(await weightsAfterTraining(spec, { ...options, threads }, "reversible")).to.equal(one);
      });
    it(`takes the bytes that were planned: ${title}`, async () => {
      for (const activations of ["reversible", "stored"] as const) {
        const plan = memoryPlan(spec, { ...options, batchSize: BATCH, activations, images: 20 });
        const network = await trained(spec, options, activations, 1);
        expect(network.memory()).to.deep.equal(plan);
        const step = await network.prepareTraining({ batchSize: BATCH, activations });
        expect(step.planned().total).to.be.at.least(plan.total);
        network.dispose();
      }
    });
  }

  it("is reversed exactly with fixed-point streams, and nearly with float32 ones", async () => {
    for (const spec of [TINY.revnet!, TINY["revnet, bottleneck"]!, TINY["revnet, ImageNet stem"]!]) {
      const { images } = randomSplit(spec, BATCH, 9);
      const fixed = await trained(spec, options, "reversible");
      const { blocks, max, outOfRange } = await fixed.reconstruct(images);
      expect({ max, outOfRange }).to.deep.equal({ max: 0, outOfRange: 0 });
      const expected = spec.units.flatMap((units, stage) =>
        Array.from({ length: units - 1 }, (_, i) => ({ stage, block: i + 1, error: 0 })),
      );
      expect(blocks).to.deep.equal(expected);
      fixed.dispose();

      const real = await trained(spec, { ...options, streams: "float32" }, "reversible");
      const drift = (await real.reconstruct(images)).max;
      expect(drift).to.be.greaterThan(0).and.below(1e-4);
      real.dispose();
    }
  });

  it("updates running statistics exactly once a step", async () => {
    const spec = TINY.revnet!;
    const images = randomImages(spec, BATCH);
    const labels = Array.from({ length: BATCH }, (_, i) => i % spec.classes);
    const network = roughNetwork(spec, options);
    const step = await network.prepareTraining({ batchSize: BATCH });
    const means = [network.parameters];
    for (let i = 0; i < 2; ++i) {
      await step.run({ learningRate: 0, momentum: 0, weightDecay: 0, images, labels });
      await network.refreshParameters();
      means.push(network.parameters);
    }
    // With running' = 0.99 running + 0.01 batch, twice with one batch, the second change is 0.99 of the first.
    for (const [name, { data }] of means[0]!) {
      if (!name.includes("running_")) continue;
      const [before, once, twice] = [data, means[1]!.get(name)!.data, means[2]!.get(name)!.data];
      for (let i = 0; i < before.length; ++i) {
        expect(once[i]).not.to.equal(before[i]);
        expect(twice[i]! - once[i]!).to.be.closeTo(0.99 * (once[i]! - before[i]!), 1e-6 * (Math.abs(before[i]!) + 1), name);
      }
    }
    network.dispose();
  });

  it("reads weights as [out][in][kh][kw] and updates running statistics by the batch's mean and unbiased variance", async () => {
    const spec = TINY.revnet!;
    const [h, w, c] = spec.input;
    const network = createNetwork(spec, options);
    // Output channel 3 of the stem is input channel 1, moved one row down and one column to the left.
    const { shape, data } = network.parameters.get("stem.conv.weight")!;
    data.fill(0);
    data[((3 * shape[1]! + 1) * 3 + 0) * 3 + 2] = 1;
    network.setParameters({ "stem.conv.weight": { shape, data } });
    const images = randomImages(spec, BATCH);
    const moved: number[] = [];
    for (let i = 0; i < BATCH; ++i)
      for (let row = 0; row < h; ++row)
        for (let column = 0; column < w; ++column)
          moved.push(row === 0 || column === w - 1 ? 0 : images[((i * h + row - 1) * w + column + 1) * c + 1]!);
    const mean = moved.reduce((a, b) => a + b) / moved.length;
    const variance = moved.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (moved.length - 1);

    const step = await network.prepareTraining({ batchSize: BATCH });
    await step.run({ learningRate: 0, momentum: 0, weightDecay: 0, images, labels: new Int32Array(BATCH) });
    await network.refreshParameters();
    const running = (kind: string) => Array.from(network.parameters.get(`stem.bn.running_${kind}`)!.data);
    const closeTo = (actual: number[], expected: number[]) => {
      for (const [i, value] of expected.entries()) expect(actual[i]).to.be.closeTo(value, exact ? 1e-12 : 1e-7);
    };
    closeTo(running("mean"), [0, 0, 0, 0.01 * mean, 0, 0, 0, 0]);
    closeTo(running("var"), [0.99, 0.99, 0.99, 0.99 + 0.01 * variance, 0.99, 0.99, 0.99, 0.99]);
    network.dispose();
  });

  it("crops and mirrors at random, by the seed and the step", async () => {
    const spec = TINY.revnet!;
    const split = randomSplit(spec, BATCH);
    const indices = Int32Array.from({ length: BATCH }, (_, i) => i);
    const loss = async (augment: { padding?: number; flip?: boolean }, seed: number, step: number) => {
      const network = createNetwork(spec, options);
      const training = await network.prepareTraining({ batchSize: BATCH, data: split, ...augment });
      const result = await training.run({ learningRate: 0, momentum: 0, weightDecay: 0, seed, step, indices });
      network.dispose();
      return result.loss;
    };
    const plain = await loss({}, 1, 1);
    expect(await loss({}, 2, 9)).to.equal(plain);
    for (const augment of [{ padding: 2 }, { flip: true }]) {
      const losses = [await loss(augment, 1, 1), await loss(augment, 2, 1), await loss(augment, 1, 2), plain];
      expect(new Set(losses).size, JSON.stringify(augment)).to.equal(4);
      expect(await loss(augment, 1, 1)).to.equal(losses[0]);
    }
  });

  it("leaves everything but gradients alone in lossAndGradients, predict, evaluate and reconstruct", async () => {
    const spec = TINY.revnet!;
    const network = await trained(spec, options, "reversible");
    const before = network.weightsSha256();
    await network.lossAndGradients(randomImages(spec, 2), [0, 1]);
    await network.evaluate(randomSplit(spec, 5));
    await network.predict(randomSplit(spec, 5).images);
    await network.reconstruct(randomSplit(spec, 5).images);
    const step = await network.prepareTraining({ batchSize: 2 });
    await step.run({ learningRate: 0, momentum: 0, weightDecay: 0, images: randomImages(spec, 2), labels: [0, 1] });
    await network.refreshParameters();
    const weights = [...network.parameters].filter(([name]) => !name.includes("running_"));
    const again = await trained(spec, options, "reversible");
    for (const [name, { data }] of weights) expect(data, name).to.deep.equal(again.parameters.get(name)!.data);
    expect(again.weightsSha256()).to.equal(before);
    network.dispose();
    again.dispose();
  });

  it("reports stream elements that leave the fixed-point range", async () => {
    const spec = TINY.revnet!;
    const network = createNetwork(spec, options);
    const weight = network.parameters.get("stages.0.1.f.conv2.weight")!;
    network.setParameters({ "stages.0.1.f.conv2.weight": { shape: weight.shape, data: weight.data.map((value) => value * 1e4) } });
    const images = randomImages(spec, BATCH);
    const labels = [0, 1, 2, 3, 4, 0];
    expect((await network.lossAndGradients(images, labels)).outOfRange).to.be.greaterThan(0);
    expect((await network.lossAndGradients(images, labels, { activations: "stored" })).outOfRange).to.be.greaterThan(0);
    const step = await network.prepareTraining({ batchSize: BATCH });
    expect((await step.run({ ...STEP, images, labels })).outOfRange).to.be.greaterThan(0);
    network.dispose();
  });

  it("learns: the loss on one batch falls below a tenth", async () => {
    for (const spec of [TINY.revnet!, TINY.resnet!]) {
      const network = createNetwork(spec, options);
      const images = randomImages(spec, BATCH);
      const labels = Array.from({ length: BATCH }, (_, i) => i % spec.classes);
      const step = await network.prepareTraining({ batchSize: BATCH });
      const first = (await step.run({ ...STEP, images, labels })).loss;
      let last = { loss: first, correct: 0 };
      for (let i = 0; i < 40; ++i) last = await step.run({ ...STEP, images, labels });
      expect(last.loss).to.be.below(first / 10);
      expect(last.correct).to.equal(BATCH);
      network.dispose();
    }
  });
});

onEveryDevice("the memory plan", ({ options }) => {
  const spec = (units: number): NetworkSpec => ({
    name: `revnet-${units}`,
    kind: "revnet",
    stem: "cifar",
    input: [32, 32, 3],
    classes: 10,
    filters: [32, 32, 64, 112],
    units: [units, units, units],
    strides: [1, 2, 2],
    bottleneck: false,
  });
  const plans = (activations: Activations, bottleneck = false) =>
    [3, 9, 27].map((units) => memoryPlan({ ...spec(units), bottleneck }, { ...options, batchSize: 100, activations }));

  for (const bottleneck of [false, true])
    it(`has the same activations for 3, 9 and 27 units${bottleneck ? ", bottleneck" : ""}; stored ones grow`, () => {
      const reversible = plans("reversible", bottleneck);
      expect(new Set(reversible.map(({ activations }) => activations)).size).to.equal(1);
      expect(new Set(reversible.map(({ workspace }) => workspace)).size).to.equal(1);
      const stored = plans("stored", bottleneck).map(({ activations }) => activations);
      expect(stored[0]).to.be.greaterThan(reversible[0]!.activations);
      expect(stored[1]).to.be.greaterThan(2 * stored[0]!);
      expect(stored[2]).to.be.greaterThan(2 * stored[1]!);
    });

  it("counts parameters, gradients, momenta and data, which are no activations", () => {
    const [small, , large] = plans("reversible");
    for (const category of ["parameters", "gradients", "optimizer"] as const)
      expect(large![category]).to.be.greaterThan(small![category]);
    expect(small!.gradients).to.equal(small!.optimizer);
    // 16 labels fill a line of 64 bytes, to which every buffer is rounded up.
    const [fewer, more] = [1600, 3200].map((images) => memoryPlan(spec(3), { ...options, batchSize: 100, images })) as [
      MemoryReport,
      MemoryReport,
    ];
    expect(more.data - fewer.data).to.equal(1600 * (32 * 32 * 3 + 4));
    expect(more.total).to.equal(Object.entries(more).reduce((sum, [key, bytes]) => sum + (key === "total" ? 0 : bytes), 0));
  });
});

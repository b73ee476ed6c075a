/** One training step: what it makes of running statistics, weights and images. */
import { expect } from "chai";
import { createNetwork, type Network } from "../../lib/network/network.js";
import type { StepResult } from "../../lib/network/training-step.js";
import { rejection, thrown } from "../support/errors.js";
import { BATCH, onEveryDevice, randomImages, randomSplit, roughNetwork, STEP, TINY } from "./support.js";

onEveryDevice("a training step", ({ options, exact }) => {
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

  describe("finds in the step itself what is not finite", () => {
    const spec = TINY.revnet!;
    const split = randomSplit(spec, BATCH);
    const indices = Int32Array.from({ length: BATCH }, (_, i) => i);
    for (const streams of ["fixed", "float32"] as const) {
      const run = async (prepare: (network: Network) => void, settings: { learningRate?: number; steps?: number } = {}) => {
        const network = createNetwork(spec, { ...options, streams });
        try {
          // The scale of the pixels is part of the program.
          if (prepare === unscaled) prepare(network);
          const step = await network.prepareTraining({ batchSize: BATCH, data: split });
          if (prepare !== unscaled) prepare(network);
          const { learningRate = 0.1, steps = 1 } = settings;
          let result: StepResult;
          for (let i = 0; i < steps; ++i) result = await step.run({ ...STEP, learningRate, step: i, indices });
          return { notFinite: result!.notFinite, culprit: await network.notFinite() };
        } finally {
          network.dispose();
        }
      };
      const unscaled = (network: Network) => {
        network.preprocessing = { ...network.preprocessing, scale: 1e37 };
      };

      it(`${streams} streams: nothing where all is finite`, async () => {
        expect(await run(() => {}, { steps: 2 })).to.deep.equal({ notFinite: [], culprit: undefined });
      });
      it(`${streams} streams: pixels that overflow as they are scaled`, async () => {
        expect((await run(unscaled)).notFinite).to.include("images");
      });
      it(`${streams} streams: a learning rate that throws the weights out of all numbers`, async () => {
        // Once they are beyond 2^64, though they are finite: on the reference too, whose float64 could go on.
        for (const learningRate of [1e30, 1e300]) {
          const { notFinite, culprit } = await run(() => {}, { learningRate });
          expect(notFinite).to.include("parameters");
          expect(culprit).to.match(/'.*' holds (NaN|-?Infinity|-?[\d.]+e\+\d+)/);
        }
      });
      for (const value of [Number.NaN, Infinity, -Infinity, 1e30, -1e30]) {
        it(`${streams} streams: ${value} in whatever is given, by its name`, async () => {
          const network = createNetwork(spec, { ...options, streams });
          const shown = /(got|holds) (NaN|-?Infinity|-?1[\d.]*e\+30)/;
          for (const [name, { shape, data }] of network.parameters) {
            const wrong = data.slice();
            wrong[wrong.length - 1] = value;
            const set = () => network.setParameters({ [name]: { shape, data: wrong } });
            expect(thrown(set).message).to.include(`'${name}'`).and.to.match(shown);
            const all = new Map([...network.parameters, [name, { shape, data: wrong }]]);
            expect(await rejection(network.replaceParameters(all), "ERR_INVALID_ARGUMENT")).to.include(`'${name}'`);
          }
          const pixels = new Float64Array(BATCH * spec.input.reduce((a, b) => a * b)).fill(0.5);
          pixels[pixels.length - 1] = value;
          const labels = new Int32Array(BATCH);
          const step = await network.prepareTraining({ batchSize: BATCH });
          for (const images of [pixels, Float32Array.from(pixels)])
            for (const given of [
              network.predict(images),
              network.reconstruct(images),
              network.lossAndGradients(images, labels),
              step.run({ ...STEP, images, labels }),
            ])
              expect(await rejection(given, "ERR_NOT_FINITE"))
                .to.include(`image ${BATCH - 1} `)
                .and.to.match(shown);
          const label = network.lossAndGradients(pixels.fill(0), [...labels.subarray(1), value]);
          expect(await rejection(label, "ERR_INVALID_ARGUMENT")).to.include(`labels[${BATCH - 1}]`);
          if (!Number.isFinite(value) || value < 0)
            expect(
              await rejection(step.run({ ...STEP, learningRate: value, images: pixels, labels }), "ERR_INVALID_ARGUMENT"),
            ).to.include("learningRate");
          network.dispose();
        });
      }
    }
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

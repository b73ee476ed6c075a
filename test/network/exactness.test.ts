/** Exactness: the same bits reversible or stored, on any number of threads, and nothing is changed that only looks. */
import { expect } from "chai";
import { native } from "../../lib/native/index.js";
import { createNetwork } from "../../lib/network/network.js";
import { BATCH, onEveryDevice, randomImages, randomSplit, STEP, TINY, trained } from "./support.js";

async function weightsAfterTraining(...args: Parameters<typeof trained>): Promise<string> {
  const network = await trained(...args);
  const weights = network.weightsSha256();
  network.dispose();
  return weights;
}

onEveryDevice("a network's training", ({ options, name }) => {
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
  }

  if (name === "cpu")
    it("gives the same bits on every instruction set of the processor", async () => {
      for (const spec of [TINY.revnet!, TINY["revnet, bottleneck"]!, TINY["revnet, ImageNet stem"]!]) {
        const [widest, ...others] = native.buildInfo().isas;
        const expected = await weightsAfterTraining(spec, { ...options, isa: widest }, "reversible");
        for (const isa of others)
          expect(await weightsAfterTraining(spec, { ...options, isa }, "reversible"), isa).to.equal(expected);
      }
    });

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
});

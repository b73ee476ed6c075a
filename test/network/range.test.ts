/** What inference does where fixed-point streams do not reach, and where nothing finite comes out. */
import { expect } from "chai";
import { createNetwork, type Network } from "../../lib/network/network.js";
import { rejection } from "../support/errors.js";
import { onEveryDevice, randomSplit, TINY } from "./support.js";

onEveryDevice("inference beyond the range", ({ options }) => {
  const spec = TINY.revnet!;
  const COUNT = 5;
  const { images } = randomSplit(spec, COUNT);

  /** A network whose streams leave +-512 on any image: the first norm's output is scaled up. */
  function wide(streams: "fixed" | "float32"): Network {
    const network = createNetwork(spec, { ...options, streams });
    const { shape, data } = network.parameters.get("stem.bn.weight")!;
    network.setParameters(new Map([["stem.bn.weight", { shape, data: data.map(() => 1e4) }]]));
    return network;
  }
  it("gives what float32 streams give, with a warning, and counts", async () => {
    const warnings: string[] = [];
    const listen = (warning: Error & { code?: string }) => {
      if (warning.code === "REVNET_OUT_OF_RANGE") warnings.push(warning.message);
    };
    process.on("warning", listen);
    const [fixed, float] = [wide("fixed"), wide("float32")];
    expect([...(await fixed.logits(images))]).to.deep.equal([...(await float.logits(images))]);
    await fixed.predict(images);
    const evaluation = await fixed.evaluate(randomSplit(spec, COUNT));
    expect(evaluation.outOfRange).to.be.greaterThan(0);
    expect(evaluation.loss).to.equal((await float.evaluate(randomSplit(spec, COUNT))).loss);
    expect((await float.evaluate(randomSplit(spec, COUNT))).outOfRange).to.equal(0);
    await new Promise((resolve) => setImmediate(resolve));
    process.off("warning", listen);
    expect(warnings).to.have.length(1);
    fixed.dispose();
    float.dispose();
  });

  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
    it(`refuses images that hold ${value}, naming the first`, async () => {
      const network = createNetwork(spec, options);
      const pixels = Float32Array.from(images);
      pixels[pixels.length - 1] = value;
      expect(await rejection(network.predict(pixels), "ERR_NOT_FINITE")).to.contain(`image ${COUNT - 1}`);
      network.dispose();
    });
  it("refuses to classify where values are beyond 2^64", async () => {
    const network = createNetwork(spec, options);
    for (const name of ["head.fc.weight", "head.fc.bias"]) {
      const { shape, data } = network.parameters.get(name)!;
      network.setParameters({ [name]: { shape, data: data.map(() => 1.8e19) } });
    }
    expect(await rejection(network.predict(images), "ERR_NOT_FINITE")).to.contain("the logits of image");
    network.dispose();
  });
});

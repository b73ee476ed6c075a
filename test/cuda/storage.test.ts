/** What is stored as bfloat16 is what everything else is computed from. Runs where there is a CUDA device. */
import { expect } from "chai";
import type { Values } from "../../binding.js";
import { native } from "../../lib/native/index.js";
import { Device, initialValues, type Named } from "../../lib/verify/device.js";
import { type Case, generate } from "../../lib/verify/families.js";

const cuda = native.devices().find(({ name, available }) => available && name.startsWith("cuda"));

/** 8 significant bits. */
function isBfloat16(value: number): boolean {
  return (new Uint32Array(Float32Array.of(value).buffer)[0]! & 0xffff) === 0;
}

/** All tensors after a case's forward and backward pass. */
async function run(of: Case, streamGradients: "float32" | "bfloat16"): Promise<Named> {
  const device = new Device({ device: cuda!.name, precision: "bfloat16", streamGradients });
  const { tensors, forward, backward } = generate(of);
  const result = await device.run(tensors, [...forward, ...backward], initialValues(tensors));
  device.dispose();
  return result;
}

const all = (values: Values, holds: (value: number) => boolean): boolean => Array.from(values).every(holds);

describe("storage in bfloat16", () => {
  before(function () {
    if (!cuda) this.skip(); // no device here; emulated.test.ts runs it on the emulated one
  });

  // Channels that are read and written four at a time, and one by one.
  for (const c of [8, 5]) {
    const common = { family: "residual", c, k: c, kernel: 3, stride: 1, stream: "fixed", seed: 1 } as const;

    it(`takes the statistics of a hidden tensor from what is stored of it, ${c} channels`, async () => {
      const pixels = 2 * 6 * 7;
      const result = await run({ ...common, n: 2, h: 6, w: 7, hidden: c }, "bfloat16");
      const hidden = result.get("hidden1")!;
      const statistics = result.get("f.2.statistics")!;
      expect(all(hidden, isBfloat16)).to.equal(true);
      for (let channel = 0; channel < c; ++channel) {
        const values = Array.from({ length: pixels }, (_, i) => hidden[i * c + channel]!);
        const mean = values.reduce((sum, value) => sum + value, 0) / pixels;
        const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / pixels;
        // Rounding to bfloat16 moves them by some 1e-4.
        expect(statistics[channel]).to.be.closeTo(mean, 2e-6 * Math.sqrt(variance));
        expect(statistics[c + channel]).to.be.closeTo(variance, 2e-6 * variance);
      }
    });

    it(`takes the gradients of a norm from what is stored of the gradient below it, ${c} channels`, async () => {
      // Of a single pixel, beta's gradient is what is stored.
      const result = await run({ ...common, n: 1, h: 1, w: 1, hidden: c, running: true }, "bfloat16");
      for (const name of ["f.1.betaGradient", "f.2.betaGradient"]) {
        expect(all(result.get(name)!, isBfloat16), name).to.equal(true);
        expect(all(result.get(name)!, (value) => value === 0)).to.equal(false);
      }
      expect(all(result.get("f.1.gammaGradient")!, isBfloat16)).to.equal(false);
    });

    it(`rounds gradients of streams unless they are to be float32, ${c} channels`, async () => {
      const of = { ...common, n: 2, h: 3, w: 5, hidden: c } as const;
      expect(all((await run(of, "bfloat16")).get("dx")!, isBfloat16)).to.equal(true);
      expect(all((await run(of, "float32")).get("dx")!, isBfloat16)).to.equal(false);
    });
  }
});

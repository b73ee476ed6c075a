/** Initial values: their distributions are defined here once more, in plain loops. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import type { InitialTensor } from "../../binding.js";
import { logarithm } from "../../lib/elementary.js";
import { native } from "../../lib/native/index.js";
import { initialTensors } from "../../lib/network/initialization.js";
import { resolveModel } from "../../lib/network/models.js";
import { createNetwork, loadNetwork } from "../../lib/network/network.js";
import { ParameterLayout } from "../../lib/network/parameters.js";
import { buildTopology } from "../../lib/network/topology.js";
import { onEveryDevice, randomSplit, STEP, TINY } from "./support.js";

const SEEDS = [0n, 7n, 0xfedcba9876543210n];

/** As native/core/initial_values.h says, the convolution's values in the order in which they are drawn. */
function drawn({ distribution, value, stream, out, in: input, taps }: InitialTensor, seed: bigint): Float32Array {
  const values = new Float32Array(out * input * taps);
  const words = native.philox(seed, stream, 0, "initialization", 4 * values.length + 256);
  const symmetric = (word: number) => (2 * word + 1) / 2 ** 32 - 1;
  if (distribution === "constant") return values.fill(value);
  if (distribution === "uniform") return values.map((_, i) => value * symmetric(words[i]!));
  for (let i = 0, filled = 0; filled < values.length; i += 2) {
    const [u, v] = [symmetric(words[i]!), symmetric(words[i + 1]!)];
    const s = u * u + v * v;
    if (s >= 1) continue;
    const radius = Math.sqrt((-2 * logarithm(s)) / s);
    for (const normal of [u * radius, v * radius])
      if (Math.abs(normal) <= 2 && filled < values.length) values[filled++] = normal * value;
  }
  return values;
}

describe("initial values", () => {
  it("have the bits of their definition, whatever the seed and the type", () => {
    for (const model of [TINY.revnet!, TINY.resnet!, resolveModel("revnet-38")]) {
      const layout = new ParameterLayout(buildTopology(model));
      const { parameters } = initialTensors(layout);
      expect(parameters.some(({ distribution }) => distribution === "truncatedNormal")).to.equal(true);
      for (const seed of SEEDS) {
        const flat = native.initialValues(seed, parameters, new Float32Array(layout.elements));
        expect(native.initialValues(seed, parameters, new Float64Array(layout.elements))).to.deep.equal(Float64Array.from(flat));
        for (const tensor of parameters) {
          const { offset, out, in: input, taps } = tensor;
          const expected = drawn(tensor, seed);
          let wrong = 0;
          for (let o = 0, at = 0; o < out; ++o)
            for (let i = 0; i < input; ++i)
              for (let tap = 0; tap < taps; ++tap) if (flat[offset + (tap * input + i) * out + o] !== expected[at++]) wrong += 1;
          expect(wrong, `${model.name}, seed ${seed}, tensor at ${offset}`).to.equal(0);
        }
      }
    }
  });

  it("use a logarithm with the bits of lib/elementary.ts", () => {
    // A normal's radius is the square root of a logarithm's value; a million of them meet all of its branches but those near 1.
    const tensor = { distribution: "truncatedNormal", value: 1, stream: 3, offset: 0, out: 1, in: 500_000, taps: 1 } as const;
    const flat = native.initialValues(9n, [tensor], new Float64Array(500_000));
    const digest = (values: Float32Array) => createHash("sha256").update(new Uint8Array(values.buffer)).digest("hex");
    expect(digest(Float32Array.from(flat))).to.equal(digest(drawn(tensor, 9n)));
  });

  it("stay what they were: the weights of revnet-38 by seed", () => {
    for (const [seed, sha256] of [
      [0n, "c15a0e7b0c13a139e946f22fd9358e219390b48f423aa8a947d940ac35ff9c35"],
      [123456789012345678n, "e93f345e9de20636fac7d48082ca9039ce187ecce7df9e8e114811c5e3353c0b"],
    ] as const) {
      const network = createNetwork("revnet-38", { device: "cpu", seed });
      expect(network.weightsSha256()).to.equal(sha256);
      network.dispose();
    }
  });

  it("refuse what does not fit", () => {
    const tensor = { distribution: "uniform", value: 1, stream: 0, offset: 0, out: 1, in: 4, taps: 1 } as const;
    const refused = (tensors: object[], values: unknown = new Float32Array(4), seed: unknown = 0n) =>
      expect(() => native.initialValues(seed as bigint, tensors as InitialTensor[], values as Float32Array))
        .to.throw()
        .with.property("code", "ERR_INVALID_ARGUMENT");
    refused([{ ...tensor, in: 5 }]);
    refused([{ ...tensor, offset: 1 }]);
    refused([{ ...tensor, out: 2 ** 40, in: 2 ** 40 }]);
    refused([{ ...tensor, offset: -1 }]);
    refused([{ ...tensor, distribution: "normal" }]);
    refused([{ ...tensor, value: Number.NaN }]);
    refused([{ ...tensor, more: 1 }]);
    refused([tensor], new Int32Array(4));
    refused([tensor], new Float32Array(4), -1n);
    refused([tensor], new Float32Array(4), 0);
  });
});

onEveryDevice("a network's initial values", ({ options }) => {
  const spec = TINY.revnet!;
  const { images } = randomSplit(spec, 2);

  it("are drawn on its device as they are for who asks, before or after", async () => {
    const asked = createNetwork(spec, { ...options, seed: 5 });
    const before = asked.weightsSha256();
    asked.setParameters(asked.parameters);
    const silent = createNetwork(spec, { ...options, seed: 5 });
    expect(await silent.logits(images)).to.deep.equal(await asked.logits(images));
    expect(silent.weightsSha256()).to.equal(before);
    // What the device has, through a step that changes nothing but running statistics.
    const step = await silent.prepareTraining({ batchSize: 2 });
    const normalized = Float32Array.from(images, (pixel) => pixel / 255);
    await step.run({ ...STEP, learningRate: 0, images: normalized, labels: [0, 1] });
    await silent.refreshParameters();
    for (const [name, { data }] of silent.parameters)
      if (!name.includes("running_")) expect(data, name).to.deep.equal(asked.parameters.get(name)!.data);
    asked.dispose();
    silent.dispose();
  });

  it("are drawn on its thread for who saves, exports or digests them, unless they are set meanwhile", async () => {
    const asked = createNetwork(spec, { ...options, seed: 5 });
    const sha256 = asked.weightsSha256();
    const folder = mkdtempSync(path.join(tmpdir(), "revnet-initial-"));
    const { initialValues } = native;
    const fresh = () => createNetwork(spec, { ...options, seed: 5 });
    const [saved, exported, digested, set] = [fresh(), fresh(), fresh(), fresh()];
    try {
      Object.assign(native, {
        initialValues: () => {
          throw new Error("initial values are drawn on the JavaScript thread");
        },
      });
      await saved.save(path.join(folder, "model.safetensors"));
      await exported.exportOnnx(path.join(folder, "model.onnx"));
      expect([await digested.digest(), exported.weightsSha256(), saved.weightsSha256()]).to.deep.equal([sha256, sha256, sha256]);
      const pulling = set.refreshParameters();
      Object.assign(native, { initialValues });
      const bias = new Float32Array(spec.classes).fill(2);
      set.setParameters({ "head.fc.bias": { shape: [spec.classes], data: bias } });
      await pulling;
      expect(Float32Array.from(set.parameters.get("head.fc.bias")!.data)).to.deep.equal(bias);
    } finally {
      Object.assign(native, { initialValues });
      rmSync(folder, { recursive: true });
    }
    for (const network of [asked, saved, exported, digested, set]) network.dispose();
  });

  it("remain where some parameters are set, and are not drawn where a file gives all", async () => {
    const bias = new Map([["head.fc.bias", { shape: [spec.classes], data: new Float32Array(spec.classes).fill(2) }]]);
    const partly = createNetwork(spec, { ...options, seed: 5 });
    partly.setParameters(bias);
    const whole = createNetwork(spec, { ...options, seed: 5 });
    whole.setParameters(new Map([...whole.parameters, ...bias]));
    expect(await partly.logits(images)).to.deep.equal(await whole.logits(images));
    const folder = mkdtempSync(path.join(tmpdir(), "revnet-initial-"));
    const { initialValues } = native;
    const draw = native.Session.prototype.initialize;
    const forbidden = () => {
      throw new Error("initial values are drawn");
    };
    try {
      const file = path.join(folder, "model.safetensors");
      await whole.save(file);
      Object.assign(native, { initialValues: forbidden });
      native.Session.prototype.initialize = forbidden;
      const loaded = await loadNetwork(file, options);
      expect(await loaded.logits(images)).to.deep.equal(await whole.logits(images));
      expect(loaded.weightsSha256()).to.equal(partly.weightsSha256());
      loaded.dispose();
    } finally {
      Object.assign(native, { initialValues });
      native.Session.prototype.initialize = draw;
      rmSync(folder, { recursive: true });
    }
    partly.dispose();
    whole.dispose();
  });
});

/** Arrays that callers use again, give away or fill with other numbers than are meant. */
import { expect } from "chai";
import sharp from "sharp";
import { createNetwork, type Network } from "../../lib/network/network.js";
import { rejection, thrown } from "../support/errors.js";
import { TINY_REVNET, tinyDataset } from "../support/tiny.js";

const OPTIONS = { device: "cpu", threads: 1 } as const;
const GONE = "whose buffer was transferred away or has shrunk";

/** Arrays without memory, as TypeScript 5's types do not know them: given to another thread, and on a buffer that was made smaller. */
function gone<T extends Uint8Array | Float32Array | Int32Array>(make: (buffer: ArrayBuffer) => T, bytes: number): T[] {
  const given = make(new ArrayBuffer(bytes));
  structuredClone(given.buffer, { transfer: [given.buffer as ArrayBuffer] });
  type Resizable = ArrayBuffer & { resize(bytes: number): void };
  const buffer = new (ArrayBuffer as unknown as new (bytes: number, options: object) => Resizable)(bytes, { maxByteLength: bytes });
  const fixed = new (given.constructor as new (buffer: ArrayBuffer, at: number, length: number) => T)(
    buffer,
    0,
    bytes / given.BYTES_PER_ELEMENT,
  );
  buffer.resize(bytes / 2);
  return [given, fixed];
}

describe("arrays that are given to a network", () => {
  const data = tinyDataset();
  const elements = TINY_REVNET.input.reduce((a, b) => a * b);
  let network: Network;
  beforeEach(() => {
    network = createNetwork(TINY_REVNET, OPTIONS);
  });
  afterEach(() => network.dispose());

  it("may be used again as soon as the call has returned, however many images there are", async () => {
    for (const Type of [Uint8Array, Float32Array, Float64Array]) {
      // More than two batches.
      const pixels = new Type(300 * elements);
      for (let i = 0; i < pixels.length; ++i) pixels[i] = (i * 37) % 256;
      const expected = await network.predict(pixels);
      const predicted = network.predict(pixels);
      pixels.fill(3);
      expect(await predicted, Type.name).to.deep.equal(expected);
    }
  });

  // What is more than 4 MiB goes to the device in pieces, between which other work gets its turn.
  it("may be used again while the parameters are on their way to the device in pieces", async () => {
    const spec = { ...TINY_REVNET, name: "wide", filters: [8, 8, 512], units: [1, 1], strides: [1, 2] };
    const wide = createNetwork(spec, OPTIONS);
    const pixels = data.test.images.slice(0, elements);
    const normalized = Float32Array.from(pixels, (pixel) => pixel / 255);
    const before = new Map([...wide.parameters].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]));
    const after = new Map([...before].map(([name, { shape, data }]) => [name, { shape, data: data.map((value) => value / 2) }]));
    expect(wide.parameterCount).to.be.above(2 ** 20);
    const expected = await wide.logits(pixels);
    const expectedGradients = await wide.lossAndGradients(normalized.slice(), [1]);
    wide.setParameters(after);
    const halved = await wide.logits(pixels);
    expect(halved).not.to.deep.equal(expected);

    // Each call sees the parameters, and its arrays, as they were when it was made.
    wide.setParameters(before);
    const first = wide.logits(pixels);
    const again = wide.logits(pixels);
    const given = normalized.slice();
    const gradients = wide.lossAndGradients(given, [1]);
    given.fill(7);
    wide.setParameters(after);
    const second = wide.logits(pixels);
    wide.setParameters(before);
    const third = wide.logits(pixels);
    expect(await first).to.deep.equal(expected);
    expect(await again).to.deep.equal(expected);
    expect(await gradients).to.deep.equal(expectedGradients);
    expect(await second).to.deep.equal(halved);
    expect(await third).to.deep.equal(expected);

    // As are steps, and what is fetched behind them.
    const step = await wide.prepareTraining({ batchSize: 1 });
    wide.setParameters(after);
    const steps = [0.5, 0].map((learningRate) =>
      step.run({ learningRate, momentum: 0, weightDecay: 0, images: normalized, labels: [1] }),
    );
    const fetched = wide.refreshParameters();
    const [one, two] = await Promise.all(steps);
    await fetched;
    expect(one!.loss).not.to.equal(two!.loss);
    expect(wide.weightsSha256()).to.equal(await wide.digest());
    expect(wide.parameters.get("head.fc.bias")!.data).not.to.deep.equal(after.get("head.fc.bias")!.data);
    wide.dispose();
  });

  it("are refused where they are taken away on their way to the device", async () => {
    const count = Math.ceil((9 << 20) / elements);
    const split = { count, images: new Uint8Array(count * elements), labels: new Int32Array(count) };
    const preparing = network.prepareTraining({ batchSize: 2, data: split });
    await new Promise((resolve) => setImmediate(resolve));
    structuredClone(split.images.buffer, { transfer: [split.images.buffer] });
    expect(await rejection(preparing, "ERR_INVALID_ARGUMENT")).to.match(/taken away/);
    // Nothing waits for it.
    expect(await network.predict(data.test.images.slice(0, elements))).to.have.lengthOf(TINY_REVNET.classes);
  });

  it("may be used again where they are image files", async () => {
    const [height, width, channels] = TINY_REVNET.input;
    const raw = { width, height, channels: channels as 1 | 3 };
    const encode = (i: number) =>
      sharp(data.test.images.slice(i * elements, (i + 1) * elements), { raw })
        .png()
        .toBuffer();
    const files = (await Promise.all([0, 1, 2, 3].map(encode))).map((file) => new Uint8Array(file));
    const expected = await network.predict(files);
    const predicted = network.predict(files);
    for (const file of files) file.fill(0);
    expect(await predicted).to.deep.equal(expected);
  });

  it("are refused where they have lost their memory, and said to", async () => {
    const bytes = 2 * elements;
    for (const images of gone((buffer) => new Uint8Array(buffer), bytes)) {
      for (const call of [network.predict(images), network.logits(images), network.reconstruct(images), network.predict([images])])
        expect(await rejection(call, "ERR_INVALID_ARGUMENT")).to.include(GONE);
      const split = { count: 2, images, labels: Int32Array.of(0, 1) };
      expect(await rejection(network.evaluate(split), "ERR_INVALID_ARGUMENT")).to.include(GONE);
    }
    const labels = [0, 1];
    for (const images of gone((buffer) => new Float32Array(buffer), 4 * bytes)) {
      expect(await rejection(network.lossAndGradients(images, labels), "ERR_INVALID_ARGUMENT")).to.include(GONE);
      const step = await network.prepareTraining({ batchSize: 2 });
      const settings = { learningRate: 0, momentum: 0, weightDecay: 0 };
      expect(await rejection(step.run({ ...settings, images, labels }), "ERR_INVALID_ARGUMENT")).to.include(GONE);
      const shape = [TINY_REVNET.classes];
      expect(thrown(() => network.setParameters({ "head.fc.bias": { shape, data: images } })).message).to.include(GONE);
      expect(thrown(() => (network.preprocessing = { mean: images, scale: 1 })).message).to.include(GONE);
    }
    for (const array of gone((buffer) => new Int32Array(buffer), 8)) {
      const images = data.test.images.slice(0, bytes);
      expect(await rejection(network.evaluate({ count: 2, images, labels: array }), "ERR_INVALID_ARGUMENT")).to.include(GONE);
    }
  });

  it("are refused where their memory is taken away between two batches", async () => {
    const images = data.test.images.slice();
    const split = { ...data.test, images };
    const take = () => {
      if (images.length > 0) structuredClone(images.buffer, { transfer: [images.buffer as ArrayBuffer] });
    };
    const message = await rejection(network.evaluate(split, { batchSize: 4, onProgress: take }), "ERR_INVALID_DATA");
    expect(message).to.include("its images").and.include(GONE);
  });

  it("bring a warning, once, where pixels from 0 to 1 are given for 0 to 255", async () => {
    const warnings: string[] = [];
    const listen = (warning: Error & { code?: string }) => {
      if (warning.code === "REVNET_PIXELS_AT_MOST_1") warnings.push(warning.message);
    };
    process.on("warning", listen);
    const told = async (pixels: Float32Array | Uint8Array, times = 1) => {
      for (let i = 0; i < times; ++i) await network.predict(pixels);
      await new Promise((resolve) => setImmediate(resolve));
      return warnings.length;
    };
    const between = Float32Array.from({ length: 2 * elements }, (_, i) => (i % 100) / 100);
    try {
      expect(await told(between.map((value) => 255 * value)), "0 to 255").to.equal(0);
      expect(await told(new Float32Array(elements)), "black").to.equal(0);
      expect(await told(new Uint8Array(elements).fill(1)), "bytes").to.equal(0);
      network.preprocessing = { mean: network.preprocessing.mean, scale: 2 };
      expect(await told(between), "a network of pixels from 0 to 1").to.equal(0);
      network.preprocessing = { mean: network.preprocessing.mean, scale: 1 / 64 };
      expect(await told(between, 2)).to.equal(1);
      expect(warnings[0]).to.include("0 to 255").and.include(TINY_REVNET.name);
    } finally {
      process.off("warning", listen);
    }
  });
});

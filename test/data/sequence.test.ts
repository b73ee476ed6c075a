import { expect } from "chai";
import { readDataset } from "../../lib/data/sequence.js";
import { createNetwork, type DatasetInput, type LabelledImage, trainRevNet } from "../../lib/index.js";
import { rejection } from "../support/errors.js";
import { picture } from "../support/pictures.js";
import { TINY_REVNET, tinyDataset } from "../support/tiny.js";

const { train, test } = tinyDataset();

function* images(split = train): Generator<LabelledImage> {
  for (let i = 0; i < split.count; i++) yield { image: split.images.subarray(i * 192, (i + 1) * 192), label: split.labels[i]! };
}

async function* slowly(split = train): AsyncGenerator<LabelledImage> {
  for (const item of images(split)) yield item;
}

const input = (overrides: Partial<DatasetInput> = {}): DatasetInput => ({
  name: "quadrants",
  classes: ["a", "b", "c", "d"],
  train: images(),
  test: images(test),
  ...overrides,
});
const OPTIONS = { model: TINY_REVNET, batchSize: 16, steps: 6, seed: 5, device: "cpu", augment: { padding: 1, flip: true } };

async function weights(data: DatasetInput, options: object = {}): Promise<string> {
  const { network, summary } = await trainRevNet({ ...OPTIONS, data, ...options });
  network.dispose();
  return summary.weightsSha256;
}

describe("sequences of images", () => {
  it("train as the same images in memory do: an iterable, an async one, an array", async () => {
    const expected = await weights(tinyDataset());
    expect(await weights(input())).to.equal(expected);
    expect(await weights(input({ train: slowly(), test: slowly(test) }))).to.equal(expected);
    expect(await weights(input({ train: [...images()], shape: [8, 8, 3] }))).to.equal(expected);
  });

  it("are streamed where a function gives them: called for each epoch, in their own order, resumable at any step", async () => {
    const epochs: number[] = [];
    const source = (epoch: number) => {
      epochs.push(epoch);
      return slowly();
    };
    const streamed = input({ train: source, test: () => images(test) });
    const whole = await weights(streamed, { preciseBatchNorm: false });
    // Read through once; then 4 steps an epoch, and once more for the check of the reconstruction.
    expect(epochs).to.deep.equal([0, 0, 1, 0]);
    epochs.length = 0;
    expect(await weights(streamed, { preciseBatchNorm: true, validateEvery: 6 })).to.not.equal(whole);
    // And once more where running statistics are estimated.
    expect(epochs).to.deep.equal([0, 0, 1, 0, 0]);
    const others = { preciseBatchNorm: false };
    expect(await weights(streamed, { ...others, activations: "stored" })).to.equal(whole);
    expect(await weights(input({ train: () => images(), test: images(test) }), others)).to.equal(whole);

    const dataset = await readDataset(streamed, [8, 8, 3]);
    if (!("batches" in dataset.train)) return expect.fail("it is not streamed");
    const request = { batchSize: 16, seed: 0, stepsPerEpoch: 4, indices: () => new Int32Array(0), resizedCrop: 0 };
    const batches: Uint8Array[] = [];
    for await (const batch of dataset.train.batches({ ...request, steps: [3, 5] })) batches.push(batch.images);
    expect(batches).to.deep.equal([train.images.subarray(48 * 192, 64 * 192), train.images.subarray(0, 16 * 192)]);
  });

  it("evaluate as the same images in memory do", async () => {
    const network = createNetwork(TINY_REVNET, { device: "cpu" });
    const streamed = await readDataset(input({ train: () => images(), test: () => slowly(test) }), [8, 8, 3]);
    const expected = await network.evaluate(test, { batchSize: 8 });
    expect(await network.evaluate(streamed, { batchSize: 8 })).to.deep.equal(expected);
    network.dispose();
  });

  it("may hold the bytes of image files", async () => {
    const file = { image: new Uint8Array(await picture([10, 200, 10], 1)), label: 1 };
    const dataset = await readDataset(input({ train: [file, file], test: [file] }), [8, 8, 3]);
    if (!("images" in dataset.test)) return expect.fail("it is not in memory");
    expect(dataset.test.images).to.have.length(192);
    expect(dataset.test.images[1]! - dataset.test.images[0]!).to.be.within(180, 200);
  });

  const broken: [string, unknown, RegExp][] = [
    ["no object", 7, /^data\.train\[1\]: expected \{ image, label \}, got 7/],
    ["a label out of range", { image: new Uint8Array(192), label: 4 }, /^data\.train\[1\]\.label: .*0 to 3, got 4/],
    ["an image of another size", { image: new Uint8Array(191), label: 0 }, /^data\.train\[1\]\.image: .*192 bytes.*got 191/],
    ["an image of floats", { image: new Float32Array(192), label: 0 }, /^data\.train\[1\]\.image: expected a Uint8Array/],
    ["a damaged file", { image: Uint8Array.of(0xff, 0xd8, 0xff, 0, 1), label: 0 }, /^data\.train\[1\]\.image: /],
  ];
  for (const [what, item, message] of broken)
    it(`are refused with ${what}, by index`, async () => {
      const list = [[...images()][0]!, item as LabelledImage];
      expect(await rejection(trainRevNet({ ...OPTIONS, data: input({ train: list }) }), "ERR_INVALID_DATA")).to.match(message);
      expect(await rejection(trainRevNet({ ...OPTIONS, data: input({ train: () => list }) }), "ERR_INVALID_DATA")).to.match(
        message,
      );
    });

  it("are refused where they fail, are empty, or give fewer images in a later epoch", async () => {
    function* failing() {
      yield* images(test);
      throw new Error("the camera is off");
    }
    const fails = (data: DatasetInput) => rejection(trainRevNet({ ...OPTIONS, data }), "ERR_INVALID_DATA");
    expect(await fails(input({ train: failing() }))).to.equal("data.train[22]: the camera is off");
    expect(await fails(input({ train: [] }))).to.equal("data.train: no images");
    expect(await fails(input({ train: () => [] }))).to.equal("data.train: no images");
    expect(await fails(input({ train: (() => 5) as never }))).to.include("return an iterable, got 5");
    const once = images();
    expect(await fails(input({ train: () => once }))).to.include("each is to give a new iterable");
    const { train, ...rest } = input({ train: [...images()] });
    expect(await fails(rest as never)).to.match(/^data\.train: expected \{ count.*or an iterable of .*got undefined/);
    expect(await fails({ ...rest, train, test: 5 as never })).to.match(/^data\.test: expected .*got 5/);
    const fewer = (epoch: number) => [...images()].slice(0, epoch === 0 ? 64 : 20);
    expect(await fails(input({ train: fewer }))).to.include("epoch 1 has fewer than the 64 images");
  });

  it("can be aborted while they hang", async () => {
    const controller = new AbortController();
    async function* hanging(epoch: number) {
      yield* images();
      if (epoch > 0) await new Promise(() => {});
    }
    const calls = { count: 0 };
    const source = () => hanging(calls.count++ > 0 ? 1 : 0);
    const run = trainRevNet({ ...OPTIONS, data: input({ train: source }), signal: controller.signal });
    for await (const event of run) if (event.type === "step" && event.step === 4) break;
    controller.abort();
    await rejection(run, "ERR_ABORTED");
  });
});

import { expect } from "chai";
import {
  chooseSplit,
  type Dataset,
  holdOut,
  inOrder,
  meanImage,
  readImages,
  type Split,
  type StreamedSplit,
  take,
  validateDataset,
} from "../../lib/data/dataset.js";
import { trainingShape } from "../../lib/data/open.js";
import { permutation } from "../../lib/data/random.js";
import { RevNetError } from "../../lib/errors.js";
import { openDataset } from "../../lib/index.js";
import { rejection, thrown } from "../support/errors.js";

const split = () => ({ count: 2, images: Uint8Array.from([1, 2, 3, 4, 5, 7, 9, 11]), labels: Int32Array.from([0, 1]) });
const dataset = () => ({ name: "tiny", shape: [2, 2, 1], classes: ["a", "b"], train: split(), test: split() });

describe("data sets", () => {
  it("have a mean image", async () => {
    expect([...(await meanImage(split()))]).to.deep.equal([3, 4.5, 6, 7.5]);
  });

  it("may be any object that satisfies Dataset", () => {
    expect(validateDataset(dataset()).name).to.equal("tiny");
  });

  const broken: [string, Record<string, unknown>, RegExp][] = [
    ["no name", { name: undefined }, /^data\.name/],
    ["a shape of two", { shape: [2, 2] }, /^data\.shape/],
    ["one class", { classes: ["a"] }, /^data\.classes/],
    ["no test split", { test: undefined }, /^data\.test/],
    ["a count of 0", { train: { ...split(), count: 0 } }, /^data\.train\.count/],
    ["images that are too few", { train: { ...split(), images: new Uint8Array(7) } }, /^data\.train\.images.*8 bytes/],
    ["images that are floats", { test: { ...split(), images: new Float32Array(8) } }, /^data\.test\.images/],
    ["no object at all", { train: 3 }, /^data\.train: expected \{ count, images, labels \}/],
    ["an empty name", { name: "" }, /^data\.name/],
    ["an edge of 0", { shape: [0, 2, 1] }, /^data\.shape/],
    ["a class that is no name", { classes: ["a", 2] }, /^data\.classes/],
    ["a count that is no integer", { train: { ...split(), count: 1.5 } }, /^data\.train\.count/],
    ["labels that are too few", { train: { ...split(), labels: Int32Array.of(0) } }, /^data\.train\.labels/],
    ["a label below 0", { train: { ...split(), labels: Int32Array.of(-1, 0) } }, /^data\.train\.labels\[0\]: -1 /],
    ["a validation split that is none", { validation: null }, /^data\.validation/],
    [
      "a validation split with wrong labels",
      { validation: { ...split(), labels: Int32Array.of(0, 2) } },
      /^data\.validation\.labels\[1\]/,
    ],
    ["labels in a plain array", { test: { ...split(), labels: [0, 1] } }, /^data\.test\.labels/],
    ["a label out of range", { test: { ...split(), labels: Int32Array.of(0, 2) } }, /^data\.test\.labels\[1\]: 2 /],
  ];
  for (const [what, overrides, message] of broken)
    it(`are refused with ${what}`, () => {
      expect(() => validateDataset({ ...dataset(), ...overrides }))
        .to.throw(RevNetError, message)
        .with.property("code", "ERR_INVALID_DATA");
    });

  it("are known by name, with a hint at the nearest", async () => {
    expect(await rejection(openDataset("cifar10"), "ERR_INVALID_ARGUMENT")).to.include("cifar-10");
    expect(await rejection(openDataset("cifar-10"), "ERR_INVALID_ARGUMENT")).to.include("dataDir");
    expect(await rejection(openDataset("shapes", { trainCuont: 5 } as object), "ERR_INVALID_ARGUMENT")).to.include("trainCount");
    for (const trainCount of [0, -1, 1.5, Number.NaN, 1e12, "5"])
      await rejection(openDataset("shapes", { trainCount: trainCount as number }), "ERR_INVALID_ARGUMENT");
  });
});

describe("options of data sets", () => {
  const refused = (name: string, options: object) => rejection(openDataset(name, options), "ERR_INVALID_ARGUMENT");

  it("are refused by their names where they are wrong, or are another data set's", async () => {
    for (const key of ["trainCount", "testCount"])
      for (const value of [0, -1, 1.5, Number.NaN, 2 ** 20 + 1, "5", null])
        expect(await refused("shapes", { [key]: value }), `${key}: ${value}`).to.match(new RegExp(`^${key}: `));
    for (const [key, value] of [
      ["seed", -1],
      ["seed", 2 ** 53],
      ["coarse", 1],
      ["validationShare", 1.1],
      ["validationShare", -0.1],
      ["validationShare", "half"],
    ] as const)
      expect(await refused("shapes", { [key]: value })).to.match(new RegExp(`^${key}: `));
    expect(await refused("shapes", { dataDir: "x" })).to.equal("dataDir: shapes are drawn, and in no folder");
    for (const name of ["shapes", "cifar-10", "cifar-100"]) {
      expect(await refused(name, { classes: ["a"] })).to.equal("classes: is for image-folder");
      expect(await refused(name, { brokenImages: "skip" })).to.equal("brokenImages: is for image-folder");
    }
    for (const dataDir of [undefined, "", 3])
      for (const name of ["cifar-10", "cifar-100", "image-folder"])
        expect(await refused(name, { dataDir })).to.equal(`dataDir: expected the folder that holds the files of ${name}`);
    const folder = { dataDir: "x", shape: [8, 8, 3] };
    for (const classes of [[], "a", [3], ["a", null], {}])
      expect(await refused("image-folder", { ...folder, classes })).to.match(/^classes: expected an array of names/);
    expect(await refused("image-folder", { ...folder, brokenImages: "skpi" })).to.match(/^brokenImages: .*'skip'/);
    for (const shape of [undefined, [8, 8], [8, 8, 3, 1], "8x8"])
      expect(await refused("image-folder", { dataDir: "x", shape })).to.match(/^shape: expected \[height, width, channels\]/);
    for (const shape of [
      [0, 8, 3],
      [4097, 8, 3],
      [1.5, 8, 3],
    ])
      expect(await refused("image-folder", { dataDir: "x", shape })).to.match(/^shape\[0\]: expected an integer from 1 to 4096/);
    expect(await rejection(openDataset("image-folder", { ...folder, shape: [4096, 8, 3] }), "ERR_INVALID_DATA")).to.match(/^x: /);
  });

  it("hold out a share of each class for validation, or nothing", async () => {
    const options = { trainCount: 100, testCount: 10, seed: 3 };
    for (const share of [undefined, 0])
      expect(await openDataset("shapes", { ...options, validationShare: share })).to.not.have.property("validation");
    const { train, validation, test } = (await openDataset("shapes", { ...options, validationShare: 0.2 })) as Dataset;
    expect([train.count, validation!.count, test.count]).to.deep.equal([80, 20, 10]);
    for (const { count, images, labels } of [train, validation!])
      expect([images.length, labels.length]).to.deep.equal([count * 32 * 32 * 3, count]);
    const whole = (await openDataset("shapes", options)) as Dataset;
    const pictures = ({ count, images }: Split) =>
      Array.from({ length: count }, (_, i) => Buffer.from(images.subarray(i * 3072, (i + 1) * 3072)).toString("base64"));
    expect([...pictures(train), ...pictures(validation!)].sort()).to.deep.equal(pictures(whole.train).sort());
  });

  it("say how large the training split is, without reading it", () => {
    expect(trainingShape("shapes", undefined)).to.deep.equal({ images: 5000, classes: 10 });
    expect(trainingShape("shapes", 6000)).to.deep.equal({ images: 6000, classes: 10 });
    expect(trainingShape("cifar-10", undefined)).to.deep.equal({ images: 50_000, classes: 10 });
    expect(trainingShape("cifar-100", 60_000)).to.deep.equal({ images: 50_000, classes: 100 });
    expect(trainingShape("cifar-100", 20)).to.deep.equal({ images: 20, classes: 100 });
    expect(trainingShape("image-folder", 20)).to.deep.equal({});
    expect(thrown(() => trainingShape("shapes", 0)).message).to.match(/^trainCount: /);
    expect(thrown(() => trainingShape("shpaes", 1)).message).to.match(/^data: .*'shapes'/);
  });
});

describe("splits", () => {
  const numbered = (first: number, count: number): Split => ({
    count,
    images: Uint8Array.from({ length: 4 * count }, (_, i) => 4 * first + i),
    labels: Int32Array.from({ length: count }, (_, i) => (first + i) % 2),
  });
  const all: Dataset = { name: "tiny", shape: [2, 2, 1], classes: ["a", "b"], train: numbered(0, 3), test: numbered(3, 2) };

  it("are chosen by name, and are one where all are asked for", async () => {
    expect(chooseSplit(all, "train")).to.equal(all.train);
    expect(chooseSplit(all, "test")).to.equal(all.test);
    expect(chooseSplit(all, "validation")).to.equal(all.test);
    const validation = numbered(5, 1);
    const parted = { ...all, validation };
    expect(chooseSplit(parted, "validation")).to.equal(validation);
    const empty = { ...numbered(0, 0) };
    expect(chooseSplit({ ...all, test: empty }, "all")).to.equal(all.train);
    expect(thrown(() => chooseSplit({ ...all, test: empty }, "test"))).to.include({
      code: "ERR_INVALID_DATA",
      message: "tiny has no images for test",
    });

    const joined = chooseSplit(parted, "all") as StreamedSplit;
    expect(joined.count).to.equal(6);
    const batches: number[][] = [];
    const labels: number[] = [];
    for await (const batch of inOrder(joined, 2)) {
      batches.push([...batch.images]);
      labels.push(...batch.labels);
      expect(batch.broken).to.deep.equal([]);
    }
    // Training's, then validation's, then test's, none of a batch with another's.
    const images = (first: number, count: number) => Array.from({ length: 4 * count }, (_, i) => 4 * first + i);
    expect(batches).to.deep.equal([images(0, 2), images(2, 1), images(5, 1), images(3, 2)]);
    expect(labels).to.deep.equal([0, 1, 0, 1, 1, 0]);
    // Nobody trains on it.
    expect(await rejection(joined.read([0]), "ERR_INTERNAL")).to.include("for evaluation");
    expect(await rejection(joined.batches({} as never).next(), "ERR_INTERNAL")).to.include("for evaluation");
  });

  it("give images by index, and their first ones without a copy", async () => {
    expect([...(await readImages(all.train, [2, 0]))]).to.deep.equal([8, 9, 10, 11, 0, 1, 2, 3]);
    const first = take(all.train, 2);
    expect([first.count, first.images.length, first.labels.length]).to.deep.equal([2, 8, 2]);
    expect(first.images.buffer).to.equal(all.train.images.buffer);
    for (const count of [3, 4]) expect(take(all.train, count)).to.equal(all.train);
  });

  it("leave some on both sides where a share is held out, or are refused", () => {
    const many = numbered(0, 10);
    const { train, held } = holdOut(many, 0.4);
    expect([train.count, held.count]).to.deep.equal([6, 4]);
    expect([...held.labels].sort()).to.deep.equal([0, 0, 1, 1]);
    expect(holdOut(many, 0.4)).to.deep.equal({ train, held });
    expect(thrown(() => holdOut(many, 0.01)).message).to.equal("validationShare: 0.01 of 10 images leaves none to validate with");
    expect(thrown(() => holdOut(many, 1)).message).to.equal("validationShare: 1 of 10 images leaves none to train on");
  });
});

describe("permutation", () => {
  it("holds every index once", () => {
    for (const count of [1, 2, 3, 100, 5000])
      expect([...permutation(count, 7, 3)].sort((a, b) => a - b)).to.deep.equal([...Array(count).keys()]);
  });

  it("depends on the seed and the epoch alone", () => {
    expect(permutation(50, 1, 2)).to.deep.equal(permutation(50, 1, 2));
    expect(permutation(50, 1, 2)).to.not.deep.equal(permutation(50, 2, 2));
    expect(permutation(50, 1, 2)).to.not.deep.equal(permutation(50, 1, 3));
  });

  it("is uniform: each of the 6 orders of 3 comes up about equally often", () => {
    const counts = new Map<string, number>();
    const trials = 6000;
    for (let epoch = 0; epoch < trials; epoch++) {
      const order = permutation(3, 0, epoch).join("");
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).to.equal(6);
    // Five standard deviations of a binomial count: sqrt(6000 * 1/6 * 5/6) = 29.
    for (const count of counts.values()) expect(count).to.be.within(1000 - 145, 1000 + 145);
  });
});

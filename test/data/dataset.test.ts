import { expect } from "chai";
import { meanImage, validateDataset } from "../../lib/data/dataset.js";
import { permutation } from "../../lib/data/random.js";
import { RevNetError } from "../../lib/errors.js";
import { openDataset } from "../../lib/index.js";
import { rejection } from "../support/errors.js";

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

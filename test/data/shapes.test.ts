import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { expect } from "chai";
import type { Split } from "../../lib/data/dataset.js";
import { openDataset } from "../../lib/index.js";

/** Test error of softmax regression on pixels (normalised), trained by SGD: what a linear classifier can do. */
function linearClassifierError(train: Split, test: Split, classes: number): number {
  const inputs = train.images.length / train.count;
  const weights = new Float64Array(classes * (inputs + 1));
  const pixels = (split: Split, i: number) =>
    Float64Array.from(split.images.subarray(i * inputs, (i + 1) * inputs), (byte) => byte / 127.5 - 1);
  const logits = (x: Float64Array) => {
    const out = new Float64Array(classes);
    for (let k = 0; k < classes; k++) {
      const row = k * (inputs + 1);
      let sum = weights[row + inputs]!;
      for (let j = 0; j < inputs; j++) sum += weights[row + j]! * x[j]!;
      out[k] = sum;
    }
    return out;
  };
  const images = Array.from({ length: train.count }, (_, i) => pixels(train, i));
  for (let epoch = 0; epoch < 8; epoch++)
    for (const [i, x] of images.entries()) {
      const exponentials = logits(x).map(Math.exp);
      const total = exponentials.reduce((a, b) => a + b, 0);
      for (let k = 0; k < classes; k++) {
        const row = k * (inputs + 1);
        const delta = (0.001 / (1 + epoch)) * ((k === train.labels[i] ? 1 : 0) - exponentials[k]! / total);
        for (let j = 0; j < inputs; j++) weights[row + j]! += delta * x[j]!;
        weights[row + inputs]! += delta;
      }
    }
  let wrong = 0;
  for (let i = 0; i < test.count; i++) {
    const scores = logits(pixels(test, i));
    if (scores.indexOf(Math.max(...scores)) !== test.labels[i]) wrong += 1;
  }
  return wrong / test.count;
}

describe("shapes", () => {
  it("gives the asked number of 32x32 RGB images of ten classes, equally many of each", async () => {
    const dataset = await openDataset("shapes", { trainCount: 50, testCount: 20 });
    expect(dataset.shape).to.deep.equal([32, 32, 3]);
    expect(dataset.classes).to.have.length(10);
    expect(dataset.train.images.length).to.equal(50 * 3072);
    expect(dataset.test.labels).to.have.length(20);
    for (let label = 0; label < 10; label++) expect(dataset.train.labels.filter((l) => l === label)).to.have.length(5);
  });

  it("is a function of the seed: equal for equal seeds, other images for another, and no image of one split in the other", async () => {
    const [a, b, c] = await Promise.all([0, 0, 1].map((seed) => openDataset("shapes", { trainCount: 20, testCount: 20, seed })));
    expect(Buffer.compare(a!.train.images, b!.train.images)).to.equal(0);
    expect(Buffer.compare(a!.train.images, c!.train.images)).to.not.equal(0);
    expect(Buffer.compare(a!.train.images, a!.test.images)).to.not.equal(0);
  });

  it("has the same bits everywhere and for ever, as figures that were published need", async () => {
    const { train, test } = await openDataset("shapes", { trainCount: 40, testCount: 20, seed: 5 });
    expect([train, test].map(({ images }) => createHash("sha256").update(images).digest("hex"))).to.deep.equal([
      "343a488da4541d729e7a6c34ffb6cb7427469b70f369513ed546f2987ca5d55a",
      "09672a3c8d35fde24955e8758acdcbbfe9258115f921fec7c63a70127001c3a6",
    ]);
  });

  it("lets the event loop turn while it is drawn", async () => {
    let [turns, done] = [0, false];
    const drawn = openDataset("shapes", { trainCount: 1000, testCount: 10 }).finally(() => {
      done = true;
    });
    while (!done) {
      await setImmediate();
      turns += 1;
    }
    await drawn;
    // Drawn in one go, it would have two or three.
    expect(turns).to.be.greaterThan(5);
  });

  it("begins with the images of a smaller set", async () => {
    const small = await openDataset("shapes", { trainCount: 10, testCount: 5 });
    const large = await openDataset("shapes", { trainCount: 30, testCount: 15 });
    expect(Buffer.compare(small.train.images, large.train.images.subarray(0, 10 * 3072))).to.equal(0);
    expect(Buffer.compare(small.test.images, large.test.images.subarray(0, 5 * 3072))).to.equal(0);
  });

  it("defeats a linear classifier: more than 60 % test error", async () => {
    const { train, test } = await openDataset("shapes", { trainCount: 800, testCount: 400 });
    const error = linearClassifierError(train, test, 10);
    expect(error).to.be.greaterThan(0.6);
  });

  it("is within reach of the same linear classifier once the position of pixels tells the class", async () => {
    // The control of the test above: the classifier does learn where a linear one can.
    const { train, test } = await openDataset("shapes", { trainCount: 800, testCount: 400 });
    for (const split of [train, test])
      for (let i = 0; i < split.count; i++)
        split.images.fill(255, i * 3072 + split.labels[i]! * 96, i * 3072 + (split.labels[i]! + 1) * 96);
    expect(linearClassifierError(train, test, 10)).to.be.lessThan(0.2);
  });
});

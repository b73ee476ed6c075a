/** analysis.json: what of an evaluation a report shows, whatever the number of classes, and what of it is left out. */
import { inflateSync } from "node:zlib";
import { expect } from "chai";
import type { AnyDataset } from "../../lib/data/dataset.js";
import type { Evaluation } from "../../lib/network/inference.js";
import type { Reconstruction } from "../../lib/network/probe.js";
import { classScores } from "../../lib/network/scores.js";
import { analyse, MAX_CONFUSION } from "../../lib/report/analysis.js";
import { TINY_REVNET } from "../support/tiny.js";

const PLAN = { batchSize: 2, activations: "reversible" as const, device: "reference" };

/** Test images of one grey pixel each, with the value of their index. */
function dataset(classes: number, count: number): AnyDataset {
  const split = { count, images: Uint8Array.from({ length: count }, (_, i) => i), labels: new Int32Array(count) };
  return { name: "x", shape: [1, 1, 1], classes: Array.from({ length: classes }, (_, i) => `c${i}`), train: split, test: split };
}

/** Of images as [label, prediction, loss]; a label of -1 is a broken image's. */
function evaluation(classes: number, images: readonly (readonly [number, number, number])[]): Evaluation & { step: number } {
  const confusion = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  for (const [label, prediction] of images) if (label >= 0) confusion[label]![prediction]! += 1;
  const whole = images.filter(([label]) => label >= 0);
  return {
    step: 7,
    loss: 1,
    error: 0.5,
    top5Error: null,
    calibrationError: 0.25,
    calibration: [{ images: 4, confidence: 0.5, accuracy: 0.75 }],
    classScores: classScores(confusion),
    confusion,
    losses: Float64Array.from(images, ([, , loss]) => loss),
    predictions: Int32Array.from(images, ([, prediction]) => prediction),
    labels: Int32Array.from(images, ([label]) => label),
    broken: Array.from({ length: images.length - whole.length }, (_, i) => ({ file: `${i}.jpg`, reason: "damaged" })),
    outOfRange: 0,
  };
}

const findings = (classes: number, images: readonly (readonly [number, number, number])[]) => ({
  spec: TINY_REVNET,
  dataset: dataset(classes, images.length),
  plan: PLAN,
  evaluation: evaluation(classes, images),
  reconstruction: undefined,
});

/** The grey value of an image of one pixel. */
function grey(dataUrl: string): number {
  const png = Buffer.from(dataUrl.replace("data:image/png;base64,", ""), "base64");
  const at = png.indexOf("IDAT");
  return inflateSync(png.subarray(at + 4, at + 4 + png.readUInt32BE(at - 4)))[1]!;
}

describe("an analysis", () => {
  for (const classes of [2, 10, 11, 100, MAX_CONFUSION])
    it(`has the confusion matrix of ${classes} classes, by label and prediction`, async () => {
      const { evaluation } = await analyse(
        findings(classes, [
          [0, classes - 1, 1],
          [0, classes - 1, 2],
          [classes - 1, 0, 3],
          [1, 1, 0.5],
        ]),
      );
      const { confusion } = evaluation!;
      expect(confusion).to.have.length(classes);
      expect(confusion![0]![classes - 1]).to.equal(2);
      expect(confusion![classes - 1]![0]).to.equal(1);
      expect(confusion!.flat().reduce((sum, cell) => sum + cell, 0)).to.equal(4);
    });

  it(`leaves it out beyond ${MAX_CONFUSION} classes, and keeps the rest`, async () => {
    const { classes, evaluation } = await analyse(findings(MAX_CONFUSION + 1, [[0, MAX_CONFUSION, 1]]));
    expect(classes).to.have.length(MAX_CONFUSION + 1);
    expect(evaluation!.confusion).to.equal(null);
    expect(evaluation!.mistakes).to.have.length(1);
  });

  it("has the mistakes with the greatest losses first, each with its own image, and no more than 24", async () => {
    const images = Array.from({ length: 40 }, (_, i): [number, number, number] => [i % 2, i % 4 === 0 ? 0 : 1, (i * 7) % 40]);
    const { mistakes, step } = (await analyse(findings(2, images))).evaluation!;
    expect(step).to.equal(7);
    const expected = [...images.entries()].filter(([, [label, prediction]]) => label !== prediction);
    expected.sort(([, a], [, b]) => b[2] - a[2]);
    expect(expected).to.have.length(10);
    expect(mistakes.map(({ image, file: _, ...rest }) => ({ ...rest, grey: grey(image!) }))).to.deep.equal(
      expected.map(([index, [label, prediction, loss]]) => ({ index, label, prediction, loss, grey: index })),
    );
    const all = Array.from({ length: 40 }, (_, i): [number, number, number] => [0, 1, i]);
    const most = (await analyse(findings(2, all))).evaluation!.mistakes;
    expect(most.map(({ index }) => index)).to.deep.equal(Array.from({ length: 24 }, (_, i) => 39 - i));
  });

  it("counts the images that could be decoded", async () => {
    const { evaluation } = await analyse(
      findings(2, [
        [0, 0, 1],
        [-1, -1, 0],
        [1, 0, 2],
        [-1, -1, 0],
      ]),
    );
    expect(evaluation!.images).to.equal(2);
    expect(evaluation!.mistakes.map(({ index }) => index)).to.deep.equal([2]);
  });

  it("has no image of what is no colours", async () => {
    const given = findings(2, [[0, 1, 1]]);
    const split = { count: 1, images: new Uint8Array(5), labels: new Int32Array(1) };
    const { evaluation } = await analyse({ ...given, dataset: { ...given.dataset, shape: [1, 1, 5], test: split } as AnyDataset });
    expect(evaluation!.mistakes[0]!.image).to.equal(null);
  });

  it("has what was evaluated and reconstructed, and nothing else", async () => {
    const none = await analyse({ ...findings(2, []), evaluation: undefined });
    expect([none.evaluation, none.reconstruction]).to.deep.equal([null, null]);
    const blocks = [
      { stage: 0, block: 1, error: 0 },
      { stage: 1, block: 1, error: Number.NaN },
      { stage: 1, block: 2, error: 0.5 },
    ];
    const reconstruction = { blocks, max: 0.5, outOfRange: 0 } as unknown as Reconstruction;
    const some = await analyse({ ...findings(2, []), evaluation: undefined, reconstruction });
    expect(some.reconstruction).to.deep.equal([blocks[0], { stage: 1, block: 1, error: null }, blocks[2]]);
  });

  it("plans the network itself, and three and nine times as deep", async () => {
    const { memory } = await analyse({ ...findings(2, []), evaluation: undefined });
    expect(memory.map(({ factor, blocks }) => [factor, blocks])).to.deep.equal([
      [1, 4],
      [3, 12],
      [9, 36],
    ]);
    const [one, three, nine] = memory;
    expect(three!.reversible.activations).to.equal(nine!.reversible.activations);
    expect(nine!.stored.activations).to.be.greaterThan(2 * three!.stored.activations);
    expect(one!.stored.activations).to.be.greaterThan(one!.reversible.activations);
  });
});

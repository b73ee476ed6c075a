/** What is said of a classifier's answers: by hand for a few images, and by definition for many. */
import { expect } from "chai";
import { CALIBRATION_BINS, classScores, macroF1, namedScores, Scores } from "../../lib/network/scores.js";
import { Random } from "../../lib/verify/random.js";

/** Logits whose softmax these are. */
const logitsOf = (...probabilities: number[]) => Float64Array.from(probabilities, Math.log);

describe("scores", () => {
  it("count precision, recall and F1 of each class", () => {
    // Rows: labels. Class 2 has no images, class 3 is never the answer, class 4 neither.
    const scores = classScores([
      [6, 2, 2, 0, 0],
      [1, 4, 0, 0, 0],
      [0, 0, 0, 0, 0],
      [3, 0, 0, 0, 0],
      [0, 0, 0, 0, 0],
    ]);
    expect(scores).to.deep.equal([
      { images: 10, precision: 6 / 10, recall: 6 / 10, f1: 12 / 20 },
      { images: 5, precision: 4 / 6, recall: 4 / 5, f1: 8 / 11 },
      { images: 0, precision: 0, recall: null, f1: 0 },
      { images: 3, precision: null, recall: 0, f1: 0 },
      { images: 0, precision: null, recall: null, f1: null },
    ]);
    expect(macroF1(scores)).to.be.closeTo((0.6 + 8 / 11 + 0) / 3, 1e-15);
    expect(macroF1(classScores([[0]]))).to.equal(null);
  });

  it("name the classes of lowest F1 where there are too many", () => {
    const scores = classScores([
      [1, 1, 0, 0],
      [0, 2, 0, 0],
      [0, 0, 0, 0],
      [0, 1, 0, 0],
    ]);
    const names = ["a", "b", "c", "d"];
    expect(namedScores(scores, names, 4).map(({ name }) => name)).to.deep.equal(names);
    expect(namedScores(scores, names, 3).map(({ name }) => name)).to.deep.equal(["d", "a", "b"]);
    expect(namedScores(scores, names, 2).map(({ name }) => name)).to.deep.equal(["d", "a"]);
  });

  it("measure the calibration in fifteen parts of the probability", () => {
    const scores = new Scores(2);
    // Three answers of 0.9, of which two are right, and one of 0.6, which is wrong.
    for (const [label, first] of [
      [0, 0.9],
      [0, 0.9],
      [1, 0.9],
      [0, 0.4],
    ] as const)
      scores.add(label, logitsOf(first, 1 - first));
    expect(scores.images).to.equal(4);
    expect(scores.error).to.equal(0.5);
    expect(scores.calibrationError).to.be.closeTo((3 * Math.abs(0.9 - 2 / 3) + 0.6) / 4, 1e-6);
    const bins = scores.calibration;
    expect(bins).to.have.length(CALIBRATION_BINS);
    expect(bins.map(({ images }) => images)).to.deep.equal([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0]);
    expect(bins[13]!.confidence).to.be.closeTo(0.9, 1e-6);
    expect(bins[13]!.accuracy).to.equal(2 / 3);
    expect(bins[0]).to.deep.equal({ images: 0, confidence: null, accuracy: null });
    const sure = new Scores(2);
    sure.add(0, Float64Array.of(1000, 0));
    expect(sure.calibration[14]).to.deep.equal({ images: 1, confidence: 1, accuracy: 1 });
    expect(sure.calibrationError).to.equal(0);
  });

  it("know the five most probable classes, of equal ones the first", () => {
    const random = new Random(3);
    const scores = new Scores(12);
    let missed = 0;
    for (let image = 0; image < 500; image++) {
      // Whole numbers, so that many are equal.
      const logits = Float64Array.from({ length: 12 }, () => Math.floor(random.uniform() * 6));
      const label = Math.floor(random.uniform() * 12);
      const order = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
      if (!order.slice(0, 5).includes(label)) missed += 1;
      expect(scores.add(label, logits)).to.equal(order[0]);
    }
    expect(scores.top5Error).to.equal(missed / 500);
    expect(missed).to.be.within(200, 350);
    const few = new Scores(5);
    few.add(1, logitsOf(0.1, 0.2, 0.3, 0.2, 0.2));
    expect(few.top5Error).to.equal(null);
  });
});

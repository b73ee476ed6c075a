/** Which validation counts as the best one, and how many came since. */
import { expect } from "chai";
import { BestSoFar } from "../../lib/training/best.js";

describe("the best validation", () => {
  it("has the lowest error, and among equal ones the lowest loss", () => {
    const best = new BestSoFar();
    const validations: [loss: number, error: number, better: boolean][] = [
      [2, 0.5, true],
      [1, 0.75, false],
      [3, 0.25, true],
      [3, 0.25, false],
      [2.5, 0.25, true],
      [0.1, 0.5, false],
    ];
    for (const [i, [loss, error, better]] of validations.entries())
      expect(best.take(i + 1, { loss, error }), `validation ${i + 1}`).to.equal(better);
    expect(best.best).to.deep.equal({ step: 5, loss: 2.5, error: 0.25 });
    expect(best.since).to.equal(1);
  });

  for (const loss of [Number.POSITIVE_INFINITY, Number.NaN])
    it(`is none with a loss of ${loss}, be it the first or have the lowest error`, () => {
      const best = new BestSoFar();
      expect(best.take(1, { loss, error: 0.5 })).to.equal(false);
      expect([best.best, best.since]).to.deep.equal([null, 1]);
      expect(best.take(2, { loss: 5, error: 0.75 })).to.equal(true);
      expect(best.take(3, { loss, error: 0 })).to.equal(false);
      expect(best.best).to.deep.equal({ step: 2, loss: 5, error: 0.75 });
      expect(best.since).to.equal(1);
    });

  it("is counted from, over each validation that is not better", () => {
    const best = new BestSoFar();
    const counts = [0.5, 0.6, 0.5, 0.7, 0.4, 0.4].map((error, i) => {
      best.take(i + 1, { loss: 1, error });
      return best.since;
    });
    expect(counts).to.deep.equal([0, 1, 2, 3, 0, 1]);
  });

  it("is not counted again where a run makes the same validation once more", () => {
    const best = new BestSoFar();
    best.take(10, { loss: 1, error: 0.5 });
    best.take(20, { loss: 1, error: 0.6 });
    expect(best.take(20, { loss: 1, error: 0.1 })).to.equal(false);
    expect([best.best?.step, best.since]).to.deep.equal([10, 1]);
  });

  it("goes on from a checkpoint as if the run had never stopped", () => {
    const [whole, first, second] = [new BestSoFar(), new BestSoFar(), new BestSoFar()];
    const errors = [0.5, 0.6, 0.7];
    for (const [i, error] of errors.entries()) for (const best of [whole, first]) best.take(i + 1, { loss: 1, error });
    second.restore({ step: 3, outOfRange: 0, metricsBytes: 0, ...first.progress });
    expect(second.progress).to.deep.equal({ best: { step: 1, loss: 1, error: 0.5 }, sinceBest: 2, validated: 3 });
    for (const best of [whole, second]) {
      expect(best.take(3, { loss: 1, error: 0.1 }), "validated before the checkpoint").to.equal(false);
      expect(best.isBeatenBy({ loss: 0.9, error: 0.5 })).to.equal(true);
      best.take(4, { loss: 2, error: 0.5 });
    }
    expect(second.progress).to.deep.equal(whole.progress);
    expect(second.since).to.equal(3);
  });
});

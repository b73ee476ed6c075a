/** The figures that a run ends with, from steps whose figures are known. */
import { expect } from "chai";
import fc from "fast-check";
import { averages, stepStatistics } from "../../lib/training/summary.js";

describe("step times", () => {
  it("have a median, a tenth and a ninetieth percentile, in whatever order the steps came", () => {
    const durations = [7, 3, 11, 1, 9, 5, 2, 10, 4, 8, 6];
    expect(stepStatistics(durations)).to.deep.equal({ median: 6, p10: 2, p90: 10 });
    // As numbers: in the order of their texts, 10 would come before 9.
    expect(stepStatistics([100, 9, 10])).to.deep.equal({ median: 10, p10: 9, p90: 100 });
    expect(durations[0], "the run's own list keeps its order").to.equal(7);
  });

  it("are the nearest step's where a percentile lies between two", () => {
    const to = (count: number) => Array.from({ length: count }, (_, i) => i);
    // At (count - 1) * 0.1, * 0.5 and * 0.9, rounded.
    expect(stepStatistics(to(21))).to.deep.equal({ median: 10, p10: 2, p90: 18 });
    expect(stepStatistics(to(15))).to.deep.equal({ median: 7, p10: 1, p90: 13 });
    expect(stepStatistics(to(17))).to.deep.equal({ median: 8, p10: 2, p90: 14 });
  });

  it("are those of one step, or 0 of none", () => {
    expect(stepStatistics([4])).to.deep.equal({ median: 4, p10: 4, p90: 4 });
    expect(stepStatistics([])).to.deep.equal({ median: 0, p10: 0, p90: 0 });
  });

  it("are in order, and among the durations", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 40 }), (durations) => {
        const { p10, median, p90 } = stepStatistics(durations);
        expect(p10).to.be.at.most(median);
        expect(median).to.be.at.most(p90);
        for (const value of [p10, median, p90]) expect(durations).to.include(value);
      }),
    );
  });
});

describe("averages of steps", () => {
  it("count every step, the first and the last as well", () => {
    const steps = [
      { loss: 8, error: 1 },
      { loss: 2, error: 0.25 },
      { loss: 1, error: 0.25 },
      { loss: 5, error: 0 },
    ];
    expect(averages(steps)).to.deep.equal({ loss: 4, error: 0.375 });
    expect(averages(steps.slice(0, 1))).to.deep.equal({ loss: 8, error: 1 });
  });
});

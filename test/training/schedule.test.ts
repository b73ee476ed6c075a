import { expect } from "chai";
import { learningRateAt, resolveSchedule, SCHEDULE_NAMES } from "../../lib/schedules/index.js";
import { Batches } from "../../lib/training/batches.js";

const rates = (schedule: Parameters<typeof learningRateAt>[0], steps: number) =>
  Array.from({ length: steps }, (_, step) => learningRateAt(schedule, 1, step, steps));

describe("schedules", () => {
  it("drop by gamma at each milestone, a fraction of the steps", () => {
    const schedule = { type: "step", milestones: [0.5, 0.75], gamma: 0.1 } as const;
    expect(rates(schedule, 8)).to.deep.equal([1, 1, 1, 1, 0.1, 0.1, 0.1 * 0.1, 0.1 * 0.1]);
    // The authors' recipe: 80,000 steps, drops at 40,000 and 60,000.
    const recipe = (step: number) => learningRateAt(schedule, 0.1, step, 80_000);
    expect([0, 39_999, 40_000, 59_999, 60_000, 79_999].map(recipe).map((rate) => rate.toPrecision(3))).to.deep.equal([
      "0.100",
      "0.100",
      "0.0100",
      "0.0100",
      "0.00100",
      "0.00100",
    ]);
  });

  it("stay constant", () => {
    expect(rates({ type: "constant" }, 5)).to.deep.equal([1, 1, 1, 1, 1]);
  });

  it("follow half a cosine", () => {
    const values = rates({ type: "cosine" }, 100);
    expect(values[0]).to.equal(1);
    expect(values[50]).to.be.closeTo(0.5, 1e-12);
    expect(values[75]).to.be.closeTo((1 - Math.SQRT1_2) / 2, 1e-12);
    for (let step = 1; step < 100; step++) expect(values[step]).to.be.lessThan(values[step - 1]!);
  });

  it("rise linearly with a warm-up, over what they are", () => {
    expect(rates({ type: "constant", warmup: 0.5 }, 8)).to.deep.equal([0.25, 0.5, 0.75, 1, 1, 1, 1, 1]);
    const step = { type: "step", milestones: [0.5], gamma: 0.5 } as const;
    expect(rates({ ...step, warmup: 0.25 }, 8)).to.deep.equal([0.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]);
    const [cosine, warm] = [rates({ type: "cosine" }, 100), rates({ type: "cosine", warmup: 0.1 }, 100)];
    expect(warm.slice(9)).to.deep.equal(cosine.slice(9));
    expect(warm[4]).to.equal(cosine[4]! / 2);
    // Shorter than a step, and none at all.
    expect(rates({ type: "constant", warmup: 0.1 }, 3)).to.deep.equal([1, 1, 1]);
    expect(rates({ type: "constant", warmup: 0 }, 3)).to.deep.equal([1, 1, 1]);
  });

  it("go up and down in one cycle", () => {
    const values = rates({ type: "one-cycle", peak: 0.25, divFactor: 20, finalDivFactor: 100 }, 1000);
    expect(values[0]).to.be.closeTo(1 / 20, 1e-12);
    expect(values[125]).to.be.closeTo((1 + 1 / 20) / 2, 1e-12);
    expect(values[250]).to.equal(1);
    expect(values[625]).to.be.closeTo((1 + 1 / 2000) / 2, 1e-12);
    expect(values[999]).to.be.closeTo(1 / 2000, 1e-5);
    for (let step = 1; step < 1000; step++) expect(Math.sign(values[step]! - values[step - 1]!)).to.equal(step <= 250 ? 1 : -1);
    expect(rates({ type: "one-cycle", peak: 0, divFactor: 20, finalDivFactor: 1 }, 4)[0]).to.equal(1);
    expect(rates({ type: "one-cycle", peak: 1, divFactor: 4, finalDivFactor: 1 }, 4)[0]).to.equal(0.25);
  });

  it("may be given in part: a warm-up of the recipe's, or settings beside the defaults", () => {
    const recipe = { type: "step", milestones: [0.9], gamma: 0.5 } as const;
    expect(resolveSchedule({ warmup: 0.1 }, "ERR_X", recipe)).to.deep.equal({ ...recipe, warmup: 0.1 });
    expect(resolveSchedule({ type: "step", gamma: 0.5 }, "ERR_X", recipe)).to.deep.equal({
      type: "step",
      milestones: [0.5, 0.75],
      gamma: 0.5,
    });
    expect(resolveSchedule({ type: "one-cycle", peak: 0.5 }, "ERR_X")).to.include({ peak: 0.5, divFactor: 25 });
    expect(() => resolveSchedule({ type: "one-cycle", warmup: 0.5 }, "ERR_X")).to.throw(
      /^schedule \(one-cycle\): unknown key 'warmup'/,
    );
    expect(() => resolveSchedule({ warmup: 2 }, "ERR_X")).to.throw(/^schedule\.warmup: expected a number from 0 to 1/);
  });

  it("may be given by name", () => {
    expect(resolveSchedule("step", "ERR_X")).to.deep.equal({ type: "step", milestones: [0.5, 0.75], gamma: 0.1 });
    expect(resolveSchedule("cosine", "ERR_X")).to.deep.equal({ type: "cosine" });
    expect(resolveSchedule("constant", "ERR_X")).to.deep.equal({ type: "constant" });
    for (const name of SCHEDULE_NAMES)
      expect(resolveSchedule(resolveSchedule(name, "ERR_X"), "ERR_X")).to.have.property("type", name);
    expect(() => resolveSchedule({ type: "cosine", gamma: 0.1 }, "ERR_X")).to.throw(/^schedule \(cosine\): unknown key 'gamma'/);
    expect(() => resolveSchedule({ typ: "cosine" }, "ERR_X")).to.throw(/did you mean 'type'/);
    expect(() => resolveSchedule(5, "ERR_X")).to.throw(/^schedule: /);
    expect(() => resolveSchedule("cosin", "ERR_X")).to.throw(/did you mean 'cosine'/);
    expect(() => resolveSchedule({ type: "step", milestones: [0.75, 0.5], gamma: 0.1 }, "ERR_X")).to.throw(/ascending/);
  });
});

describe("batches", () => {
  it("cover an epoch without repetition, but for the images left over", () => {
    const batches = new Batches(23, 5, 1);
    expect(batches.stepsPerEpoch).to.equal(4);
    const seen = [0, 1, 2, 3].flatMap((step) => [...batches.at(step)]);
    expect(new Set(seen)).to.have.property("size", 20);
    for (const index of seen) expect(index).to.be.within(0, 22);
  });

  it("come in another order each epoch, however many there have been", () => {
    const batches = new Batches(20, 10, 1);
    const epochs = Array.from({ length: 50 }, (_, epoch) => [...batches.at(2 * epoch), ...batches.at(2 * epoch + 1)]);
    for (const order of epochs) expect([...order].sort((a, b) => a - b)).to.deep.equal([...Array(20).keys()]);
    expect(new Set(epochs.map(String)).size).to.equal(50);
    // Beyond 2^32 epochs, too.
    expect(batches.at(2 ** 33)).to.not.deep.equal(batches.at(0));
  });

  it("leave over other images in each epoch", () => {
    const batches = new Batches(7, 3, 1);
    const leftOver = (epoch: number) => {
      const seen = [...batches.at(2 * epoch), ...batches.at(2 * epoch + 1)];
      return [...Array(7).keys()].filter((index) => !seen.includes(index)).join();
    };
    expect(new Set(Array.from({ length: 60 }, (_, epoch) => leftOver(epoch))).size).to.equal(7);
  });

  it("come in another order with another seed", () => {
    expect(new Batches(20, 10, 1).at(0)).to.not.deep.equal(new Batches(20, 10, 2).at(0));
  });

  it("can be computed for any step without those before it", () => {
    const forwards = new Batches(20, 6, 9);
    const all = Array.from({ length: 12 }, (_, step) => forwards.at(step));
    for (const step of [11, 3, 7, 0]) expect(new Batches(20, 6, 9).at(step)).to.deep.equal(all[step]);
  });
});

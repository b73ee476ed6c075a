/** What ends a run that has diverged. */
import { expect } from "chai";
import { chanceWarning, DivergenceWatch, MOST_OUT_OF_RANGE } from "../../lib/training/divergence.js";
import type { StepDone } from "../../lib/training/stepper.js";

const ELEMENTS = 100_000;
const RATE = 0.4;
const FEW = 1;
const MANY = ELEMENTS * MOST_OUT_OF_RANGE.share;

const done = (result: Partial<StepDone> = {}): StepDone => ({
  ...{ loss: 2, correct: 3, outOfRange: 0, notFinite: [], learningRate: RATE, broken: [], milliseconds: 1 },
  ...result,
});

describe("the watch for divergence", () => {
  let watch: DivergenceWatch;
  let asked: number;
  let step: number;
  beforeEach(() => {
    watch = new DivergenceWatch(ELEMENTS, RATE);
    asked = step = 0;
  });
  const check = (result: Partial<StepDone> = {}, culprit?: string) =>
    watch.check(++step, done(result), () => {
      asked += 1;
      return Promise.resolve(culprit);
    });

  it("lets a run go on whose values are finite and in range, and asks the device for nothing", async () => {
    for (let i = 0; i < 100; ++i) expect(await check()).to.equal(undefined);
    expect(asked).to.equal(0);
  });

  it("names what is not finite, the step and a lower learning rate", async () => {
    for (const result of [
      { loss: Number.NaN },
      { loss: Infinity },
      { notFinite: ["parameters"] },
      { notFinite: ["statistics"] },
    ] as const) {
      const found = (await check(result, "'stem.weight' holds NaN"))!;
      expect(found.code).to.equal("ERR_NOT_FINITE");
      expect(found.message)
        .to.include(`step ${step} diverged`)
        .and.include("'stem.weight' holds NaN")
        .and.include("rate of 0.04 instead of 0.4");
      if (result.loss !== undefined) expect(found.message).to.include(`its loss is ${result.loss}`);
    }
    const unnamed = (await check({ notFinite: ["statistics", "parameters"], learningRate: 0.1 }))!;
    expect(unnamed.message)
      .to.include("its statistics are NaN, infinite or beyond 2^64, its parameters are NaN, infinite or beyond 2^64")
      .and.include("it was 0.1 in this step");
  });

  it("tells images that are not finite from weights", async () => {
    const found = (await check({ loss: Number.NaN, notFinite: ["images", "statistics", "parameters"] }))!;
    expect(found.code).to.equal("ERR_NOT_FINITE");
    expect(found.message).to.include("the images of step 1").and.include("mean and scale").and.not.include("learning rate");
  });

  it("ends a run once a share of a step's values is out of range", async () => {
    expect(await check({ outOfRange: MANY })).to.equal(undefined);
    const found = (await check({ outOfRange: MANY + 1 }))!;
    expect(found.code).to.equal("ERR_OUT_OF_RANGE");
    expect(found.message)
      .to.include("101 of 100,000 values")
      .and.include("in step 2")
      .and.include("rate of 0.04")
      .and.include("float32");
  });

  it("ends a run once so many steps in a row have any, and counts anew after one that has none", async () => {
    const { stepsInARow } = MOST_OUT_OF_RANGE;
    for (let round = 0; round < 2; ++round) {
      for (let i = 1; i < stepsInARow; ++i) expect(await check({ outOfRange: FEW })).to.equal(undefined);
      expect(await check()).to.equal(undefined);
    }
    for (let i = 1; i < stepsInARow; ++i) await check({ outOfRange: FEW });
    const found = (await check({ outOfRange: FEW }))!;
    expect(found.code).to.equal("ERR_OUT_OF_RANGE");
    expect(found.message).to.include(`each of the last ${stepsInARow} steps`);
  });
});

describe("the warning of a loss beyond that of guessing", () => {
  it("comes where a run ended far above it, not where it has yet to learn", () => {
    expect(chanceWarning(60, 1.2, 10)).to.equal(undefined);
    expect(chanceWarning(6, 2.9, 10), "the first steps of a network").to.equal(undefined);
    const warning = chanceWarning(60, 10.9, 10)!;
    expect(warning).to.include({ type: "warning", step: 60, code: "REVNET_ABOVE_CHANCE" });
    expect(warning.message).to.include("10.9").and.include("2.303");
    expect(chanceWarning(60, 10.9, 1000), "1,000 classes").to.equal(undefined);
  });
});

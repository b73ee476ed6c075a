/** When a step is started: while the one before it runs, but not across what needs the network as it is. */
import { expect } from "chai";
import type { StepResult, TrainingStep } from "../../lib/network/training-step.js";
import type { Fed, Feed } from "../../lib/training/feed.js";
import { resolveOptions } from "../../lib/training/options.js";
import { Stepper } from "../../lib/training/stepper.js";
import { tinyOptions } from "../support/tiny.js";

const RESULT: StepResult = { loss: 1, correct: 3, outOfRange: 0 };
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("steps", () => {
  /** Steps that were started, in order, each with what ends it. */
  let started: { step: number; learningRate: number; end: (result: StepResult) => void; fail: (error: Error) => void }[];
  let asked: number;
  let stepper: Stepper;

  function begin(feed: Partial<Feed> = {}) {
    started = [];
    asked = 0;
    const run = ({ step = -1, learningRate }: { step?: number; learningRate: number }) =>
      new Promise<StepResult>((end, fail) => started.push({ step, learningRate, end, fail }));
    const next = async (): Promise<Fed> => ({ batch: { indices: Int32Array.of(asked++) }, broken: [] });
    stepper = new Stepper(
      { run } as unknown as TrainingStep,
      resolveOptions(tinyOptions({ schedule: { type: "step", milestones: [0.5], gamma: 0.1 } })),
      { next, close: async () => {}, ...feed },
      4,
      10,
    );
  }

  /** The first step's duration is what tells that steps are short. */
  async function first() {
    begin();
    const one = stepper.step(true);
    await turn();
    expect(started.map(({ step }) => step)).to.deep.equal([4]);
    started[0]!.end(RESULT);
    return one;
  }

  it("are started ahead, one of them, once they are known to be short", async () => {
    expect(await first()).to.include({ loss: 1, correct: 3, learningRate: 0.05 });
    const second = stepper.step(true);
    await turn();
    expect(started.map(({ step }) => step)).to.deep.equal([4, 5, 6]);
    expect(stepper.isAhead).to.equal(true);
    started[1]!.end({ ...RESULT, loss: 2 });
    expect((await second).loss).to.equal(2);
    // Nobody asks for the third yet: no fourth.
    await turn();
    expect(started).to.have.length(3);
    expect(asked).to.equal(4);
    const third = stepper.step(false);
    await turn();
    expect(started).to.have.length(3);
    expect(stepper.isAhead).to.equal(false);
    started[2]!.end(RESULT);
    // Each has the learning rate of its own number: the milestone is at step 5.
    expect((await third).learningRate).to.be.closeTo(0.005, 1e-12);
    expect(started.map(({ learningRate }) => learningRate)).to.deep.equal([0.05, 0.05 * 0.1, 0.05 * 0.1]);
  });

  it("are not started ahead where something comes between them", async () => {
    await first();
    const second = stepper.step(false);
    await turn();
    expect(started).to.have.length(2);
    started[1]!.end(RESULT);
    await second;
  });

  it("are not started ahead where they are long", async () => {
    begin();
    const one = stepper.step(true);
    await new Promise((resolve) => setTimeout(resolve, 80));
    started[0]!.end(RESULT);
    expect((await one).milliseconds).to.be.above(50);
    const two = stepper.step(true);
    await turn();
    expect(started).to.have.length(2);
    started[1]!.end(RESULT);
    // Its own time, without the first one's.
    expect((await two).milliseconds).to.be.below(50);
  });

  it("that fail are told when they are waited for, and leave no rejection unheard", async () => {
    await first();
    const second = stepper.step(true);
    await turn();
    started[2]!.fail(new Error("the third"));
    started[1]!.end(RESULT);
    await second;
    await turn();
    expect(await stepper.step(true).catch((error: Error) => error.message)).to.equal("the third");
  });

  it("whose images fail end after the one that runs", async () => {
    begin({
      next: async () => {
        if (asked++ < 2) return { batch: { indices: Int32Array.of(0) }, broken: [] };
        throw new Error("no image");
      },
    });
    for (const at of [0, 1]) {
      const one = stepper.step(true);
      await turn();
      started[at]!.end(RESULT);
      await one;
    }
    expect(await stepper.step(true).catch((error: Error) => error.message)).to.equal("no image");
    expect(started).to.have.length(2);
  });
});

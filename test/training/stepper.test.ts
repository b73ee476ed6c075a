/** When a step is started: while the one before it runs, but not across what needs the network as it is. */
import { expect } from "chai";
import type { StepResult, TrainingStep } from "../../lib/network/training-step.js";
import type { Fed, Feed } from "../../lib/training/feed.js";
import { resolveOptions } from "../../lib/training/settings.js";
import { Stepper } from "../../lib/training/stepper.js";
import { tinyOptions } from "../support/tiny.js";

const RESULT: StepResult = { loss: 1, correct: 3, outOfRange: 0, notFinite: [] };
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("steps", () => {
  /** Steps that were started, in order, each with what ends it. */
  let started: { step: number; learningRate: number; end: (result: StepResult) => void; fail: (error: Error) => void }[];
  let asked: number;
  let stepper: Stepper;
  /** What the steps are timed by, in milliseconds. */
  let clock: number;

  function begin(feed: Partial<Feed> = {}) {
    started = [];
    asked = 0;
    clock = 1000;
    const run = ({ step = -1, learningRate }: { step?: number; learningRate: number }) =>
      new Promise<StepResult>((end, fail) => started.push({ step, learningRate, end, fail }));
    const next = async (): Promise<Fed> => ({ batch: { indices: Int32Array.of(asked++) }, broken: [] });
    stepper = new Stepper(
      { run } as unknown as TrainingStep,
      resolveOptions(tinyOptions({ schedule: { type: "step", milestones: [0.5], gamma: 0.1 } })),
      { next, close: async () => {}, ...feed },
      4,
      10,
      () => clock,
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

  it("are not started ahead from 50 ms on", async () => {
    for (const [milliseconds, ahead] of [
      [49.9, 1],
      [50, 0],
      [80, 0],
    ] as const) {
      begin();
      const one = stepper.step(true);
      await turn();
      clock += milliseconds;
      started[0]!.end(RESULT);
      expect((await one).milliseconds).to.be.closeTo(milliseconds, 1e-9);
      const two = stepper.step(true);
      await turn();
      expect(started, `${milliseconds} ms`).to.have.length(2 + ahead);
      clock += 7;
      started[1]!.end(RESULT);
      // Its own time, without the first one's.
      expect((await two).milliseconds).to.be.closeTo(7, 1e-9);
      expect(stepper.isAhead).to.equal(ahead === 1);
    }
  });

  it("that were started ahead are timed from the end of the one before", async () => {
    await first();
    const second = stepper.step(true);
    await turn();
    clock += 10;
    started[1]!.end(RESULT);
    expect((await second).milliseconds).to.be.closeTo(10, 1e-9);
    const third = stepper.step(false);
    await turn();
    clock += 4;
    started[2]!.end(RESULT);
    expect((await third).milliseconds).to.be.closeTo(4, 1e-9);
  });

  it("count the waiting for their images, and not what comes between two steps", async () => {
    const fed: ((batch: Fed) => void)[] = [];
    begin({ next: () => new Promise((resolve) => fed.push(resolve)) });
    const give = (i: number) => fed[i]!({ batch: { indices: Int32Array.of(i) }, broken: [] });
    for (const i of [0, 1]) {
      clock += 1000; // a validation, say
      const step = stepper.step(false);
      await turn();
      clock += 30;
      give(i);
      await turn();
      clock += 5;
      started[i]!.end(RESULT);
      expect((await step).milliseconds, `step ${i}`).to.be.closeTo(35, 1e-9);
    }
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

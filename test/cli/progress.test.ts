/** What a run prints: on terminals of any width, and of a run that goes wrong. */
import { expect } from "chai";
import { Progress, progressLine } from "../../lib/cli/progress.js";
import { throughput } from "../../lib/text.js";
import type { StartEvent, StepEvent } from "../../lib/training/events.js";

const PARTS = ["12/5000", "loss 1.2345", "error 45.67 %", "1234 images/s", "ETA 1:02:03"];

describe("progress", () => {
  it("fits into a terminal of any width, and keeps the step longest", () => {
    for (let width = 0; width <= 200; ++width) {
      const line = progressLine(PARTS, 0.5, width);
      expect(line.length, `${width} columns`).to.be.at.most(width);
      if (width >= 7) expect(line, `${width} columns`).to.include("12/5000");
      // Nothing is cut in two.
      if (width >= 7)
        for (const part of line.replace(/^\[.*\] /, "").split("  ")) expect(PARTS, `${width} columns`).to.include(part);
    }
    expect(progressLine(PARTS, 0.5, 100)).to.match(/^\[#{15}\.{15}\] 12\/5000 {2}loss/);
    expect(progressLine(PARTS, 0.5, 59)).to.equal("12/5000  loss 1.2345  error 45.67 %  ETA 1:02:03");
    expect(progressLine(PARTS, 0.5, 20)).to.equal("12/5000  loss 1.2345");
  });

  it("tells the throughput of slow networks with a decimal, and that of fast ones with commas", () => {
    expect([0, 6.44, 9.96, 12.4, 12_345.6].map(throughput)).to.deep.equal(
      ["0.0", "6.4", "10.0", "12", "12,346"].map((rate) => `${rate} images/s`),
    );
  });

  describe("of a run", () => {
    let written: string[];
    let clock: number;
    /** What a stream with these properties is shown of the events. */
    function progress(stream: object): Progress {
      written = [];
      clock = 10_000;
      const write = (text: string) => written.push(text);
      return new Progress({ write, ...stream } as unknown as NodeJS.WriteStream, () => clock, {});
    }
    const start = {
      type: "start",
      model: "tiny",
      device: "cpu (it is the fastest)",
      parameters: 12_345,
      steps: 40,
      stepsPerEpoch: 10,
      batchSize: 50,
      resumedFrom: 0,
    } as StartEvent;
    const step = (number: number, rest: Partial<StepEvent> = {}): StepEvent => ({
      type: "step",
      step: number,
      epoch: 1,
      loss: 2,
      error: 0.5,
      learningRate: 0.1,
      milliseconds: 100,
      ...rest,
    });

    it("has a line for what happens, and one for steps every five seconds and at the end", () => {
      const shown = progress({ isTTY: false });
      shown.show(start);
      shown.show(step(1));
      clock += 4999;
      shown.show(step(2));
      clock += 1;
      shown.show(step(3));
      shown.show({ type: "epoch", step: 10, epoch: 1, loss: 1.23456, error: 0.25, milliseconds: 61_000 });
      shown.show({
        type: "validation",
        step: 10,
        epoch: 1,
        split: "validation",
        loss: 1.5,
        error: 0.125,
        top5Error: null,
        calibrationError: 0,
        milliseconds: 5,
      });
      shown.show({ type: "verification", step: 10, epoch: 1, maxError: 0, cosine: 1, milliseconds: 5, blocks: [] });
      shown.show({ type: "warning", step: 0, code: "ERR_FILE", message: "no room" });
      shown.show({ type: "warning", step: 7, code: "ERR_FILE", message: "no room" });
      shown.show({ type: "brokenImage", step: 8, file: "a.jpg", reason: "it is empty" });
      shown.show({ type: "ui", url: "http://127.0.0.1:1/" });
      shown.show({ type: "data", done: 1, total: 2 });
      shown.show(step(40));
      shown.end();
      expect(written).to.deep.equal([
        "tiny: 12,345 parameters, 40 steps of 50 images\n",
        "on cpu (it is the fastest)\n",
        "step 1/40  epoch 1  loss 2.0000  error 50.00 %\n",
        "step 3/40  epoch 1  loss 2.0000  error 50.00 %  500 images/s  ETA 0:04\n",
        "epoch 1: training loss 1.2346, error 25.00 %, 1:01\n",
        "step 10: validation loss 1.5000, error 12.50 %\n",
        "step 10: reconstruction error 0, cosine of reversible and stored gradients 1\n",
        "warning: no room\n",
        "warning: step 7: no room\n",
        "warning: step 8: a.jpg is left out: it is empty\n",
        "live page: http://127.0.0.1:1/\n",
        "step 40/40  epoch 1  loss 2.0000  error 50.00 %  500 images/s  ETA 0:00\n",
      ]);
    });

    it("says from where it goes on, or that nothing is left", () => {
      for (const [resumedFrom, line] of [
        [39, "going on from the checkpoint of step 39\n"],
        [40, "the checkpoint of step 40 is the last one: there is nothing left to train\n"],
      ] as const) {
        progress({ isTTY: false }).show({ ...start, resumedFrom });
        expect(written[2]).to.equal(line);
      }
    });

    it("averages loss, error and time over all steps at first, and then over some twenty", () => {
      const shown = progress({ isTTY: false });
      shown.show(start);
      const last = (event: StepEvent) => {
        clock += 5000;
        shown.show(event);
        return written.at(-1)!;
      };
      last(step(1, { loss: 4, error: 1, milliseconds: 100 }));
      expect(last(step(2, { loss: 2, error: 0, milliseconds: 300 }))).to.include(
        "loss 3.0000  error 50.00 %  167 images/s  ETA 0:11",
      );
      expect(last(step(3, { loss: 0, error: 0.5, milliseconds: 200 }))).to.include("loss 2.0000  error 50.00 %  200 images/s");
      for (let i = 4; i <= 30; i++) last(step(i, { loss: 2 }));
      expect(last(step(31, { loss: 3 }))).to.include("loss 2.0500");
    });

    it("takes no time to go from the first step, which warms up", () => {
      const shown = progress({ isTTY: false });
      shown.show(start);
      shown.show(step(1, { milliseconds: 600_000 }));
      expect(written.at(-1)).not.to.match(/ETA|images\/s/);
      clock += 5000;
      shown.show(step(2, { milliseconds: 100 }));
      expect(written.at(-1)).to.include("ETA 0:04");
    });

    it("averages from the first step that it sees, whatever its number", () => {
      const shown = progress({ isTTY: false });
      shown.show({ ...start, resumedFrom: 35 });
      shown.show(step(36, { loss: 7, error: 0.25 }));
      expect(written.at(-1)).to.include("step 36/40  epoch 1  loss 7.0000  error 25.00 %");
    });

    it("is a bar on a terminal, ten times a second at most, which makes room for lines and goes at the end", () => {
      const shown = progress({ isTTY: true, columns: 100 });
      shown.show({ type: "data", done: 1, total: 2 });
      expect(written).to.deep.equal([`\r\x1b[K[${"#".repeat(15)}${".".repeat(15)}] reading images 1/2`]);
      shown.show(start);
      expect(written[1]).to.equal("\r\x1b[K");
      shown.show(step(1));
      clock += 99;
      shown.show(step(2));
      clock += 1;
      shown.show(step(20));
      const bars = written.filter((text) => text.includes("/40"));
      expect(bars.map((text) => /(\d+)\/40/.exec(text)![1])).to.deep.equal(["1", "20"]);
      const bar = `[${"#".repeat(15)}${".".repeat(15)}]`;
      expect(bars[1]).to.equal(`\r\x1b[K${bar} 20/40  loss 2.0000  error 50.00 %  500 images/s  ETA 0:02`);
      const before = written.length;
      shown.show({ type: "warning", step: 20, code: "ERR_FILE", message: "no room" });
      expect(written.slice(before)).to.deep.equal(["\r\x1b[K", "warning: step 20: no room\n"]);
      shown.clear();
      expect(written).to.have.length(before + 2);
      shown.show(step(40));
      shown.end();
      expect(written.at(-1)).to.equal("\r\x1b[K");
    });

    it("fits terminals, those that do not know their width as well", () => {
      for (const [columns, most] of [
        [40, 39],
        [0, 79],
      ] as const) {
        const shown = progress({ isTTY: true, columns });
        shown.show(start);
        shown.show(step(1));
        expect(written.at(-1)!.length - "\r\x1b[K".length).to.be.within(most - 20, most);
      }
    });

    it("says nothing at the end of values out of range that it has told already", () => {
      const shown = progress({ isTTY: false });
      shown.show({ type: "outOfRange", step: 3, count: 2 });
      shown.end();
      expect(written).to.have.length(1);
    });
  });

  it("warns once of values out of range, and tells how many there were at the end", () => {
    const written: string[] = [];
    const stream = { isTTY: false, write: (text: string) => written.push(text) } as unknown as NodeJS.WriteStream;
    const progress = new Progress(stream);
    for (let step = 3; step < 103; ++step) progress.show({ type: "outOfRange", step, count: 2 });
    expect(written).to.have.length(1);
    expect(written[0]).to.match(/^warning: step 3: 2 values/);
    progress.end();
    expect(written).to.have.length(2);
    expect(written[1]).to.match(/^warning: in 100 steps, 200 values/);
  });
});

/** What a run prints: on terminals of any width, and of a run that goes wrong. */
import { expect } from "chai";
import { Progress, progressLine } from "../../lib/cli/progress.js";
import { throughput } from "../../lib/text.js";

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

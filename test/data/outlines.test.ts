/** The outlines of the `shapes` data set: what is inside, what is outside, and how far. */
import { expect } from "chai";
import { OUTLINES } from "../../lib/data/outlines.js";

const at = (name: string, x: number, y: number) => OUTLINES[name]!(x, y);

describe("outlines", () => {
  it("are signed distances", () => {
    for (const [name, x, y, distance] of [
      ["circle", 0, 0, -0.88],
      ["circle", 3, 4, 4.12],
      ["ring", 0, 0, 0.5],
      ["ring", 0.72, 0, -0.22],
      ["ring", 0, 1.04, 0.1],
      ["crescent", -0.5, 0, -0.2],
      ["crescent", 0.5, 0, 0.8],
      ["crescent", -1.95, 0, 1],
      // A square on its corner: its edges are at a distance of sqrt(1/2) from its middle.
      ["square", 0, 0, -Math.SQRT1_2],
      ["square", 0, -1, 0],
      ["square", 0, -2, 1],
      ["square", 1, 1, Math.SQRT1_2],
      ["triangle", 0, 0, -0.5],
      ["triangle", 0, 1.5, 1],
      ["triangle", 0, -3, 2],
      ["cross", 0, 0, -Math.hypot(0.27, 0.27)],
      ["cross", 0, -0.6, -0.27],
      ["cross", 0.95, 0, 0],
      ["cross", 0.6, 0.6, 0.33],
      ["cross", -2, 0, 1.05],
      ["arrow", 0, 0.5, -0.26],
      ["arrow", 0, 2.95, 2],
      ["arrow", -0.7, -0.15, 0],
      ["arrow", 0.5, 0.5, 0.24],
      ["hourglass", 0, 0, -0.1],
      ["hourglass", 0, -1.9, 1],
      ["hourglass", 0.72, 0.9, 0],
    ] as const)
      expect(at(name, x, y), `${name} at ${x}, ${y}`).to.be.closeTo(distance, 1e-9);
  });

  it("have the points where they are wide, and not where they are notched", () => {
    // The star's points are at fifths of a turn from the top, its notches between them.
    for (let i = 0; i < 10; i++) {
      const angle = (Math.PI * i) / 5;
      const distance = at("star", 0.7 * Math.sin(angle), -0.7 * Math.cos(angle));
      expect(Math.sign(distance), `star, ${i} tenths of a turn`).to.equal(i % 2 === 0 ? -1 : 1);
    }
    expect(at("star", 0, -1)).to.be.closeTo(0, 1e-9);
    // The heart's tip is below, its notch above, and it is as wide on either side.
    expect(at("heart", 0, 0.8)).to.be.below(0);
    expect(at("heart", 0, -0.7)).to.be.above(0);
    for (const [x, y] of [
      [0.4, -0.6],
      [0.8, -0.3],
      [0.5, 0.2],
    ] as const) {
      expect(at("heart", x, y), `heart at ${x}, ${y}`).to.be.below(0);
      expect(at("heart", x, y)).to.be.closeTo(at("heart", -x, y), 1e-9);
    }
    expect(at("heart", 0.8, 0.5)).to.be.above(0);
  });

  it("fit the unit circle, and fill a fair part of it", () => {
    for (const [name, outline] of Object.entries(OUTLINES)) {
      let inside = 0;
      for (let y = -1.2; y < 1.2; y += 0.02)
        for (let x = -1.2; x < 1.2; x += 0.02) {
          if (outline(x, y) >= 0) continue;
          inside += 1;
          expect(Math.hypot(x, y), name).to.be.below(1.16);
        }
      expect((inside * 0.02 ** 2) / Math.PI, name).to.be.within(0.2, 0.8);
    }
  });
});

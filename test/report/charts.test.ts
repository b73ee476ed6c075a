/** The curves of a report: which figures, over which steps, averaged how. */
import { expect } from "chai";
import {
  type Chart,
  depthChart,
  MAX_POINTS,
  reconstructionChart,
  stepCharts,
  verificationCharts,
} from "../../lib/report/charts.js";
import type { RunFiles, StepRow } from "../../lib/report/run-files.js";
import { meanOf, ThinnedSteps } from "../../lib/report/thinned.js";
import { analysis } from "./fixtures.js";

const step = (number: number, row: Partial<StepRow> = {}): StepRow => ({
  step: number,
  loss: number,
  error: 0.5,
  learningRate: 0.1,
  milliseconds: 20,
  ...row,
});

function run(steps: StepRow[], rest: Partial<RunFiles> = {}): RunFiles {
  const config = { model: { name: "x", kind: "revnet", units: [1] }, batchSize: 10, steps: steps.length };
  const rows = { steps, validations: [], verifications: [], brokenImages: new Map(), torn: false };
  return { folder: "", config, settings: {}, ...rows, summary: undefined, analysis: undefined, ...rest };
}

const chart = (charts: readonly Chart[], id: string) => charts.find((one) => one.id === id)!;
const curve = (charts: readonly Chart[], id: string, series = 0) => chart(charts, id).series[series]!;

describe("means of steps", () => {
  it("count every step, and have the last one's number and learning rate", () => {
    const rows = [
      step(1, { loss: 9, error: 1, learningRate: 0.1, milliseconds: 10 }),
      step(2, { loss: 3, error: 0.5, learningRate: 0.2, milliseconds: 30 }),
      step(3, { loss: 0, error: 0, learningRate: 0.3, milliseconds: 20 }),
    ];
    expect(meanOf(rows)).to.deep.equal({ step: 3, loss: 4, error: 0.5, learningRate: 0.3, milliseconds: 20 });
    expect(meanOf(rows.slice(0, 1))).to.deep.equal(rows[0]);
  });

  it("leave out losses that were not finite, and are null where there is no other", () => {
    expect(meanOf([step(1, { loss: 2 }), step(2, { loss: null }), step(3, { loss: 4 })]).loss).to.equal(3);
    expect(meanOf([step(1, { loss: null })]).loss).to.equal(null);
    expect(meanOf([step(1, { loss: 0 }), step(2, { loss: null })]).loss).to.equal(0);
  });
});

describe("steps of a long run", () => {
  const thinned = (count: number, most: number) => {
    const all = new ThinnedSteps(most);
    for (let i = 1; i <= count; i++) all.push(step(i));
    return all.rows;
  };

  it("are each a row while there are few", () => {
    const { steps, stepsEach } = thinned(7, 8);
    expect(stepsEach).to.equal(1);
    expect(steps.map(({ step }) => step)).to.deep.equal([1, 2, 3, 4, 5, 6, 7]);
    expect(thinned(0, 8)).to.deep.equal({ steps: [], stepsEach: 1 });
  });

  it("become means of two, four and so on, of all steps, the last ones as well", () => {
    expect(thinned(8, 8).steps.map(({ step, loss }) => [step, loss])).to.deep.equal([
      [2, 1.5],
      [4, 3.5],
      [6, 5.5],
      [8, 7.5],
    ]);
    const { steps, stepsEach } = thinned(17, 8);
    expect(stepsEach).to.equal(4);
    expect(steps.map(({ step, loss }) => [step, loss])).to.deep.equal([
      [4, 2.5],
      [8, 6.5],
      [12, 10.5],
      [16, 14.5],
      [17, 17],
    ]);
  });

  it("have the mean of all steps, however many there are", () => {
    for (const count of [1, 5, 16, 31, 64, 255, 1000]) {
      const { steps, stepsEach } = thinned(count, 8);
      expect(steps.length, String(count)).to.be.at.most(8);
      if (count >= 8) expect(steps.length, String(count)).to.be.at.least(4);
      const whole = Math.floor(count / stepsEach);
      const sum = steps.slice(0, whole).reduce((total, { loss }) => total + loss! * stepsEach, 0);
      const rest = steps.length > whole ? steps.at(-1)!.loss! * (count - whole * stepsEach) : 0;
      expect(sum + rest, String(count)).to.be.closeTo((count * (count + 1)) / 2, 1e-6);
      expect(steps.at(-1)!.step).to.equal(count);
    }
  });
});

describe("charts of steps", () => {
  const steps = (count: number) => Array.from({ length: count }, (_, i) => step(i + 1));

  it("are none where there are no steps", () => {
    expect(stepCharts([run([])], [""])).to.deep.equal([]);
    expect(stepCharts([run([]), run(steps(1))], ["a", "b"])).to.have.length(4);
  });

  it("have a point for each step up to the most, then for each two, three and so on", () => {
    for (const [count, points, size] of [
      [MAX_POINTS, MAX_POINTS, 1],
      [MAX_POINTS + 1, MAX_POINTS / 2 + 1, 2],
      [2 * MAX_POINTS, MAX_POINTS, 2],
      [2 * MAX_POINTS + 1, 1001, 3],
    ] as const) {
      const charts = stepCharts([run(steps(count))], [""]);
      const { x, y } = curve(charts, "loss");
      expect([x.length, y.length], String(count)).to.deep.equal([points, points]);
      expect(x.slice(0, 2), String(count)).to.deep.equal([size, 2 * size]);
      expect(y[0], String(count)).to.equal((1 + size) / 2);
      expect(x.at(-1), String(count)).to.equal(count);
      const note = size > 1 ? `Each point of training is the mean of ${size} steps.` : "";
      expect([chart(charts, "loss").note, chart(charts, "error").note], String(count)).to.deep.equal([note, note]);
      expect(curve(charts, "loss").label).to.equal(size > 1 ? "each point" : "each step");
    }
    // Rows that are means already count for as many steps.
    const [loss] = stepCharts([run(steps(MAX_POINTS + 2), { stepsEach: 4 })], [""]);
    expect(loss!.note).to.include("the mean of 8 steps");
  });

  it("are smooth: plain means at first, then over a fiftieth of the points, ten at least", () => {
    const values = steps(3).map((row, i) => ({ ...row, loss: [6, 0, 3][i]! }));
    expect(curve(stepCharts([run(values)], [""]), "loss", 1).y).to.deep.equal([6, 3, 3]);
    // A step from 0 to 1 after many points: each of the following takes a tenth, or a twentieth of 1,000 points, of what is left.
    for (const [count, part] of [
      [400, 1 / 10],
      [1000, 1 / 20],
    ] as const) {
      const jump = steps(count).map((row, i) => ({ ...row, loss: i < 300 ? 0 : 1 }));
      const { y } = curve(stepCharts([run(jump)], [""]), "loss", 1);
      expect(y[299]).to.equal(0);
      expect(y[300], String(count)).to.be.closeTo(part, 1e-12);
      expect(y[301], String(count)).to.be.closeTo(1 - (1 - part) ** 2, 1e-12);
    }
  });

  it("say what they show, in which units, and where their axes begin", () => {
    const charts = stepCharts([run(steps(3))], [""]);
    expect(charts.map(({ id, title, xLabel, yLabel, unit, yTop }) => [id, title, xLabel, yLabel, unit, yTop])).to.deep.equal([
      ["loss", "Loss", "step", "cross-entropy", "", null],
      ["error", "Error", "step", "classified wrongly", " %", null],
      ["learning-rate", "Learning rate", "step", "", "", null],
      ["throughput", "Throughput", "step", "images/s", "", 0],
    ]);
    expect(charts.map(({ note }) => note)).to.deep.equal(["", "", "", "Images a second while training, without evaluations."]);
  });

  it("bridge losses that were not finite", () => {
    const values = steps(4).map((row, i) => ({ ...row, loss: [null, 4, null, 2][i]! }));
    const charts = stepCharts([run(values)], [""]);
    expect(curve(charts, "loss").y).to.deep.equal([null, 4, null, 2]);
    expect(curve(charts, "loss", 1).y).to.deep.equal([null, 4, 4, 3]);
  });

  it("are logarithmic where values span decades, and none is 0", () => {
    const spans = (losses: (number | null)[]) =>
      chart(stepCharts([run(losses.map((loss, i) => step(i + 1, { loss })))], [""]), "loss").logarithmic;
    expect(spans([3.1, 0.1])).to.equal(true);
    expect(spans([3, 0.1])).to.equal(false);
    expect(spans([3.1, null, 0.1])).to.equal(true);
    expect(spans([100, 0])).to.equal(false);
    expect(spans([null])).to.equal(false);
    expect(chart(stepCharts([run([step(1, { error: 1e-9 }), step(2)])], [""]), "error").logarithmic).to.equal(false);
  });

  it("show errors in percent, and images by the mean time of a step", () => {
    const rows = [step(1, { error: 0.25, milliseconds: 10 }), step(2, { error: 1, milliseconds: 30 })];
    const validations = [{ step: 2, loss: null, error: 0.125 }];
    const charts = stepCharts([run(rows, { validations })], [""]);
    expect(curve(charts, "error").y).to.deep.equal([25, 100]);
    expect(curve(charts, "error", 2)).to.deep.include({ x: [2], y: [12.5], style: "dots", label: "test" });
    expect(curve(charts, "loss", 2).y).to.deep.equal([null]);
    const apart = stepCharts([run(rows, { validations: [{ ...validations[0]!, split: "validation" }] })], [""]);
    expect(curve(apart, "error", 2).label).to.equal("validation");
    // Batches of 10 in 10 ms, then in 20 ms on average.
    expect(curve(charts, "throughput").y).to.deep.equal([1000, 500]);
    expect(chart(charts, "throughput").yTop).to.equal(0);
    expect(curve(stepCharts([run([step(1, { milliseconds: 0 })])], [""]), "throughput").y).to.deep.equal([null]);
  });

  it("of several runs have a colour and a name for each, and no faint lines", () => {
    const charts = stepCharts([run(steps(2)), run(steps(3))], ["one", "two"]);
    expect(chart(charts, "loss").series.map(({ label, color, style }) => [label, color, style])).to.deep.equal([
      ["one, training", 0, "line"],
      ["one, test", 0, "dots"],
      ["two, training", 1, "line"],
      ["two, test", 1, "dots"],
    ]);
    expect(chart(charts, "throughput").series.map(({ label, color }) => [label, color])).to.deep.equal([
      ["one", 0],
      ["two", 1],
    ]);
    expect(
      chart(stepCharts([run(steps(2))], [""]), "loss").series.map(({ label, color, style }) => [label, color, style]),
    ).to.deep.equal([
      ["each step", 0, "faint"],
      ["training", 0, "line"],
      ["test", 1, "dots"],
    ]);
    // The note is of the run with the widest means.
    const mixed = stepCharts([run(steps(MAX_POINTS + 1)), run(steps(3 * MAX_POINTS))], ["a", "b"]);
    expect(mixed[0]!.note).to.include("mean of 3 steps");
  });
});

describe("other charts", () => {
  it("show activations by depth, in both modes where they differ", () => {
    const { memory } = analysis(["a", "b"]);
    const both = depthChart(memory);
    expect(both.series.map(({ label, color, x, y }) => [label, color, x, y])).to.deep.equal([
      ["reversible", 0, [4, 12, 36], [5000, 5000, 5000].map((bytes) => bytes / 2 ** 20)],
      ["stored", 1, [4, 12, 36], [10_000, 30_000, 90_000].map((bytes) => bytes / 2 ** 20)],
    ]);
    const stored = depthChart(memory.map((plan) => ({ ...plan, reversible: plan.stored })));
    expect(stored.series.map(({ label }) => label)).to.deep.equal(["stored"]);
  });

  it("show what blocks came back with, in their order, logarithmic where all differ", () => {
    const blocks = (...errors: (number | null)[]) => errors.map((error, block) => ({ stage: 0, block, error }));
    const shown = reconstructionChart(blocks(0.5, 0, null));
    expect(shown.series[0]).to.deep.include({ x: [1, 2, 3], y: [0.5, 0, null] });
    expect(shown.yTop).to.equal(2 ** -22);
    for (const [errors, logarithmic] of [
      [[0.5, 0], false],
      [[0.5, null], false],
      [[0.5, 1e-6], true],
      [[], false],
    ] as const)
      expect(reconstructionChart(blocks(...errors)).logarithmic, String(errors)).to.equal(logarithmic);
  });

  it("show how far from exact a run was, from 0 upwards", () => {
    const row = (step: number, maxError: number | null, cosine: number | null) => ({ step, maxError, cosine, blocks: [] });
    const [errors, angles] = verificationCharts([row(5, 0, 1), row(10, 0.25, 0.75), row(15, null, null), row(20, 0, 1 + 1e-9)]) as [
      Chart,
      Chart,
    ];
    expect(errors.series[0]).to.deep.include({ x: [5, 10, 15, 20], y: [0, 0.25, null, 0] });
    expect(angles.series[0]!.y).to.deep.equal([0, 0.25, null, 0]);
    expect(errors.logarithmic).to.equal(false);
    expect(verificationCharts([row(1, 1e-6, 1), row(2, 1e-3, 1)])[0]!.logarithmic).to.equal(true);
  });
});

/** What becomes of a run's records: history, counts, and those who are told. */
import { expect } from "chai";
import type { TrainingEvent } from "../../lib/training/events.js";
import { Journal } from "../../lib/training/journal.js";
import type { Keeper } from "../../lib/training/keeper.js";
import type { Live } from "../../lib/training/live.js";
import type { MetricsRecord } from "../../lib/training/metrics.js";

const step = (number: number): MetricsRecord => ({
  type: "step",
  step: number,
  epoch: 1,
  loss: 1,
  error: 0.5,
  learningRate: 0.1,
  milliseconds: 5,
});
const epoch: MetricsRecord = { type: "epoch", step: 2, epoch: 1, loss: 1, error: 0.5, milliseconds: 10 };
const validation: MetricsRecord = {
  type: "validation",
  step: 2,
  epoch: 1,
  split: "test",
  loss: 1,
  error: 0.5,
  top5Error: null,
  calibrationError: 0.1,
  milliseconds: 5,
};
const verification: MetricsRecord = {
  type: "verification",
  step: 2,
  epoch: 1,
  maxError: 0,
  cosine: 1,
  milliseconds: 5,
  blocks: [],
};
const outOfRange = (number: number, count: number): MetricsRecord => ({ type: "outOfRange", step: number, count });
const broken = (file: string): MetricsRecord => ({ type: "brokenImage", step: 1, file, reason: "empty" });

describe("the journal of a run", () => {
  let told: [who: string, record: { type: string; step?: number }][];
  let journal: Journal;
  const tell = (who: string) => (record: TrainingEvent) => void told.push([who, record]);
  const keeper = { log: async (record: MetricsRecord) => tell("file")(record) } as unknown as Keeper;
  const live = { take: tell("page") } as unknown as Live;
  beforeEach(() => {
    told = [];
    journal = new Journal(async (event) => tell("events")(event));
  });

  it("tells each record to the page, the file and the events, in this order", async () => {
    await journal.report(step(1));
    journal.keepIn(keeper, []);
    journal.showOn(live, 0);
    told = [];
    await journal.report(step(2));
    expect(told).to.deep.equal([
      ["page", step(2)],
      ["file", step(2)],
      ["events", step(2)],
    ]);
  });

  it("has a history of each kind, and counts what left the range over all steps", async () => {
    for (const record of [step(1), outOfRange(1, 3), step(2), validation, epoch, verification, outOfRange(2, 4)])
      await journal.report(record);
    expect(journal.history).to.deep.equal({
      steps: [step(1), step(2)],
      epochs: [epoch],
      validations: [validation],
      verifications: [verification],
    });
    expect(journal.outOfRange).to.equal(7);
  });

  it("reports a broken image once, in the order in which it met them, also those of before a resume", async () => {
    journal.keepIn(keeper, [broken("b"), broken("a"), step(1), outOfRange(1, 2)]);
    expect(told, "what is in the file is not told again").to.deep.equal([]);
    expect(journal.history.steps).to.deep.equal([step(1)]);
    expect(journal.outOfRange).to.equal(2);
    await journal.reportBroken(5, [
      { file: "a", reason: "empty" },
      { file: "c", reason: "cut short" },
      { file: "c", reason: "cut short" },
    ]);
    const reported = { type: "brokenImage", step: 5, file: "c", reason: "cut short" };
    expect(told).to.deep.equal([
      ["file", reported],
      ["events", reported],
    ]);
    expect(journal.brokenImages).to.deep.equal([
      { file: "b", reason: "empty" },
      { file: "a", reason: "empty" },
      { file: "c", reason: "cut short" },
    ]);
  });

  it("tells of values out of range in validations once, beside the images that were broken", async () => {
    await journal.reportMet(1, { broken: [], outOfRange: 0 });
    expect(told).to.deep.equal([]);
    await journal.reportMet(2, { broken: [{ file: "a", reason: "empty" }], outOfRange: 12345 });
    await journal.reportMet(3, { broken: [], outOfRange: 6 });
    expect(told.map(([who, { type, step }]) => [who, type, step])).to.deep.equal([
      ["events", "brokenImage", 2],
      ["events", "warning", 2],
    ]);
    expect(told[1]![1]).to.include({ code: "REVNET_OUT_OF_RANGE" }).and.property("message").include("12,345 values");
    expect(journal.outOfRange, "those of training alone").to.equal(0);
  });

  it("shows a page that is opened later what was before", async () => {
    for (const record of [step(1), broken("a"), step(2), validation, verification, epoch]) await journal.report(record);
    told = [];
    journal.showOn(live, 2);
    expect(told.map(([who, record]) => [who, record.type, record.step])).to.deep.equal([
      ["page", "step", 1],
      ["page", "step", 2],
      ["page", "validation", 2],
      ["page", "verification", 2],
      ["page", "brokenImage", 2],
    ]);
    await journal.report(outOfRange(3, 5));
    told = [];
    journal.showOn(live, 3);
    expect(told).to.deep.include(["page", { type: "outOfRange", step: 3, count: 5 }]);
  });
});

/** What is counted of a data set, and what is told of what was left out. */
import { expect } from "chai";
import type { AnyDataset, Batch, LeftOut, Split, StreamedSplit } from "../../lib/data/dataset.js";
import { leftOutLine, leftOutOf, summarizeLeftOut } from "../../lib/data/left-out.js";
import { splitStatistics } from "../../lib/data/statistics.js";
import { rejection } from "../support/errors.js";

describe("the statistics of a split", () => {
  const shape = [1, 2, 3] as const;
  const classes = ["a", "b", "c"];
  const of = { shape, classes };

  it("are images by class, and mean and deviation by channel", async () => {
    const images = Uint8Array.of(0, 10, 255, 2, 10, 255, 4, 10, 0, 6, 30, 0);
    const split: Split = { count: 2, images, labels: Int32Array.of(2, 0) };
    expect(await splitStatistics(split, of)).to.deep.equal({
      images: 2,
      perClass: [1, 0, 1],
      mean: [3, 15, 127.5],
      deviation: [Math.sqrt(5), Math.sqrt(75), 127.5],
      broken: [],
    });
    // Of equal bytes nothing is left, not even what rounding leaves.
    const flat = { count: 3, images: new Uint8Array(18).fill(77), labels: Int32Array.of(1, 1, 1) };
    expect(await splitStatistics(flat, of)).to.deep.include({ perClass: [0, 3, 0], mean: [77, 77, 77], deviation: [0, 0, 0] });
  });

  it("leave out broken images, tell how far they are, and can be aborted", async () => {
    const count = 130;
    const split = {
      count,
      fingerprint: "",
      async *inOrder(n: number): AsyncGenerator<Batch> {
        for (let first = 0; first < count; first += n) {
          const rows = Math.min(n, count - first);
          const labels = Int32Array.from({ length: rows }, (_, i) => ((first + i) % 10 === 9 ? -1 : (first + i) % 3));
          yield {
            images: new Uint8Array(rows * 6).map((_, i) => (labels[Math.floor(i / 6)]! < 0 ? 255 : 100)),
            labels,
            broken: first === 64 ? [{ file: "x", reason: "cut" }] : [],
          };
        }
      },
    } as unknown as StreamedSplit;
    const progress: number[][] = [];
    const found = await splitStatistics(split, of, (done, total) => progress.push([done, total]));
    expect(found).to.deep.equal({
      images: 117,
      perClass: [39, 39, 39],
      mean: [100, 100, 100],
      deviation: [0, 0, 0],
      broken: [{ file: "x", reason: "cut" }],
    });
    expect(progress).to.deep.equal([
      [64, 130],
      [128, 130],
      [130, 130],
    ]);
    const controller = new AbortController();
    const aborted = splitStatistics(split, of, () => controller.abort(), controller.signal);
    expect(await rejection(aborted, "ERR_ABORTED")).to.equal("the inspection was aborted");
  });

  it("have no mean where no image is whole", async () => {
    const broken = { count: 1, images: new Uint8Array(6), labels: Int32Array.of(-1) };
    const { images, perClass, mean } = await splitStatistics(broken, of);
    expect([images, perClass, mean]).to.deep.equal([0, [0, 0, 0], [Number.NaN, Number.NaN, Number.NaN]]);
  });
});

describe("what was left out", () => {
  const entries = (reason: string, count: number, name = reason): LeftOut[] =>
    Array.from({ length: count }, (_, i) => ({ file: `${name}${i}`, reason }));

  it("is told by reasons, the most frequent first, with the first files of each", () => {
    const all = [...entries("hidden", 2), ...entries("a named pipe", 7, "p"), ...entries("no images", 1, "n")];
    const summary = summarizeLeftOut(all);
    expect(summary).to.deep.equal({
      count: 10,
      reasons: [
        { reason: "a named pipe", count: 7, files: ["p0", "p1", "p2", "p3", "p4"] },
        { reason: "hidden", count: 2, files: ["hidden0", "hidden1"] },
        { reason: "no images", count: 1, files: ["n0"] },
      ],
    });
    expect(leftOutLine(summary)).to.equal(
      "10 left out of the folder: 7 a named pipe (p0, ...); 2 hidden (hidden0, ...); 1 no images (n0)",
    );
  });

  it("counts what is there twice as one reason, and rare reasons as others", () => {
    const twice = [
      { file: "a", reason: "the same file as x\ny" },
      { file: "b", reason: "the same file as z" },
      { file: "c", reason: "the same folder as z" },
    ];
    expect(summarizeLeftOut(twice).reasons.map(({ reason, count }) => [reason, count])).to.deep.equal([
      ["the same file as another", 2],
      ["the same folder as another", 1],
    ]);
    const many = [
      ...Array.from({ length: 60 }, (_, i) => entries(`.x${i}`, 1)).flat(),
      ...entries(".x3", 2),
      ...entries(".x55", 1),
    ];
    const { count, reasons } = summarizeLeftOut(many);
    expect([count, reasons.length]).to.deep.equal([63, 51]);
    expect(reasons.slice(0, 2).map(({ reason, count }) => [reason, count])).to.deep.equal([
      ["other reasons", 11],
      [".x3", 3],
    ]);
  });

  it("is nothing of data sets that are no folders", () => {
    expect(leftOutOf({} as AnyDataset)).to.deep.equal({ count: 0, reasons: [] });
    expect(leftOutOf({ leftOut: undefined } as unknown as AnyDataset)).to.deep.equal({ count: 0, reasons: [] });
    expect(leftOutOf({ leftOut: entries("hidden", 1) } as unknown as AnyDataset).count).to.equal(1);
  });
});

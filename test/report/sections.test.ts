/** Figures, tables and pictures of a report: each count where it belongs, labels in rows and predictions in columns. */
import { inflateSync } from "node:zlib";
import { expect } from "chai";
import { parse } from "node-html-parser";
import type { Analysis } from "../../lib/report/analysis.js";
import { Html, html } from "../../lib/report/html.js";
import type { RunFiles, SummaryRow } from "../../lib/report/run-files.js";
import { evaluation, leftOut, memory, reconstruction, settings, state, tiles, verification } from "../../lib/report/sections.js";
import { analysis } from "./fixtures.js";

const text = (part: Html) => parse(part.source).text.replace(/\s+/g, " ").trim();
/** [row][column] texts of the first table. */
const cells = (part: Html) =>
  parse(part.source)
    .querySelector("table")!
    .querySelectorAll("tr")
    .map((row) => row.querySelectorAll("th, td").map((cell) => cell.text.trim()));

const names = (n: number) => Array.from({ length: n }, (_, i) => `c${i}`);
/** Of so many classes, with these counts by [label, prediction, images]; all other images are classified rightly. */
function confused(n: number, pairs: readonly (readonly [number, number, number])[], right = 0): Analysis {
  const confusion = names(n).map((_, label) => names(n).map((_, prediction) => (label === prediction ? right : 0)));
  for (const [label, prediction, images] of pairs) confusion[label]![prediction] = images;
  return { ...analysis(names(n)), evaluation: { step: 1234, images: 5678, confusion, mistakes: [] } };
}

/** A section of the part alone. */
const only = (part: Html, id: string): Html => new Html(parse(part.source).querySelector(`#${id}`)?.outerHTML ?? "");

describe("the classes of a report", () => {
  it("are a table of precision, recall and F1, beside what is said of all", () => {
    const shown = confused(3, [
      [1, 2, 4],
      [1, 1, 12],
      [2, 0, 1],
    ]);
    const part = only(
      evaluation({ ...shown, evaluation: { ...shown.evaluation!, top5Error: 0.125, calibrationError: 0.03 } }),
      "classes",
    );
    expect(cells(part)).to.deep.equal([
      ["class", "images", "precision", "recall", "F1"],
      ["c0", "0", "0.00 %", "–", "0.00 %"],
      ["c1", "16", "100.00 %", "75.00 %", "85.71 %"],
      ["c2", "1", "0.00 %", "0.00 %", "0.00 %"],
    ]);
    // Of the two classes that have images.
    expect(text(part)).to.include(
      "Of 5,678 test images, after step 1,234: macro F1 42.86 %, top-5 error 12.50 %, expected calibration error 3.00 %.",
    );
  });

  it("are those of lowest F1 where they are many", () => {
    const part = only(evaluation(confused(30, [[7, 8, 5]], 10)), "classes");
    const table = cells(part);
    expect(table).to.have.length(21);
    expect(table.slice(1, 4).map(([name, images]) => [name, images])).to.deep.equal([
      ["c7", "15"],
      ["c8", "10"],
      ["c0", "10"],
    ]);
    expect(text(part)).to.include("The 20 classes of lowest F1:");
    expect(text(part)).to.not.include("top-5");
  });
});

describe("the confusion matrix of a report", () => {
  it("is a table up to 20 classes, labels in rows, each cell with its share of the row", () => {
    for (const n of [3, 11, 20]) {
      const part = only(
        evaluation(
          confused(n, [
            [1, 2, 4],
            [1, 1, 12],
            [2, 0, 1],
          ]),
        ),
        "confusion",
      );
      const table = cells(part);
      expect(table[0]).to.deep.equal(["", ...names(n)]);
      expect(table.slice(1, 4).map((row) => row.slice(0, 4))).to.deep.equal([
        ["c0", "0", "0", "0"],
        ["c1", "0", "12", "4"],
        ["c2", "1", "0", "0"],
      ]);
      const spans = parse(part.source).querySelectorAll("tbody tr")[1]!.querySelectorAll("td span");
      expect(spans[1]!.getAttribute("class")).to.equal("right");
      expect(spans[2]!.getAttribute("class")).to.equal("wrong");
      expect(spans.slice(0, 3).map((span) => span.getAttribute("style"))).to.deep.equal([
        "--part:0.0000",
        "--part:0.7500",
        "--part:0.2500",
      ]);
      expect(text(part)).to.include("Of 5,678 test images, after step 1,234.");
    }
  });

  it("is a picture beyond, whose rows are labels, and a list of the most frequent confusions", () => {
    const n = 21;
    const part = only(
      evaluation(
        confused(
          n,
          [
            [0, 3, 25],
            [0, 0, 75],
            [3, 0, 1],
            [20, 1, 7],
          ],
          0,
        ),
      ),
      "confusion",
    );
    const source = parse(part.source).querySelector("img.heatmap")!.getAttribute("src")!;
    const png = Buffer.from(source.replace("data:image/png;base64,", ""), "base64");
    const at = png.indexOf("IDAT");
    const rows = inflateSync(png.subarray(at + 4, at + 4 + png.readUInt32BE(at - 4)));
    /** RGBA of a pixel; before each row there is its filter. */
    const pixel = (row: number, column: number) => [...rows.subarray(row * (4 * n + 1) + 1 + 4 * column).subarray(0, 4)];
    const [red, green] = [pixel(0, 3).slice(0, 3), pixel(0, 0).slice(0, 3)];
    expect(red).to.not.deep.equal(green);
    expect(pixel(0, 3)[3]).to.equal(Math.round(255 * Math.sqrt(0.25)));
    expect(pixel(0, 0)[3]).to.equal(Math.round(255 * Math.sqrt(0.75)));
    expect(pixel(3, 0)).to.deep.equal([...red, 255]);
    expect(pixel(20, 1)).to.deep.equal([...red, 255]);
    expect(pixel(1, 20)[3]).to.equal(0);
    expect(cells(part)).to.deep.equal([
      ["label", "prediction", "images"],
      ["c0", "c3", "25"],
      ["c20", "c1", "7"],
      ["c3", "c0", "1"],
    ]);
  });

  it("lists no more than 20 confusions, and is left out where there is none", () => {
    const all = names(21).flatMap((_, label): [number, number, number][] => [[label, (label + 1) % 21, label + 1]]);
    const table = cells(only(evaluation(confused(21, all)), "confusion"));
    expect(table).to.have.length(21);
    expect(table[1]).to.deep.equal(["c20", "c0", "21"]);
    const none = confused(3, []);
    expect(evaluation({ ...none, evaluation: null }).source).to.equal("");
    expect(evaluation({ ...none, evaluation: { ...none.evaluation!, confusion: null } }).source).to.equal("");
  });
});

describe("sentences of a report", () => {
  const run = (rest: object) => ({ config: { steps: 1000 }, steps: [], torn: false, ...rest }) as unknown as RunFiles;

  it("say how far a run came", () => {
    const steps = [{ step: 1 }, { step: 500 }];
    expect(text(state(run({ steps })))).to.include("reach step 500 of 1,000");
    expect(text(state(run({})))).to.include("reach step 0 of 1,000");
    expect(text(state(run({ summary: { steps: 999 } })))).to.equal("The run was stopped after 999 of 1,000 steps.");
    expect(text(state(run({ summary: { steps: 1000 } })))).to.equal("The run did all of its 1,000 steps.");
    expect(text(state(run({ summary: { steps: 1000 }, torn: true })))).to.include("incomplete and was left out");
  });

  it("count the blocks that came back with a difference", () => {
    const blocks = (...errors: (number | null)[]) => errors.map((error, block) => ({ stage: 1, block, error }));
    const chart = html``;
    expect(text(reconstruction(blocks(0, 0), chart))).to.include("0 in each of 2 reversible blocks");
    const some = reconstruction(blocks(0, 0.5, null), chart);
    expect(text(some)).to.include("2 of 3 reversible blocks came back with a difference");
    expect(cells(some)).to.deep.equal([
      ["block", "error"],
      ["stages.1.0", "0"],
      ["stages.1.1", "0.5"],
      ["stages.1.2", "not a number"],
    ]);
  });

  it("count the verifications that were exact, and show the last one's blocks", () => {
    const row = (step: number, maxError: number | null, cosine: number | null) => ({
      step,
      maxError,
      cosine,
      blocks: [{ stage: 0, block: step, error: 0 }],
    });
    const exact = verification([row(1, 0, 1), row(2, 0, 1)], []);
    expect(text(exact)).to.include("Verified 2 times").and.include("after step 2");
    expect(cells(exact)[1]).to.deep.equal(["stages.0.2", "0"]);
    const rows = [row(1, 0, 1), row(2, 1e-9, 1), row(3, 0, 0.5), row(4, null, null)];
    expect(text(verification(rows, []))).to.include("1 of 4 verifications were exact");
  });

  it("count the images that were left out", () => {
    const broken = (count: number) => new Map(Array.from({ length: count }, (_, i) => [`${i}.jpg`, "empty"]));
    expect(text(leftOut(broken(1), undefined))).to.match(/^Left out ?1 image file could/);
    expect(text(leftOut(broken(2), undefined))).to.match(/^Left out ?2 image files could/);
    expect(text(leftOut(broken(100), undefined))).to.not.include("more, in");
    expect(text(leftOut(broken(101), undefined))).to.include("And 1 more, in metrics.jsonl");
    expect(cells(leftOut(broken(101), undefined))).to.have.length(101);
    const unused = (count: number) => ({ count, reasons: [{ reason: "hidden", count, files: ["a/.x", "b/.y"] }] });
    expect(text(leftOut(broken(0), unused(1)))).to.match(/^Left out ?1 entry of the folder is not used/);
    expect(text(leftOut(broken(0), unused(1234)))).to.match(/^Left out ?1,234 entries of the folder are not used/);
    expect(cells(leftOut(broken(0), unused(1234)))).to.deep.equal([
      ["why", "how many", "the first"],
      ["hidden", "1,234", "a/.x\nb/.y"],
    ]);
    expect(text(leftOut(broken(1), unused(0)))).to.not.include("of the folder");
  });
});

describe("figures of a report", () => {
  const bytes = analysis(["a"]).memory[0]!.reversible;
  const summary = {
    kind: "revnet",
    activations: "reversible",
    streams: "fixed",
    device: "cpu",
    trainLoss: 1.25,
    testLoss: null,
    testError: 0.125,
    imagesPerSecond: 1234.5,
    stepMilliseconds: { median: 8.25 },
    memory: bytes,
    reconstruction: { exact: true, outOfRange: 0 },
  } as unknown as SummaryRow;
  const shown = (rest: object, summaryRest: object = {}) => {
    const config = { model: { name: "x", kind: "revnet", units: [2] }, batchSize: 1, steps: 1 };
    const run = { config, settings: {}, brokenImages: new Map(), analysis: undefined, ...rest };
    const part = tiles({ ...run, summary: { ...summary, ...summaryRest } } as unknown as RunFiles);
    return Object.fromEntries(
      parse(part.source)
        .querySelectorAll("div")
        .map((div) => [div.querySelector("dt")!.text, div.querySelectorAll("dd").map((dd) => dd.text)]),
    );
  };

  it("are those of the summary", () => {
    expect(shown({})).to.deep.include({
      "test error": ["12.50 %", "loss –"],
      "training loss": ["1.2500", "mean of the last epoch"],
      throughput: ["1,235 images/s", "8.3 ms a step"],
      reconstruction: ["exact", "bit for bit"],
    });
    expect(shown({}, { reconstruction: { exact: false, outOfRange: 0 }, streams: "float32" }).reconstruction).to.deep.equal([
      "not exact",
      "float32 streams",
    ]);
    expect(shown({}, { reconstruction: { exact: null, outOfRange: 0 } })).to.not.have.property("reconstruction");
    expect(shown({}, { validationLoss: null, validationError: null })).to.not.have.property("validation error");
    expect(shown({}, { validationLoss: 0.5, validationError: 0 })["validation error"]).to.deep.equal(["0.00 %", "loss 0.5000"]);
  });

  it("compare activations with those that would be stored, where there is something to compare", () => {
    const more = (rest: object) => shown(rest)["activation memory"]![1];
    const plans = analysis(["a"]);
    expect(more({ analysis: plans })).to.equal("stored: 2.0 times as much");
    expect(more({})).to.equal("reversible activations");
    const same = { ...plans, memory: plans.memory.map((plan) => ({ ...plan, stored: plan.reversible })) };
    expect(more({ analysis: same })).to.equal("reversible activations");
    expect(more({ analysis: plans, settings: { verifyEvery: 5 } })).to.equal("with what verifying stores");
  });

  it("tell of what a run should not have met, where it has", () => {
    const quiet = shown({});
    expect(quiet).to.not.have.any.keys("out of range", "left out");
    const loud = shown({ brokenImages: new Map([["a", "b"]]) }, { reconstruction: { exact: true, outOfRange: 1234 } });
    expect(loud).to.deep.include({
      "out of range": ["1,234", "values of the streams"],
      "left out": ["1", "images that cannot be decoded"],
    });
  });

  it("show settings by the path of their keys, lists in a row unless they hold more than values", () => {
    const given = {
      model: { filters: [4, 8], units: [] },
      schedule: [{ at: 1, rate: 0.5 }, 3],
      seed: 1234567890123,
      rate: 0.30000000000000004,
      outDir: null,
      augment: { flip: true },
    };
    const rows = cells(settings({ settings: given, summary: undefined } as unknown as RunFiles));
    expect(rows.filter(([name]) => name !== "")).to.deep.equal([
      ["model.filters", "4, 8"],
      ["model.units", ""],
      ["schedule.0.at", "1"],
      ["schedule.0.rate", "0.5"],
      ["schedule.1", "3"],
      ["seed", "1234567890123"],
      ["rate", "0.3"],
      ["outDir", "–"],
      ["augment.flip", "true"],
    ]);
    const finished = cells(
      settings({
        settings: {},
        summary: { parameters: 1234, weightsSha256: "ab", reconstruction: { outOfRange: 5678 } },
      } as unknown as RunFiles),
    );
    expect(finished.slice(-3)).to.deep.equal([
      ["parameters", "1,234"],
      ["weights SHA-256", "ab"],
      ["values out of range", "5,678"],
    ]);
  });

  it("draw bytes as parts of the longest bar", () => {
    const plan = { parameters: 20, gradients: 0, optimizer: 0, activations: 30, workspace: 0, data: 0, total: 50 };
    const stored = { ...plan, activations: 180, total: 200 };
    const part = memory([{ factor: 1, blocks: 3, reversible: plan, stored }], html``);
    const widths = parse(part.source)
      .querySelectorAll(".bar")
      .map((bar) => bar.querySelectorAll("i").map((one) => Number.parseFloat(one.getAttribute("style")!.slice("width:".length))));
    // In the order of the legend: activations, workspace, parameters, ...
    expect(widths).to.deep.equal([
      [15, 0, 10, 0, 0, 0],
      [90, 0, 10, 0, 0, 0],
    ]);
    expect(cells(part).map((row) => [row[0], row[1], row[3], row[7]])).to.deep.equal([
      ["", "activations", "parameters", "total"],
      ["reversible, 3 blocks (this network)", "30 B", "20 B", "50 B"],
      ["stored, 3 blocks (this network)", "180 B", "20 B", "200 B"],
    ]);
  });
});

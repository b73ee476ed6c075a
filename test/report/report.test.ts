/** Reports without a browser: what is read, what is refused, what the page holds. */
import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { inflateSync } from "node:zlib";
import { expect } from "chai";
import { type HTMLElement, parse } from "node-html-parser";
import { trainRevNet } from "../../lib/index.js";
import type { Analysis } from "../../lib/report/analysis.js";
import { type Chart, MAX_POINTS, stepCharts } from "../../lib/report/charts.js";
import { writeReport } from "../../lib/report/index.js";
import { encodePng, shrinkImage } from "../../lib/report/png.js";
import { readRun } from "../../lib/report/run-files.js";
import { rejection } from "../support/errors.js";
import { TINY_RESNET, TINY_REVNET, tinyDataset } from "../support/tiny.js";
import { analysis, HOSTILE, metrics, stepLine, validationLine, writeRun } from "./fixtures.js";

describe("reports", function () {
  this.timeout(60_000);
  let folder: string;
  const file = (...names: string[]) => path.join(folder, ...names);

  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-report-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  const page = async (name: string): Promise<HTMLElement> =>
    parse(await readFile(file(name), "utf8"), { blockTextElements: { script: true } });
  const chartsOf = (root: HTMLElement): Chart[] => JSON.parse(root.querySelector("script#charts")!.rawText);
  /** [row][column] texts. */
  const cells = (table: HTMLElement) =>
    table.querySelectorAll("tr").map((row) => row.querySelectorAll("th, td").map((cell) => cell.text.trim()));

  it("hold a chart for each curve, with a point for each step", async () => {
    await writeRun(file("a"), { steps: 40 });
    await writeReport([file("a")], file("a", "report.html"));
    const root = await page("a/report.html");
    const charts = chartsOf(root);
    const points = Object.fromEntries(charts.map(({ id, series }) => [id, series.map(({ x, y }) => [x.length, y.length])]));
    expect(points).to.deep.equal({
      loss: [
        [40, 40],
        [40, 40],
        [4, 4],
      ],
      error: [
        [40, 40],
        [40, 40],
        [4, 4],
      ],
      "learning-rate": [[40, 40]],
      throughput: [[40, 40]],
      "memory-depth": [
        [3, 3],
        [3, 3],
      ],
      reconstruction: [[2, 2]],
    });
    expect(root.querySelectorAll("figure.chart").map(({ id }) => id)).to.have.members(charts.map(({ id }) => `chart-${id}`));
    const [loss, error, learningRate, throughput, depth] = charts as [Chart, Chart, Chart, Chart, Chart];
    expect(loss.series[0]!.y[9]).to.equal(2 - 10 / 1000);
    expect(loss.series[2]).to.deep.include({ x: [10, 20, 30, 40], y: [2.5, 2.5, 2.5, 2.5] });
    expect(error.series[0]!.y[0]).to.equal(50);
    expect(learningRate.series[0]!.y[39]).to.equal(0.1);
    expect(throughput.series[0]!.y[39]).to.be.closeTo(500, 1e-9);
    expect(depth.series.map(({ y }) => y)).to.deep.equal([
      [5000, 5000, 5000].map((bytes) => bytes / 2 ** 20),
      [10_000, 30_000, 90_000].map((bytes) => bytes / 2 ** 20),
    ]);
  });

  it("hold the figures, the confusion matrix, the worst images and the memory", async () => {
    await writeRun(file("a"));
    await writeReport([file("a")], file("a", "report.html"));
    const root = await page("a/report.html");
    expect(root.querySelector("h1")!.text).to.equal("tiny: a");
    expect(root.querySelector(".tiles")!.text)
      .to.match(/25\.00 %/)
      .and.match(/500 images\/s/)
      .and.match(/stored: 2\.0 times/)
      .and.match(/exact/);
    expect(cells(root.querySelector("table.confusion")!)).to.deep.equal([
      ["", "cat", "dog", "owl"],
      ["cat", "7", "3", "0"],
      ["dog", "0", "7", "3"],
      ["owl", "3", "0", "7"],
    ]);
    const images = root.querySelectorAll(".images figure");
    expect(images.map(({ text }) => text.trim().replace(/\s+/g, " "))).to.deep.equal([
      "dog is cat four.jpg, loss 3.25",
      "no colourscat is dog #9, loss 1.50",
    ]);
    expect(images[0]!.querySelector("img")!.getAttribute("src")).to.match(/^data:image\/png;base64,/);
    const memory = cells(root.querySelector("#memory table")!);
    expect(memory[0]).to.deep.equal(["", "activations", "workspace", "parameters", "gradients", "optimizer", "data", "total"]);
    expect(memory.slice(1).map((row) => [row[0], row[1], row[7]])).to.deep.equal([
      ["reversible, 4 blocks (this network)", "4.9 KiB", "8.5 KiB"],
      ["stored, 4 blocks (this network)", "9.8 KiB", "13.4 KiB"],
      ["reversible, 12 blocks", "4.9 KiB", "8.5 KiB"],
      ["stored, 12 blocks", "29.3 KiB", "32.9 KiB"],
      ["reversible, 36 blocks", "4.9 KiB", "8.5 KiB"],
      ["stored, 36 blocks", "87.9 KiB", "91.5 KiB"],
    ]);
    expect(root.querySelector("#reconstruction")!.text).to.include("0 in each of 2 reversible blocks");
    expect(root.querySelector("table.settings")!.text).to.include("quadrants").and.include("ab".repeat(32));
  });

  it("show settings in words, and a mistake with its file's name", async () => {
    await writeRun(file("a"));
    const config = JSON.parse(await readFile(path.join(file("a"), "config.json"), "utf8"));
    Object.assign(config, {
      seed: 12345,
      optimizer: { learningRate: 0.0000054836273193359375 },
      schedule: { milestones: [0.5, 0.75] },
    });
    await writeFile(path.join(file("a"), "config.json"), JSON.stringify(config));
    await writeReport([file("a")], file("a.html"));
    const root = await page("a.html");
    const rows = cells(root.querySelector("table.settings")!);
    expect(rows).to.deep.include.members([
      ["model.name", config.model.name],
      ["seed", "12345"],
      ["optimizer.learningRate", "5.48e-6"],
      ["schedule.milestones", "0.5, 0.75"],
    ]);
    for (const [, value] of rows) expect(value).not.to.match(/[{}[\]]/);
    const [first, second] = root.querySelectorAll("#mistakes small");
    expect([first!.text, first!.getAttribute("title")]).to.deep.equal(["four.jpg, loss 3.25", "photos/b/four.jpg"]);
    expect(second!.text).to.equal("#9, loss 1.50");
  });

  it("draw learning rates that span decades on a logarithmic axis", async () => {
    await writeRun(file("a"));
    const run = await readRun(file("a"));
    const logarithmic = (rates: number[]) =>
      stepCharts([{ ...run, steps: run.steps.map((row, i) => ({ ...row, learningRate: rates[i % rates.length]! })) }], [""]).find(
        ({ id }) => id === "learning-rate",
      )!.logarithmic;
    expect(logarithmic([0.1, 0.001])).to.equal(true);
    expect(logarithmic([0.1, 0.05])).to.equal(false);
  });

  it("do not call a ResNet reversible where runs are compared, and tell what they were asked for", async () => {
    await writeRun(file("a"), { kind: "resnet" });
    await writeRun(file("b"));
    await writeReport([file("a"), file("b")], file("comparison.html"));
    const rows = new Map(
      cells((await page("comparison.html")).querySelector("table.comparison")!).map(([name, ...of]) => [name, of]),
    );
    expect(rows.get("kind")).to.deep.equal(["ResNet", "RevNet"]);
    expect(rows.get("activations")).to.deep.equal(["stored", "reversible"]);
    for (const name of ["data", "seed", "learning rate"]) expect(rows.get(name), name).to.have.length(2);
  });

  it("write losses of a run that diverged in few characters", async () => {
    await writeRun(file("a"), { testLoss: 9762764.2431 });
    await writeRun(file("b"), { testLoss: 97.62 });
    await writeReport([file("a"), file("b")], file("comparison.html"));
    const rows = cells((await page("comparison.html")).querySelector("table.comparison")!);
    expect(rows.find(([name]) => name === "test loss")).to.deep.equal(["test loss", "9.76e6", "97.6200"]);
  });

  it("put what a run should not have met before all else where runs are compared", async () => {
    await writeRun(file("a"), { outOfRange: 1234567 });
    await writeRun(file("b"), { broken: ["1.jpg"] });
    await writeRun(file("c"));
    const tiles = async (...runs: string[]) => {
      await writeReport(
        runs.map((name) => file(name)),
        file("comparison.html"),
      );
      return (await page("comparison.html")).querySelectorAll("#comparison .tiles > div").map((tile) => tile.text.trim());
    };
    const [range, left, ...others] = await tiles("a", "b", "c");
    expect(range).to.include("out of range: a").and.include("1,234,567");
    expect(left).to.include("left out: b").and.include("1");
    expect(others).to.deep.equal([]);
    await writeRun(file("d"));
    expect(await tiles("c", "d")).to.deep.equal([]);
  });

  it("tell the throughput by the mean time of steps, however uneven they are", async () => {
    await writeRun(file("a"));
    const run = await readRun(file("a"));
    const steps = run.steps.map((row, i) => ({ ...row, milliseconds: i % 2 === 0 ? 39.9 : 0.1 }));
    const chart = stepCharts([{ ...run, steps }], [""]).find(({ id }) => id === "throughput")!;
    // Batches of 10 in 20 ms.
    expect(chart.series[0]!.y[1]).to.be.closeTo(500, 1e-9);
    for (const rate of chart.series[0]!.y) expect(rate).to.be.within(200, 800);
  });

  it("name the images that could not be decoded, the first hundred of them", async () => {
    await writeRun(file("few"), { broken: ["photos/cat/1.jpg", HOSTILE, "photos/cat/1.jpg"] });
    await writeReport([file("few")], file("few.html"));
    const few = await page("few.html");
    expect(few.querySelector(".tiles")!.text).to.match(/left out\s*2\s*images/);
    expect(cells(few.querySelector("table.left-out")!).slice(1)).to.deep.equal([
      ["photos/cat/1.jpg", "the file is empty"],
      [HOSTILE, "the file is empty"],
    ]);
    expect(few.querySelector("#left-out")!.text).not.to.include("more");

    await writeRun(file("many"), { broken: Array.from({ length: 1203 }, (_, i) => `${i}.jpg`) });
    await writeReport([file("many")], file("many.html"));
    const many = await page("many.html");
    expect(cells(many.querySelector("table.left-out")!)).to.have.length(101);
    expect(many.querySelector("#left-out")!.text)
      .to.match(/1,203 image files could not/)
      .and.to.match(/And 1,103 more, in metrics\.jsonl/);

    await writeRun(file("none"));
    await writeReport([file("none")], file("none.html"));
    expect((await page("none.html")).querySelector("#left-out")).to.equal(null);
  });

  it("draw many classes as a picture, with the most frequent confusions in a list", async () => {
    const classes = Array.from({ length: 30 }, (_, i) => `class ${i}`);
    await writeRun(file("a"), { classes });
    await writeReport([file("a")], file("a", "report.html"));
    const section = (await page("a/report.html")).querySelector("#confusion")!;
    expect(section.querySelector("img.heatmap")!.getAttribute("alt")).to.include("30 classes");
    const [, first, ...rest] = cells(section.querySelector("table")!);
    expect(first).to.deep.equal(["class 0", "class 1", "3"]);
    expect(rest).to.have.length(19);
  });

  it("refer to nothing outside, forbid themselves to, and take no name for markup", async () => {
    await writeRun(file("a"), { name: HOSTILE.slice(0, 100), classes: [HOSTILE, "dog", "owl"] });
    // Of the same name, so that they go by their paths, in which there is a </script>.
    const [odd, twin] = ["<", "other"].map((name) => file(name, "script><img src=x onerror=alert(1)>")) as [string, string];
    for (const run of [odd, twin]) await writeRun(run, { name: HOSTILE.slice(0, 100) });
    await writeReport([file("a")], file("one.html"));
    await writeReport([file("a"), odd, twin], file("two.html"));
    for (const name of ["one.html", "two.html"]) {
      const root = await page(name);
      const policy = root.querySelector("meta[http-equiv]")!.getAttribute("content")!;
      expect(policy).to.match(
        /^default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src ('sha256-[\w+/=]+' ?){2}$/,
      );
      for (const element of root.querySelectorAll("*")) {
        for (const attribute of ["src", "href"])
          expect(element.getAttribute(attribute) ?? "data:", `${name}: ${element.tagName}`).to.match(/^data:/);
        for (const attribute of Object.keys(element.attributes)) expect(attribute).to.not.match(/^on/);
      }
      expect(root.querySelectorAll("script")).to.have.length(3);
      expect(root.querySelectorAll("link, iframe, object, embed, base")).to.have.length(0);
      expect(await readFile(file(name), "utf8")).to.not.match(/@import|url\((?!data:)/);
    }
    expect(chartsOf(await page("two.html"))[2]!.series[1]!.label).to.equal(odd);
    const hostile = (await page("one.html")).querySelector("h1")!;
    expect(hostile.childNodes).to.have.length(1);
    expect(hostile.text).to.equal(`${HOSTILE.slice(0, 100)}: a`);
  });

  it("stay small whatever the number of steps: each point is then a mean", async () => {
    const steps = 2 * MAX_POINTS + 1;
    await writeRun(file("a"), { steps });
    const [loss, , learningRate] = stepCharts([await readRun(file("a"))], [""]) as [Chart, Chart, Chart];
    const { x, y } = loss.series[0]!;
    expect(x).to.have.length(1001);
    expect(x.at(-1)).to.equal(steps);
    expect(y[0]).to.be.closeTo(2 - 2 / 1000, 1e-12); // steps 1 to 3
    expect(loss.note).to.include("mean of 3 steps");
    expect(learningRate.series[0]!.y).to.have.length(1001);
  });

  it("compare runs: overlaid curves, a table, and whose weights are the same", async () => {
    await writeRun(file("x", "a"), { steps: 30, validationError: 0.125 });
    await writeRun(file("y", "a"), { steps: 20 });
    await writeRun(file("b"), { steps: 10, weightsSha256: "cd".repeat(32) });
    await rm(file("b", "summary.json"));
    const folders = [file("x", "a"), file("y", "a"), file("b")];
    await writeReport(folders, file("page.html"));
    const root = await page("page.html");
    const [loss, error, learningRate] = chartsOf(root) as [Chart, Chart, Chart];
    expect(loss.series.map(({ x }) => x.length)).to.deep.equal([30, 3, 20, 2, 10, 1]);
    expect(loss.series.map(({ color }) => color)).to.deep.equal([0, 0, 1, 1, 2, 2]);
    expect(error.series).to.have.length(6);
    // Folders of the same name go by their paths.
    expect(learningRate.series.map(({ label }) => label)).to.deep.equal([folders[0], folders[1], "b"]);
    const rows = cells(root.querySelector("table.comparison")!);
    expect(rows[0]).to.deep.equal(["", folders[0], folders[1], "b"]);
    expect(rows.find(([name]) => name === "test error")).to.deep.equal(["test error", "25.00 %", "25.00 %", "–"]);
    expect(rows.find(([name]) => name === "validation error")).to.deep.equal(["validation error", "12.50 %", "–", "–"]);
    expect(rows.find(([name]) => name === "steps")).to.deep.equal(["steps", "30", "20", "–"]);
    expect(root.querySelector("#comparison")!.text).to.include(`The weights of ${folders[0]}, ${folders[1]} are the same`);
  });

  describe("of what is not whole", () => {
    it("read a torn last line up to there, and say so", async () => {
      await writeRun(file("a"));
      await appendFile(file("a", "metrics.jsonl"), stepLine(21).slice(0, -7));
      const run = await readRun(file("a"));
      expect(run.torn).to.equal(true);
      expect(run.steps).to.have.length(20);
      await writeReport([file("a")], file("page.html"));
      expect((await page("page.html")).querySelector(".state")!.text).to.include("incomplete");
      // Complete but for its line break, it counts.
      await writeFile(file("a", "metrics.jsonl"), metrics(20) + stepLine(21));
      expect((await readRun(file("a"))).steps).to.have.length(21);
    });

    it("show a run that goes on or was killed, without an earlier one's analysis", async () => {
      await writeRun(file("a"));
      await rm(file("a", "summary.json"));
      await writeReport([file("a")], file("page.html"));
      const root = await page("page.html");
      expect(root.querySelector(".state")!.text).to.match(/no summary.*step 20 of 20/);
      expect(root.querySelector("#confusion")).to.equal(null);
      expect(chartsOf(root)).to.have.length(4);
      await writeFile(file("a", "metrics.jsonl"), "");
      await writeReport([file("a")], file("page.html"));
      expect((await page("page.html")).querySelector("#training")!.text).to.include("no steps yet");
    });

    it("show each step once where a run went back to a checkpoint", async () => {
      await writeRun(file("a"));
      const again = [stepLine(16), validationLine(16), stepLine(17)].join("\n");
      await appendFile(file("a", "metrics.jsonl"), `${again}\n`);
      const { steps, validations } = await readRun(file("a"));
      expect(steps.map(({ step }) => step)).to.deep.equal(Array.from({ length: 17 }, (_, i) => i + 1));
      expect(validations.map(({ step }) => step)).to.deep.equal([10, 16]);
    });

    it("refuse a folder that holds no run", async () => {
      expect(await rejection(readRun(file("none")), "ERR_FILE"))
        .to.include("none")
        .and.include("config.json");
      await writeRun(file("a"));
      await rm(file("a", "metrics.jsonl"));
      expect(await rejection(readRun(file("a")), "ERR_FILE")).to.include("metrics.jsonl");
      await mkdir(file("a", "metrics.jsonl"));
      expect(await rejection(readRun(file("a")), "ERR_FILE")).to.include("is a folder, expected a regular file");
    });

    const damaged: [string, string, RegExp][] = [
      ["config.json", "{", /config\.json' is not JSON/],
      ["config.json", "[]", /config\.json: expected an object/],
      [
        "config.json",
        JSON.stringify({ model: { name: 1, units: [] }, batchSize: 1, steps: 1 }),
        /config\.json\.model\.name: expected a string, got 1/,
      ],
      ["summary.json", "{}", /summary\.json\.model: expected a string/],
      ["metrics.jsonl", `${stepLine(1)}\nnonsense\n${stepLine(2)}\n`, /metrics\.jsonl:2 is not JSON/],
      ["metrics.jsonl", `${JSON.stringify({ type: "step", step: "1" })}\n`, /metrics\.jsonl:1\.step: expected a count/],
      ["metrics.jsonl", "7\n", /metrics\.jsonl:1: expected an object, got 7/],
      ["metrics.jsonl", "x".repeat(2 ** 20 + 1), /more than 1048576 characters/],
      ["analysis.json", JSON.stringify({ ...analysis(["a", "b"]), classes: ["a"] }), /confusion: expected 1 x 1 counts/],
      [
        "analysis.json",
        JSON.stringify(analysis(["a", "b"])).replace("data:image/png", "https://example.org/x"),
        /image: expected a PNG/,
      ],
      [
        "analysis.json",
        JSON.stringify(analysis(["a", "b"])).replace('"prediction":1', '"prediction":2'),
        /expected classes from 0 to 1/,
      ],
    ];
    for (const [name, content, message] of damaged)
      it(`refuse ${name} with ${content.slice(0, 40).trim()}`, async () => {
        await writeRun(file("a"));
        await writeFile(file("a", name), content);
        expect(await rejection(writeReport([file("a")], file("page.html")), "ERR_INVALID_FILE")).to.match(message);
      });

    it("say where a page cannot be written", async () => {
      await writeRun(file("a"));
      expect(await rejection(writeReport([file("a")], file("none", "page.html")), "ERR_FILE")).to.include("page.html");
    });
  });

  describe("at the end of a run", () => {
    const train = (options: object) =>
      trainRevNet({
        model: TINY_REVNET,
        data: tinyDataset(),
        batchSize: 16,
        steps: 9,
        device: "cpu",
        threads: 1,
        ...options,
      } as never);
    const analysisOf = async (name: string): Promise<Analysis> => JSON.parse(await readFile(file(name, "analysis.json"), "utf8"));

    it("are written with what the network itself tells", async () => {
      const { network, summary } = await train({ outDir: file("a") });
      try {
        const { classes, evaluation, reconstruction, memory } = await analysisOf("a");
        expect(classes).to.deep.equal(["a", "b", "c", "d"]);
        const { confusion, losses, predictions } = await network.evaluate(tinyDataset());
        expect(evaluation).to.deep.include({ step: 9, images: 22, confusion });
        const { labels } = tinyDataset().test;
        const wrong = Array.from(labels.keys()).filter((i) => predictions[i] !== labels[i]);
        expect(wrong.length)
          .to.equal(Math.round(22 * summary.testError!))
          .and.be.greaterThan(1);
        expect(evaluation!.mistakes.map(({ index }) => index)).to.have.members(wrong);
        for (const [i, { index, loss, prediction }] of evaluation!.mistakes.entries()) {
          expect(loss).to.be.closeTo(losses[index]!, 1e-5);
          expect(loss).to.be.at.most(i === 0 ? loss : evaluation!.mistakes[i - 1]!.loss);
          expect(prediction).to.equal(predictions[index]);
        }
        expect(losses.reduce((sum, loss) => sum + loss) / 22).to.be.closeTo(summary.testLoss!, 1e-5);
        expect(reconstruction).to.deep.equal([
          { stage: 0, block: 1, error: 0 },
          { stage: 1, block: 1, error: 0 },
        ]);
        expect(memory.map(({ factor, blocks }) => [factor, blocks])).to.deep.equal([
          [1, 4],
          [3, 12],
          [9, 36],
        ]);
        expect(memory[0]!.reversible.activations).to.equal(summary.memory.activations);
        expect(new Set(memory.map(({ reversible }) => reversible.activations))).to.have.property("size", 1);
        expect(memory[2]!.stored.activations).to.be.greaterThan(2 * memory[1]!.stored.activations);
        expect(chartsOf(await page("a/report.html"))).to.have.length(7);
      } finally {
        network.dispose();
      }
    });

    it("are written after an abort", async () => {
      const controller = new AbortController();
      const run = train({ outDir: file("a"), steps: 1000, validateEvery: 2, signal: controller.signal });
      const watched = (async () => {
        for await (const event of run) if (event.type === "validation") controller.abort();
      })().catch(() => {});
      await rejection(run, "ERR_ABORTED");
      await watched;
      const root = await page("a/report.html");
      expect(root.querySelector(".state")!.text).to.match(/stopped after \d+ of 1,000 steps/);
      expect((await analysisOf("a")).evaluation!.step).to.be.at.least(2);
      expect(root.querySelector("table.confusion")).to.not.equal(null);
      expect(root.querySelector("#reconstruction")).to.equal(null);
    });

    it("do not speak of reversible blocks where there are none", async () => {
      (await train({ model: TINY_RESNET, outDir: file("a") })).network.dispose();
      const root = await page("a/report.html");
      expect(root.querySelector("#reconstruction")).to.equal(null);
      expect(root.querySelector("#memory")!.text).to.include("no reversible blocks");
      expect(
        cells(root.querySelector("#memory table")!)
          .slice(1)
          .map(([name]) => name),
      ).to.deep.equal(["stored, 4 blocks (this network)", "stored, 12 blocks", "stored, 36 blocks"]);
    });
  });

  describe("images", () => {
    it("are PNG files of the same pixels", () => {
      for (const channels of [1, 2, 3, 4]) {
        const pixels = Uint8Array.from({ length: 3 * 5 * channels }, (_, i) => (i * 37) % 256);
        const png = encodePng(pixels, [3, 5, channels]);
        expect(png.subarray(0, 8).toString("latin1")).to.equal("\x89PNG\r\n\x1a\n");
        expect([png.readUInt32BE(16), png.readUInt32BE(20), png[24]]).to.deep.equal([5, 3, 8]);
        const rows = inflateSync(png.subarray(41, 41 + png.readUInt32BE(33)));
        const back = [0, 1, 2].flatMap((y) => [...rows.subarray(y * (5 * channels + 1) + 1, (y + 1) * (5 * channels + 1))]);
        expect(back).to.deep.equal([...pixels]);
      }
    });

    it("shrink to means", () => {
      const { pixels, shape } = shrinkImage(Uint8Array.from([0, 10, 99, 20, 30, 99]), [2, 3, 1], 2);
      expect(shape).to.deep.equal([1, 1, 1]);
      expect([...pixels]).to.deep.equal([15]);
    });
  });
});

/** What an earlier run, or one that was killed, has left in a folder: nothing of it is taken for the present run's. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { type TrainOptions, trainRevNet } from "../../lib/index.js";
import { readRun } from "../../lib/report/run-files.js";
import { rejection } from "../support/errors.js";
import { RUN_FILES, tinyOptions } from "../support/tiny.js";

describe("a folder that is gone on in", () => {
  let folder: string;
  const file = (...names: string[]) => path.join(folder, ...names);
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-leftovers-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  const options = (overrides: Partial<TrainOptions>) => tinyOptions({ device: "cpu", threads: 1, ...overrides });
  async function train(overrides: Partial<TrainOptions>) {
    const result = await trainRevNet(options(overrides));
    result.network.dispose();
    return result;
  }

  /** Ends the run after step 3, or step 4 where that has been started. */
  async function stopped(overrides: Partial<TrainOptions> = {}): Promise<void> {
    const controller = new AbortController();
    const run = trainRevNet(options({ outDir: folder, signal: controller.signal, ...overrides }));
    const ended = rejection(run, "ERR_ABORTED");
    for await (const event of run[Symbol.asyncIterator]()) {
      if (event.type !== "step" || event.step !== 3) continue;
      controller.abort();
      break;
    }
    await ended;
  }

  it("has no summary until the run has ended again", async () => {
    await stopped();
    const { steps } = JSON.parse(await readFile(file("summary.json"), "utf8"));
    expect(steps).to.be.within(3, 4);
    const seen: string[] = [];
    const run = trainRevNet(options({ outDir: folder, resume: true }));
    for await (const event of run) {
      if (event.type !== "start" && event.type !== "step") continue;
      seen.push(event.type);
      expect(await readdir(folder), event.type).to.not.include("summary.json");
      // So a report made meanwhile has neither the earlier summary nor its analysis.
      const { summary, analysis } = await readRun(folder);
      expect([summary, analysis], event.type).to.deep.equal([undefined, undefined]);
    }
    expect(seen).to.deep.equal(["start", ...Array(6 - steps).fill("step")]);
    (await run).network.dispose();
    expect((await readRun(folder)).summary!.steps).to.equal(6);
  });

  it("has its metrics once each, the steps before and after", async () => {
    await stopped();
    await train({ outDir: folder, resume: true });
    const { steps, validations } = await readRun(folder);
    expect(steps.map(({ step }) => step)).to.deep.equal([1, 2, 3, 4, 5, 6]);
    expect(validations.map(({ step }) => step)).to.deep.equal([4, 6]);
  });

  it("loses the temporary files of a run that was killed, and no others", async () => {
    await stopped();
    const mine = ["notes.tmp", "summary.json.tmp", "model.safetensors.12.tmp", "notes.2026.11.tmp"];
    await mkdir(file("checkpoints"), { recursive: true });
    for (const name of [
      ...mine,
      "summary.json.revnet-0123456789abcdef.tmp",
      "checkpoints/step-00000003.safetensors.revnet-0123456789abcdef.tmp",
    ])
      await writeFile(file(name), "half");
    await train({ outDir: folder, resume: true });
    expect((await readdir(folder)).sort()).to.deep.equal([...RUN_FILES, ...mine].sort());
    expect((await readdir(file("checkpoints"))).filter((name) => name.endsWith(".tmp"))).to.deep.equal([]);
  });

  it("counts values out of range, and the averages of an epoch, over the steps before as well", async () => {
    const whole = await train({ steps: 8, outDir: file("whole") });
    await stopped({ steps: 8 });
    const resumed = await train({ steps: 8, outDir: folder, resume: true });
    const figures = ({ history, summary }: typeof whole) => ({
      epochs: history.epochs.map(({ milliseconds: _, ...rest }) => rest),
      outOfRange: summary.reconstruction.outOfRange,
      trainLoss: summary.trainLoss,
      sha256: summary.weightsSha256,
    });
    expect(figures(resumed)).to.deep.equal(figures(whole));
    // The first epoch's averages are those of its four steps, one of them after the resume.
    const losses = whole.history.steps.slice(0, 4).map(({ loss }) => loss);
    expect(resumed.history.epochs[0]!.loss).to.be.closeTo(losses.reduce((a, b) => a + b) / 4, 1e-12);
  });
});

/** Aborts are heeded wherever a run waits: for images, for a folder, for a loop over its events that has stopped reading. */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { type LabelledImage, type TrainOptions, trainRevNet } from "../../lib/index.js";
import { rejection } from "../support/errors.js";
import { tinyDataset, tinyOptions } from "../support/tiny.js";

describe("an aborted run", () => {
  const never = new Promise<never>(() => {});
  const { classes } = tinyDataset();
  const images = Array.from({ length: 32 }, (_, i): LabelledImage => ({ image: new Uint8Array(192).fill(i), label: i % 4 }));
  async function* hanging(after: number) {
    yield* images.slice(0, after);
    await never;
  }
  const stuck = {
    next: () => never,
    return: () => never,
    [Symbol.asyncIterator]: () => stuck,
  } as AsyncIterableIterator<LabelledImage>;

  /** Aborts once the run has come to its wait. */
  async function aborted(overrides: Partial<TrainOptions>): Promise<void> {
    const signal = AbortSignal.timeout(50);
    await rejection(trainRevNet(tinyOptions({ ...overrides, signal })), "ERR_ABORTED");
  }
  const data = (train: unknown) => ({ name: "mine", shape: [8, 8, 3], classes, train, test: images }) as TrainOptions["data"];

  it("does not wait for an iterable, however it hangs", async () => {
    await aborted({ data: data(hanging(5)) });
    await aborted({ data: data(stuck) });
    await aborted({ data: data(() => stuck) });
    await aborted({ data: data(() => never) });
  });

  it("does not wait for the images of a later epoch", async () => {
    await aborted({ data: data((epoch: number) => (epoch === 0 ? images : hanging(3))), steps: 100 });
  });

  it("does not wait for a loop that reads no more events, and keeps what it has", async () => {
    const outDir = await mkdtemp(path.join(tmpdir(), "revnet-abort-"));
    const controller = new AbortController();
    const run = trainRevNet(tinyOptions({ steps: 1000, outDir, signal: controller.signal }));
    const events = run[Symbol.asyncIterator]();
    await events.next();
    // Until the run is held up by this reader.
    let before = -1;
    const size = () =>
      stat(path.join(outDir, "metrics.jsonl")).then(
        ({ size }) => size,
        () => 0,
      );
    while (before !== (await size()) || before === 0) {
      before = await size();
      await new Promise((wake) => setTimeout(wake, 100));
    }
    controller.abort();
    await rejection(run, "ERR_ABORTED");
    const resumed = trainRevNet(tinyOptions({ steps: 1000, outDir, resume: true, signal: controller.signal }));
    await rejection(resumed, "ERR_ABORTED");
    await rm(outDir, { recursive: true });
  });

  it("writes where its paths led when it began", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "revnet-cwd-"));
    const cwd = process.cwd();
    try {
      process.chdir(folder);
      const run = trainRevNet(tinyOptions({ outDir: "run", checkpointEvery: 1 }));
      process.chdir(cwd);
      const { network, fileError } = await run;
      network.dispose();
      expect(fileError).to.equal(undefined);
      expect(await readdir(folder)).to.deep.equal(["run"]);
      expect(await readdir(path.join(folder, "run"))).to.include("model.safetensors");
    } finally {
      process.chdir(cwd);
      await rm(folder, { recursive: true });
    }
  });
});

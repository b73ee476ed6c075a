import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { readSafetensors, writeSafetensors } from "../../lib/formats/safetensors.js";
import {
  createNetwork,
  loadNetwork,
  type RevNetError,
  type TrainingEvent,
  type TrainOptions,
  trainRevNet,
} from "../../lib/index.js";
import { readCheckpoint, takeSnapshot, writeCheckpoint } from "../../lib/training/checkpoint.js";
import { rejection } from "../support/errors.js";
import { DEVICES, TINY_REVNET, tinyDataset } from "../support/tiny.js";

const DEVICE = DEVICES.includes("cpu") ? "cpu" : "reference";
const STEPS = 11;

describe("checkpoints", function () {
  this.timeout(120_000);
  let folder: string;
  const file = (...names: string[]) => path.join(folder, ...names);
  const step = (number: number) => file("checkpoints", `step-${String(number).padStart(8, "0")}.safetensors`);
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-checkpoints-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  const options = (overrides: Partial<TrainOptions> = {}): TrainOptions => ({
    model: TINY_REVNET,
    data: tinyDataset(),
    device: DEVICE,
    threads: 1,
    batchSize: 16,
    steps: STEPS,
    augment: { padding: 1, flip: true },
    optimizer: { learningRate: 0.05 },
    schedule: "cosine",
    validateEvery: 3,
    ...overrides,
  });

  /** Trains in `folder`, to the end or until `stopAt`. */
  async function train(
    overrides: Partial<TrainOptions> = {},
    stopAt = Infinity,
    onEvent?: (event: TrainingEvent) => Promise<void>,
  ) {
    const controller = new AbortController();
    const events: TrainingEvent[] = [];
    const run = trainRevNet(options({ outDir: folder, signal: controller.signal, ...overrides }));
    try {
      for await (const event of run) {
        events.push(event);
        await onEvent?.(event);
        if (event.type === "step" && event.step >= stopAt) controller.abort();
      }
    } catch (error) {
      if ((error as RevNetError).code !== "ERR_ABORTED") throw error;
      return { events, result: undefined };
    }
    const result = await run;
    result.network.dispose();
    return { events, result };
  }
  const resumedFrom = (events: TrainingEvent[]) => events.find((event) => event.type === "start")!.resumedFrom;
  const warnings = (events: TrainingEvent[]) => events.filter((event) => event.type === "warning");
  const uninterrupted = async (overrides: Partial<TrainOptions> = {}) => (await train({ outDir: undefined, ...overrides })).result!;
  /** Everything of a run that does not depend on the clock. */
  const timeless = (value: unknown) =>
    JSON.parse(JSON.stringify(value, (key, inner) => (/illiseconds|imagesPerSecond/.test(key) ? undefined : inner)));

  for (const device of DEVICES)
    it(`ends with the bits of the uninterrupted run, stopped anywhere, on ${device}`, async () => {
      const whole = await uninterrupted({ device });
      // In an epoch, at a validation, at the end of an epoch with its checkpoint, and before the last step.
      for (const stop of device === "reference" ? [3, 10] : [1, 3, 4, 6, 8, 10]) {
        folder = path.join(folder, "deeper");
        const stopped = await train({ device, checkpointEvery: 4 }, stop);
        const last = stopped.events.findLast((event) => event.type === "step")!.step;
        const { events, result } = await train({ device, resume: true });
        expect(resumedFrom(events), `stopped after ${stop}`).to.equal(last);
        expect(events.filter((event) => event.type === "step")).to.have.length(STEPS - last);
        expect(timeless(result!.summary)).to.deep.equal(timeless(whole.summary));
        expect(timeless(result!.history)).to.deep.equal(timeless(whole.history));
        const lines = (await readFile(file("metrics.jsonl"), "utf8")).trimEnd().split("\n");
        const numbers = lines.map((line) => JSON.parse(line)).filter(({ type }) => type === "step");
        expect(numbers.map((record) => record.step)).to.deep.equal(Array.from({ length: STEPS }, (_, i) => i + 1));
      }
      folder = folder.replace(/(\/deeper)+$/, "");
    });

  it("keeps the last ones and the best, which load as models", async () => {
    const { events, result } = await train({ checkpointEvery: 2, keepCheckpoints: 2 });
    expect((await readdir(file("checkpoints"))).sort()).to.deep.equal([
      "best.safetensors",
      "step-00000010.safetensors",
      "step-00000011.safetensors",
    ]);
    const written = events.filter((event) => event.type === "checkpoint");
    expect(written.filter(({ best }) => !best).map((event) => event.step)).to.deep.equal([2, 4, 6, 8, 10, 11]);
    const { validations } = result!.history;
    const [best] = [...validations].sort((a, b) => a.error - b.error || a.loss - b.loss);
    expect(written.findLast((event) => event.best)!.step).to.equal(best!.step);
    const network = await loadNetwork(file("checkpoints", "best.safetensors"), { device: DEVICE });
    const { loss, error } = await network.evaluate(tinyDataset(), { batchSize: 16 });
    network.dispose();
    expect({ loss, error }).to.deep.equal({ loss: best!.loss, error: best!.error });
  });

  it("resumes from nothing at the start, and a finished run at its end", async () => {
    const fresh = await train({ resume: true });
    expect(resumedFrom(fresh.events)).to.equal(0);
    const again = await train({ resume: true });
    expect(resumedFrom(again.events)).to.equal(STEPS);
    expect(again.events.map(({ type }) => type)).to.deep.equal(["start", "done"]);
    expect(timeless(again.result!.summary)).to.deep.equal(timeless(fresh.result!.summary));
  });

  it("does not begin a new run over another one's checkpoints", async () => {
    await train({}, 5);
    const files = await readdir(folder, { recursive: true });
    const metrics = await readFile(file("metrics.jsonl"));
    const message = await rejection(train(), "ERR_RUN_EXISTS");
    expect(message).to.include(folder).and.include("resume");
    expect(await readdir(folder, { recursive: true })).to.deep.equal(files);
    expect(await readFile(file("metrics.jsonl"))).to.deep.equal(metrics);
  });

  it("touches no folder that is for something else", async () => {
    for (const name of ["config.json", "model.safetensors", "report.html"]) {
      await rm(folder, { recursive: true });
      await mkdir(folder);
      await writeFile(file(name), '{"mine": 1}');
      for (const resume of [false, true])
        expect(await rejection(train({ resume }), "ERR_RUN_EXISTS"))
          .to.include(file(name))
          .and.include("not a run's");
      expect(await readFile(file(name), "utf8")).to.equal('{"mine": 1}');
      expect(await readdir(folder)).to.deep.equal([name]);
    }
    // Other files are in nobody's way, and neither is a run that ended before its first checkpoint.
    await rm(folder, { recursive: true });
    await mkdir(folder);
    await writeFile(file("notes.txt"), "mine");
    await train({}, 1);
    await rm(file("checkpoints"), { recursive: true });
    await train({}, 1);
    expect(await readFile(file("notes.txt"), "utf8")).to.equal("mine");
  });

  it("loads as a model only where no byte is damaged", async () => {
    await train({ steps: 2 });
    const checkpoint = file("checkpoints", "step-00000002.safetensors");
    (await loadNetwork(checkpoint, { device: DEVICE })).dispose();
    const bytes = await readFile(checkpoint);
    bytes[bytes.length - 5]! ^= 1;
    await writeFile(checkpoint, bytes);
    expect(await rejection(loadNetwork(checkpoint, { device: DEVICE }), "ERR_INVALID_FILE")).to.include("damaged");
  });

  it("lets change what does not change the bits", async () => {
    const whole = await uninterrupted();
    await train({}, 4);
    await train({ resume: true, threads: 2, activations: "stored", validateEvery: 2 }, 7);
    const { result } = await train({ resume: true, checkpointEvery: 1, keepCheckpoints: 1 });
    expect(result!.summary.weightsSha256).to.equal(whole.summary.weightsSha256);
  });

  it("refuses to go on with other options, and names them", async () => {
    await train({}, 4);
    const changed: [Partial<TrainOptions>, RegExp][] = [
      [{ batchSize: 8 }, /batchSize: was 16, now 8/],
      [{ seed: 1 }, /seed: was 0, now 1/],
      [{ steps: 20 }, /steps: was 11, now 20/],
      [{ model: { ...TINY_REVNET, units: [3, 2] } }, /model\.units: was \[2,2\], now \[3,2\]/],
      [{ data: tinyDataset(80) }, /trainCount: was 64, now 80/],
      [{ data: { ...tinyDataset(), train: { ...tinyDataset().train, labels: new Int32Array(64) } } }, /images: was "[0-9a-f]{64}"/],
      [{ optimizer: { learningRate: 0.1 } }, /optimizer\.learningRate: was 0.05, now 0.1/],
      [{ schedule: "constant" }, /schedule\.type: was "cosine", now "constant"/],
      [{ augment: false }, /augment\.padding: was 1, now 0; augment\.flip: was true, now false/],
      [{ streams: "float32" }, /streams: was "fixed", now "float32"/],
      [{ patience: 2 }, /patience: was not given, now 2/],
      ...(DEVICE === "cpu"
        ? ([[{ device: "reference" }, /device: was "cpu", now "reference"/]] as [Partial<TrainOptions>, RegExp][])
        : []),
    ];
    for (const [overrides, message] of changed)
      expect(await rejection(train({ ...overrides, resume: true }), "ERR_RESUME_MISMATCH"))
        .to.match(message)
        .and.include(folder);
    expect(resumedFrom((await train({ resume: true })).events)).to.be.at.least(4);
  });

  it("refuses stored instead of reversible activations where streams drift", async () => {
    await train({ streams: "float32" }, 4);
    const message = await rejection(train({ streams: "float32", activations: "stored", resume: true }), "ERR_RESUME_MISMATCH");
    expect(message).to.include('activations: was "reversible", now "stored"');
  });

  it("uses the previous checkpoint where the last is damaged, and says so", async () => {
    const whole = await uninterrupted();
    await train({ checkpointEvery: 2 }, 9);
    const [last] = (await readdir(file("checkpoints")))
      .filter((name) => name.startsWith("step"))
      .sort()
      .reverse();
    const bytes = await readFile(file("checkpoints", last!));
    bytes[bytes.length - 5]! ^= 1;
    await writeFile(file("checkpoints", last!), bytes);
    const { events, result } = await train({ resume: true });
    expect(resumedFrom(events)).to.equal(8);
    expect(warnings(events)).to.have.length(1);
    expect(warnings(events)[0]).to.include({ code: "ERR_INVALID_FILE" });
    expect(warnings(events)[0]!.message).to.include(last).and.include("damaged");
    expect(result!.summary.weightsSha256).to.equal(whole.summary.weightsSha256);
    expect(await readdir(file("checkpoints"))).to.include(`${last}.damaged`);
  });

  it("uses the best one, or begins again, where all others are damaged", async () => {
    const whole = await uninterrupted();
    await train({ checkpointEvery: 2 }, 9);
    for (const name of await readdir(file("checkpoints")))
      if (name.startsWith("step")) await writeFile(file("checkpoints", name), "x");
    const fromBest = await train({ resume: true }, 10);
    expect(resumedFrom(fromBest.events) % 3).to.equal(0);
    expect(resumedFrom(fromBest.events)).to.be.greaterThan(0);
    const names = (await readdir(file("checkpoints"))).filter((name) => name.endsWith(".safetensors"));
    for (const name of names) await writeFile(file("checkpoints", name), "");
    const { events, result } = await train({ resume: true });
    expect(resumedFrom(events)).to.equal(0);
    expect(names).to.include("best.safetensors");
    expect(warnings(events)).to.have.length(names.length);
    expect(result!.summary.weightsSha256).to.equal(whole.summary.weightsSha256);
  });

  it("does not take another version's checkpoint for a damaged one", async () => {
    await train({}, 4);
    const { tensors, metadata } = await readSafetensors(step(4));
    await writeSafetensors(step(4), tensors, { ...Object.fromEntries(metadata), version: "2" }, { digest: true });
    expect(await rejection(train({ resume: true }), "ERR_RESUME_MISMATCH")).to.include("version");
    expect(await readdir(file("checkpoints"))).to.include("step-00000004.safetensors");
  });

  it("cuts metrics.jsonl back to the checkpoint, and does without it", async () => {
    const whole = await uninterrupted();
    await train({}, 6);
    const kept = await readFile(file("metrics.jsonl"), "utf8");
    // As kill -9 leaves it: steps after the checkpoint, the last of them torn.
    await writeFile(
      file("metrics.jsonl"),
      `${kept}{"type":"step","step":7,"epoch":2,"loss":9,"error":1,"learningRate":0,"milliseconds":1}\n{"ty`,
    );
    await train({ resume: true }, 8);
    const lines = (await readFile(file("metrics.jsonl"), "utf8")).trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line)).filter(({ step, type }) => step === 7 && type === "step")).to.have.length(1);
    expect(lines.join("\n").startsWith(kept)).to.equal(true);
    await rm(file("metrics.jsonl"));
    const { events, result } = await train({ resume: true });
    expect(warnings(events)[0]!.message).to.match(/metrics\.jsonl has only 0 of the [89] steps/);
    expect(result!.summary).to.include({ weightsSha256: whole.summary.weightsSha256, steps: STEPS });
    expect(result!.summary.testError).to.equal(whole.summary.testError);
  });

  it("names the last good checkpoint where the loss is not finite", async () => {
    // The weights are multiplied by -1e3 in each step.
    const optimizer = { learningRate: 10, weightDecay: 100 };
    const overrides = { streams: "float32", optimizer, schedule: "constant", steps: 100, validateEvery: 1000 } as const;
    const bare = await rejection(train({ ...overrides, outDir: undefined }), "ERR_NOT_FINITE");
    const failing = Number(/step (\d+)/.exec(bare)![1]);
    expect(failing).to.be.greaterThan(2);
    const message = await rejection(train({ ...overrides, checkpointEvery: 1 }), "ERR_NOT_FINITE");
    expect(message)
      .to.match(/step \d+/)
      .and.match(/last good checkpoint is '.*step-0000000\d\.safetensors'/);
    const good = /good checkpoint is '(.*)'/.exec(message)![1]!;
    const network = await loadNetwork(good, { device: DEVICE });
    for (const { data } of network.parameters.values()) expect(data.every(Number.isFinite)).to.equal(true);
    network.dispose();
  });

  it("writes no checkpoint of parameters that are not finite", async () => {
    const network = createNetwork(TINY_REVNET, { device: DEVICE });
    await network.prepareTraining({ batchSize: 16 });
    const name = "stages.0.1.f.bn1.bias";
    const progress = { step: 3, outOfRange: 0, best: null, sinceBest: 0, validated: 0, metricsBytes: 0 };
    await writeCheckpoint(file("good"), await takeSnapshot(network, {}, progress));
    // What a snapshot holds is this copy; setParameters would refuse the value.
    network.parameters.get(name)!.data[1] = Number.NaN;
    const message = await rejection(takeSnapshot(network, {}, progress), "ERR_NOT_FINITE");
    network.dispose();
    expect(message).to.include("step 3").and.include(name);
    expect(await readdir(folder)).to.deep.equal(["good"]);
  });

  it("goes on in memory where checkpoints cannot be written, and tries again", async () => {
    const whole = await uninterrupted();
    await writeFile(file("checkpoints"), "a file where the folder should be");
    const { events, result } = await train({ checkpointEvery: 2 });
    expect(result!.summary.weightsSha256).to.equal(whole.summary.weightsSha256);
    expect(result!.fileError).to.include({ code: "ERR_FILE" });
    const failed = warnings(events).map((event) => event.step);
    expect(failed).to.include.members([2, 4, 6, 8, 10, 11]);
    expect(warnings(events)[0]!.message).to.include("checkpoints");

    const repaired = await train({ checkpointEvery: 2, resume: true }, Infinity, async (event) => {
      if (event.type === "step" && event.step === 7) await rm(file("checkpoints"));
    });
    expect(repaired.result!.fileError).to.equal(undefined);
    expect(repaired.result!.summary.weightsSha256).to.equal(whole.summary.weightsSha256);
    expect(await readdir(file("checkpoints"))).to.include.members(["step-00000010.safetensors", "step-00000011.safetensors"]);
  });

  it("ends early without a better validation, and restores the best weights, resumed or not", async () => {
    // Images without a pattern: validation soon gets no better.
    const data = tinyDataset();
    const labels = data.test.labels.map((label, i) => (label + i) % 4);
    const overrides = { data: { ...data, test: { ...data.test, labels } }, steps: 200, validateEvery: 1, patience: 3 };
    const { result, events } = await train(overrides);
    const { history, summary } = result!;
    const [best] = [...history.validations].sort((a, b) => a.error - b.error || a.loss - b.loss || a.step - b.step);
    expect(summary.steps)
      .to.equal(best!.step + 3)
      .and.be.lessThan(200);
    expect(summary.testError).to.equal(best!.error);
    expect(events.filter((event) => event.type === "step")).to.have.length(summary.steps);
    const network = await loadNetwork(file("model.safetensors"), { device: DEVICE });
    expect((await network.evaluate(overrides.data, { batchSize: 16 })).loss).to.equal(best!.loss);
    expect(network.weightsSha256()).to.equal(summary.weightsSha256);
    network.dispose();
    for (const stop of [best!.step, summary.steps - 1]) {
      folder = path.join(folder, "deeper");
      await train(overrides, stop);
      expect(timeless((await train({ ...overrides, resume: true })).result!.summary)).to.deep.equal(timeless(summary));
      expect(timeless((await train({ ...overrides, resume: true })).result!.summary)).to.deep.equal(timeless(summary));
    }
    folder = folder.replace(/(\/deeper)+$/, "");
  });

  it("needs outDir", async () => {
    for (const overrides of [{ resume: true }, { checkpointEvery: 5 }, { keepCheckpoints: 5 }])
      expect(await rejection(train({ outDir: undefined, ...overrides }), "ERR_INVALID_ARGUMENT")).to.include("outDir");
  });

  describe("lock", () => {
    it("lets one run at a time into a folder", async () => {
      let message = "";
      await train({ steps: 3 }, Infinity, async (event) => {
        if (event.type === "step" && event.step === 1) message = await rejection(train({ resume: true }), "ERR_RUN_LOCKED");
      });
      expect(message).to.include(folder).and.include(String(process.pid));
      expect(await readdir(folder)).to.not.include("run.lock");
    });

    it("lets exactly one of several in that begin together", async () => {
      await writeFile(file("run.lock"), "");
      const runs = await Promise.allSettled(Array.from({ length: 5 }, () => train({ steps: 3 })));
      const failed = runs.flatMap((run) => (run.status === "rejected" ? [run.reason.code] : []));
      expect(failed).to.have.length(4);
      for (const code of failed) expect(code).to.be.oneOf(["ERR_RUN_LOCKED", "ERR_RUN_EXISTS"]);
    });

    it("ends a run that has lost it, before its next checkpoint", async () => {
      const theirs = JSON.stringify({ pid: 7, host: "elsewhere", since: "2020-01-01" });
      const ended = train({ steps: 6, checkpointEvery: 2 }, Infinity, async (event) => {
        if (event.type !== "checkpoint" || event.step !== 2) return;
        // At once: the run may look while a file is written.
        await writeFile(file("theirs"), theirs);
        await rename(file("theirs"), file("run.lock"));
      });
      expect(await rejection(ended, "ERR_RUN_LOCKED")).to.include("process 7 on elsewhere");
      expect(await readFile(file("run.lock"), "utf8")).to.equal(theirs);
      expect(await readdir(file("checkpoints"))).to.not.include("step-00000004.safetensors");
      expect(await readdir(folder)).to.not.include("model.safetensors");
    });
  });
});

describe("damaged checkpoints", function () {
  this.timeout(600_000);
  let folder: string;
  let whole: Buffer;
  let damaged: string;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-damaged-"));
    damaged = path.join(folder, "damaged.safetensors");
    const { network } = await trainRevNet({
      model: { ...TINY_REVNET, filters: [4, 4, 4], units: [1, 2] },
      data: tinyDataset(),
      device: DEVICE,
      batchSize: 16,
      steps: 2,
      outDir: folder,
    });
    network.dispose();
    await copyFile(path.join(folder, "checkpoints", "step-00000002.safetensors"), damaged);
    whole = await readFile(damaged);
  });
  after(() => rm(folder, { recursive: true }));

  const read = () => readCheckpoint(damaged);
  async function refused(bytes: Buffer, what: string): Promise<void> {
    await writeFile(damaged, bytes);
    const message = await rejection(read(), "ERR_INVALID_FILE").catch((error) => {
      throw new Error(`${what}: ${error.message}`);
    });
    expect(message).to.include("damaged.safetensors");
  }

  it("are told from whole ones", async () => {
    expect((await read()).progress.step).to.equal(2);
  });

  it("are refused, truncated at 50 places", async () => {
    for (let i = 0; i < 50; ++i) {
      const length = Math.floor((whole.length * i) / 50);
      await refused(whole.subarray(0, length), `${length} bytes`);
    }
    await refused(whole.subarray(0, -1), "one byte short");
    await refused(Buffer.concat([whole, Buffer.alloc(1)]), "one byte more");
  });

  it("are refused with a byte flipped in any region", async () => {
    const header = 8 + Number(whole.readBigUInt64LE());
    const positions = [...Array(8).keys(), ...Array.from({ length: 80 }, (_, i) => 8 + Math.floor(((header - 8) * i) / 80))];
    // The last bytes of the header are its padding, where there is any.
    positions.push(header - 1, ...Array.from({ length: 60 }, (_, i) => header + Math.floor(((whole.length - header) * i) / 60)));
    for (const position of positions)
      for (const bit of [1, 32]) {
        const bytes = Buffer.from(whole);
        bytes[position]! ^= bit;
        await refused(bytes, `byte ${position} xor ${bit}`);
      }
  });

  it("are refused with an oversized header, before anything is allocated for it", async () => {
    for (const length of [2n ** 64n - 1n, 2n ** 40n, 99_999_999n, BigInt(whole.length), BigInt(whole.length - 7)]) {
      const bytes = Buffer.from(whole);
      bytes.writeBigUInt64LE(length);
      const before = process.memoryUsage().arrayBuffers;
      await refused(bytes, `header of ${length}`);
      expect(process.memoryUsage().arrayBuffers - before).to.be.lessThan(10e6);
    }
  });

  it("are refused with whatever damage", async () => {
    const bytes = fc.uint8Array({ minLength: 0, maxLength: 64 });
    const at = fc.oneof(fc.nat(whole.length), fc.nat(8 + Number(whole.readBigUInt64LE())), fc.nat(16));
    const damage = fc.record({ at, removed: fc.oneof(fc.constant(0), fc.nat(64), fc.nat(whole.length)), inserted: bytes });
    await fc.assert(
      fc.asyncProperty(fc.array(damage, { minLength: 1, maxLength: 3 }), async (damages) => {
        let content = whole;
        for (const { at, removed, inserted } of damages)
          content = Buffer.concat([content.subarray(0, at), inserted, content.subarray(at + removed)]);
        fc.pre(!content.equals(whole));
        await refused(content, JSON.stringify(damages));
      }),
      { seed: 5, numRuns: Number(process.env.REVNET_FUZZ_RUNS ?? 500) },
    );
  });
});

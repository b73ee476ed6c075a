/** Verification during training: what it says, what it takes, and that it changes nothing. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { memoryPlan, type TrainingEvent, type TrainOptions, trainRevNet, type VerificationEvent } from "../../lib/index.js";
import { cosine } from "../../lib/network/verification.js";
import { rejection } from "../support/errors.js";
import { DEVICES, TINY_RESNET, TINY_REVNET, tinyDataset, tinyOptions, trainTiny } from "../support/tiny.js";

const options = (overrides: Partial<TrainOptions> = {}): TrainOptions =>
  tinyOptions({ threads: 1, steps: 7, augment: { padding: 1, flip: true }, ...overrides });
const train = (overrides: Partial<TrainOptions> = {}) => trainTiny(options(overrides));

for (const device of DEVICES)
  describe(`verification on ${device}`, function () {
    this.timeout(120_000);

    for (const streams of ["fixed", "float32"] as const)
      for (const activations of ["reversible", "stored"] as const)
        it(`does not change a bit of the run: ${streams} streams, ${activations} activations`, async () => {
          const without = await train({ device, streams, activations });
          const verified = await train({ device, streams, activations, verifyEvery: 2 });
          expect(verified.summary.weightsSha256).to.equal(without.summary.weightsSha256);
          expect(verified.history.steps.map(({ loss }) => loss)).to.deep.equal(without.history.steps.map(({ loss }) => loss));
          expect(verified.history.validations.map(({ loss }) => loss)).to.deep.equal(
            without.history.validations.map(({ loss }) => loss),
          );
        });

    it("finds fixed-point streams exact, and float32 ones not", async () => {
      const { verifications } = (await train({ device, verifyEvery: 3 })).history;
      expect(verifications.map(({ step }) => step)).to.deep.equal([3, 6]);
      for (const { blocks, maxError, cosine, milliseconds } of verifications) {
        expect(blocks).to.deep.equal([
          { stage: 0, block: 1, error: 0 },
          { stage: 1, block: 1, error: 0 },
        ]);
        expect([maxError, cosine]).to.deep.equal([0, 1]);
        expect(milliseconds).to.be.greaterThan(0);
      }
      const drifting = (await train({ device, streams: "float32", verifyEvery: 3 })).history.verifications;
      for (const { blocks, maxError, cosine } of drifting) {
        expect(maxError).to.equal(Math.max(...blocks.map(({ error }) => error)));
        expect(maxError).to.be.within(1e-18, 1e-3);
        // The gradients differ, by no more than rounding.
        expect(cosine).to.be.within(1 - 1e-6, 1);
        if (device === "cpu") expect(cosine).to.be.lessThan(1);
      }
    });

    it("takes the memory that is planned for it", async () => {
      for (const activations of ["reversible", "stored"] as const) {
        const common = { batchSize: 16, activations, device, threads: 1, images: 64 } as const;
        const { summary } = await train({ device, activations, verifyEvery: 2 });
        expect(summary.memory).to.deep.equal(memoryPlan(TINY_REVNET, { ...common, verify: true }));
        expect(memoryPlan(TINY_REVNET, { ...common, verify: true }).activations).to.be.at.least(
          memoryPlan(TINY_REVNET, common).activations,
        );
      }
    });
  });

describe("verification", function () {
  this.timeout(120_000);
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-verification-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("is an event, a line of metrics.jsonl and a part of the report, also after a resume", async () => {
    const seen: VerificationEvent[] = [];
    const controller = new AbortController();
    const overrides = { outDir: folder, verifyEvery: 2, checkpointEvery: 1 };
    const collect = async (more: Partial<TrainOptions>, onEvent: (event: TrainingEvent) => void = () => {}) => {
      const run = trainRevNet(options({ ...overrides, ...more }));
      for await (const event of run) {
        if (event.type === "verification") seen.push(event);
        onEvent(event);
      }
      (await run).network.dispose();
      return (await run).history.verifications;
    };
    const stopped = collect({ signal: controller.signal }, (event) => event.type === "verification" && controller.abort());
    await rejection(stopped, "ERR_ABORTED");
    const all = await collect({ resume: true });
    expect(all.map(({ step }) => step)).to.deep.equal([2, 4, 6]);
    expect(seen).to.deep.equal(all);
    const lines = (await readFile(path.join(folder, "metrics.jsonl"), "utf8")).trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line)).filter(({ type }) => type === "verification")).to.deep.equal(all);
    const report = await readFile(path.join(folder, "report.html"), "utf8");
    expect(report).to.include('id="chart-verification-error"').and.include('id="chart-verification-gradients"');
    expect(report).to.include("Verified 3 times: every block came back bit for bit");
  });

  it("has the cosine of any gradients", async () => {
    const of = (a: number[], b: number[]) => cosine(Float32Array.from(a), Float32Array.from(b));
    expect(await of([1, 0], [1, 1])).to.be.closeTo(Math.SQRT1_2, 1e-15);
    expect(await of([3, 4, 0], [-3, -4, 0])).to.equal(-1);
    expect(await of([3, 0], [0, 5])).to.equal(0);
    expect(await of([0, 0], [0, 0])).to.equal(1);
    expect(await of([0, 0], [0, 1])).to.be.NaN;
    // In more pieces than one.
    const long = new Float32Array(600_000);
    const other = long.slice();
    [long[0], long[599_999], other[599_999]] = [1, 1, 1];
    expect(await cosine(long, other)).to.be.closeTo(Math.SQRT1_2, 1e-15);
  });

  it("is refused for a network that has nothing to invert, before anything is trained", async () => {
    expect(await rejection(trainRevNet(options({ model: TINY_RESNET, verifyEvery: 1 })), "ERR_NOT_REVERSIBLE")).to.include(
      "no reversible block",
    );
    expect(await rejection(trainRevNet(options({ verifyEvery: 0 })), "ERR_INVALID_ARGUMENT")).to.include("verifyEvery");
    expect(() => memoryPlan(TINY_RESNET, { batchSize: 2, verify: true })).to.throw(/no reversible block/);
  });
});

describe("a run that does not fit", () => {
  it("is refused before its activations are allocated, in GiB", async () => {
    // A quarter of a TiB, of a data set of 64 MiB.
    const count = 65_536;
    const input = [32, 32, 1] as const;
    const model = { ...TINY_REVNET, input, filters: [128, 128, 128], units: [2, 2] };
    const train = { count, images: new Uint8Array(count * 1024), labels: new Int32Array(count) };
    const test = { count: 4, images: new Uint8Array(4 * 1024), labels: new Int32Array(4) };
    const data = { ...tinyDataset(), shape: input, train, test };
    const message = await rejection(
      trainRevNet(options({ model, data, device: DEVICES.includes("cpu") ? "cpu" : "reference", batchSize: count })),
      "ERR_OUT_OF_MEMORY",
    );
    expect(message).to.match(/batchSize 65536 takes [\d.]+ (GiB|TiB) of memory, .* and [\d.]+ [GM]iB are available/);
  });
});

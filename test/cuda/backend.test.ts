/** The CUDA backend seen from outside: errors that say what to do, sessions that end. Runs where there is a CUDA device. */
import { spawnSync } from "node:child_process";
import path from "node:path";
import { expect } from "chai";
import type { RevNetError } from "../../lib/errors.js";
import { native } from "../../lib/native/index.js";
import { createNetwork } from "../../lib/network/network.js";
import { copySession } from "../binding/programs.js";
import { thrown } from "../support/errors.js";
import { TINY_REVNET } from "../support/tiny.js";

const MAIN = path.join(__dirname, "../../lib/cli/main.js");
const cuda = native.devices().filter(({ name, available }) => available && name.startsWith("cuda"));
const emulated = cuda[0]?.description.startsWith("Emulated") ?? false;

describe("the CUDA backend", () => {
  before(function () {
    if (cuda.length === 0) this.skip(); // no device here; emulated.test.ts runs it on the emulated one
  });

  const options = { device: "cuda:0", threads: 1 };

  it("is described with its precision", () => {
    for (const precision of ["float32", "tf32", "bfloat16"] as const) {
      const session = new native.Session({ ...options, precision });
      expect(session.description).to.equal(`${cuda[0]!.description}, ${precision}`);
      session.dispose();
    }
  });

  it("refuses a device that is not there", () => {
    const error = thrown(() => createNetwork(TINY_REVNET, { device: `cuda:${cuda.length}` }));
    expect(error.code).to.equal("ERR_DEVICE_UNAVAILABLE");
    expect(error.message).to.include(`there is no device cuda:${cuda.length}`);
  });

  it("runs several sessions at once, each ending by itself", async () => {
    const sessions = Array.from({ length: 4 }, () => copySession(native, 1000, options));
    const values = sessions.map((_, i) => Float32Array.from({ length: 1000 }, (_, j) => 1000 * i + j));
    for (let round = 0; round < 3; ++round) {
      const results = sessions.map(({ session, program, x, y }, i) => session.run(program, [[x, values[i]!]], [y]));
      expect((await Promise.all(results)).map(([result]) => result)).to.deep.equal(values.slice(0, sessions.length));
    }
    for (const { session } of sessions) {
      session.dispose();
      session.dispose();
    }
  });

  it("rejects what a disposed session was to do", async () => {
    const { session, program, y } = copySession(native, 1000, options);
    const runs = [1, 2, 3].map(() =>
      session.run(program, [], [y]).then(
        () => "ran",
        (error: RevNetError) => error.code,
      ),
    );
    session.dispose();
    const outcomes = await Promise.all(runs);
    expect(outcomes.at(-1)).to.equal("ERR_DISPOSED");
    for (const outcome of outcomes) expect(outcome).to.be.oneOf(["ran", "ERR_DISPOSED"]);
  });

  it("says what does not fit, and goes on", async () => {
    const { session, program, x, y } = copySession(native, 16, options);
    const error = thrown(() => session.addBuffer({ name: "large", type: "real", elements: 2 ** 40, category: "data" }));
    expect(error.code).to.equal("ERR_OUT_OF_MEMORY");
    expect(error.message).to.match(/4096\.00 GiB were asked for, and [\d.]+ GiB of [\d.]+ GiB are free/);
    const values = Float32Array.from({ length: 16 }, (_, i) => i);
    expect(await session.run(program, [[x, values]], [y])).to.deep.equal([values]);
    session.dispose();
  });

  it("says which batch fits where training does not", function () {
    if (!emulated) return this.skip(); // with less memory than any GPU has
    this.timeout(120_000);
    const train = (batchSize: number) =>
      spawnSync(
        process.execPath,
        [
          MAIN,
          "train",
          "--model",
          "revnet-38",
          "--data",
          "shapes",
          "--train-count",
          "600",
          "--test-count",
          "10",
          "--steps",
          "1",
          "--device",
          "cuda",
          "--batch-size",
          String(batchSize),
        ],
        { encoding: "utf8", env: { ...process.env, REVNET_EMULATION_MEMORY: String(64 << 20) } },
      );
    const { status, stderr } = train(500);
    expect(status).to.equal(1);
    const [, asked, fitting] =
      /training revnet-38 with --batch-size (\d+) takes [\d.]+ MiB of memory.*; a batch of (\d+) would fit/.exec(stderr) ?? [];
    expect(asked, stderr).to.equal("500");
    expect(Number(fitting)).to.be.within(2, 400);
  });
});

describe("a machine without a CUDA device", () => {
  before(function () {
    if (cuda.length > 0) this.skip(); // there is one
  });

  const { description } = native.devices().find(({ name }) => name.startsWith("cuda"))!;

  it("says why", () => {
    expect(description).to.match(native.buildInfo().cuda === null ? /^built without CUDA: / : /driver|has no code|is the oldest/);
    const error = thrown(() => createNetwork(TINY_REVNET, { device: "cuda" }));
    expect([error.code, error.message]).to.deep.equal(["ERR_DEVICE_UNAVAILABLE", description]);
  });

  it("trains on the CPU by default, and says so", () => {
    const network = createNetwork(TINY_REVNET);
    expect(network.device).to.equal("cpu");
    expect(network.deviceChoice).to.include(description);
    network.dispose();
  });
});

describe("precision", () => {
  it("is float32 alone on CPU and reference", () => {
    for (const device of ["cpu", "reference"])
      for (const precision of ["tf32", "bfloat16"] as const) {
        const error = thrown(() => createNetwork(TINY_REVNET, { device, precision }));
        expect(error.code).to.equal("ERR_INVALID_ARGUMENT");
        expect(error.message).to.match(/^precision: .*float32/);
      }
    createNetwork(TINY_REVNET, { device: "cpu", precision: "float32" }).dispose();
  });

  it("decides how gradients of streams may be stored", () => {
    for (const precision of [undefined, "float32", "tf32"] as const) {
      const device = precision === "tf32" ? "cuda" : "cpu";
      const error = thrown(() => createNetwork(TINY_REVNET, { device, precision, streamGradients: "bfloat16" }));
      expect(error.code).to.equal("ERR_INVALID_ARGUMENT");
      expect(error.message).to.match(/^streamGradients: 'bfloat16' goes with precision 'bfloat16', and the precision is '/);
    }
    createNetwork(TINY_REVNET, { device: "cpu", streamGradients: "float32" }).dispose();
    const unknown = thrown(() => createNetwork(TINY_REVNET, { device: "cpu", streamGradients: "float16" as "float32" }));
    expect(unknown.message).to.equal("streamGradients: unknown value 'float16'; did you mean 'bfloat16'?");
  });
});

/**
 * arm64 Linux without an arm64 machine: the addon is built by a cross compiler and runs, with npm's Node.js for arm64, under qemu.
 * What is compared with this machine is compared to the bit.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { build, type Finished, MAIN, mocha, type Platform, ROOT, run } from "./build.js";

const { emulatedNode } = require(path.join(ROOT, "scripts/arm64.js")) as { emulatedNode(): string[] | string };

const HERE: Platform = { node: [process.execPath] };

const MODEL = {
  name: "portable",
  kind: "revnet",
  stem: "cifar",
  input: [32, 32, 3],
  classes: 10,
  filters: [16, 20, 64],
  units: [2, 2],
  strides: [2, 2],
  bottleneck: false,
};

/** Suites on the emulated machine, the longest first. Which tests of them need no other process, `grep` says. */
const SUITES = [
  { name: "ops against the reference, at odd sizes", files: ["ops/backends"], grep: "the cpu backend" },
  { name: "exactness", files: ["network/exactness"], grep: "\\(cpu\\)" },
  { name: "golden networks", files: ["network/golden"], grep: "\\(cpu\\)" },
  {
    name: "updates, initial values, elementary functions, the shapes",
    files: ["ops/updates", "network/initialization", "network/elementary"],
    grep: "cpu|initial values have|elementary",
  },
  { name: "the common bits", files: ["verify/verify"], grep: "common bits" },
];

describe("arm64, emulated", function () {
  // With another addon the suites run on that one, and this is one of them.
  if (process.env.REVNET_ADDON || process.platform !== "linux" || process.arch !== "x64") return;
  this.timeout(1_200_000);
  this.slow(600_000);
  let machine: Platform;
  let folder: string;
  const file = (name: string) => path.join(folder, name);
  /** One after the other, beside the tests below. */
  let suites: Promise<Finished>[];

  before(async function () {
    const node = emulatedNode();
    if (typeof node === "string") {
      console.log(`    skipped: ${node}`);
      return this.skip();
    }
    machine = { node, addon: path.join(ROOT, "build-arm64", "Release", "revnet.node") };
    expect(build("arm64")).to.equal("");
    folder = await mkdtemp(path.join(tmpdir(), "revnet-arm64-"));
    await writeFile(file("model.json"), JSON.stringify(MODEL));
    let last: Promise<unknown> = Promise.resolve();
    suites = SUITES.map(({ files, grep }) => {
      const finished = last.then(() => mocha(machine, files, grep));
      last = finished.catch(() => {});
      return finished;
    });
  });
  after(async () => {
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  /** By a process on one of the machines; what it prints. */
  async function succeed(platform: Platform, args: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<string> {
    const { status, stdout, stderr } = await run(platform, args, environment);
    expect(status, `${args.join(" ")}\n${stdout}\n${stderr}`).to.equal(0);
    return stdout;
  }

  it("a run that goes from x86 to arm64 and back, and changes instruction sets, ends with the bits of one that was never stopped", async () => {
    const train = async (platform: Platform, out: string, last: number, isa = "auto") => {
      const child = path.join(__dirname, "stopped-child.js");
      const stdout = await succeed(platform, [child, file("model.json"), file(out), String(last)], { REVNET_ISA: isa });
      return JSON.parse(stdout) as { steps: number[]; weightsSha256: string | null };
    };
    const whole = await train(HERE, "whole", 8);
    expect(whole.steps).to.deep.equal([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(whole.weightsSha256).to.match(/^[0-9a-f]{64}$/);
    const parts = [await train(HERE, "parts", 2), await train(machine, "parts", 5), await train(HERE, "parts", 8, "avx2")];
    for (const { steps } of parts) expect(steps).not.to.deep.equal([]);
    expect(parts.flatMap(({ steps }) => steps)).to.deep.equal(whole.steps);
    expect(parts.at(-1)!.weightsSha256).to.equal(whole.weightsSha256);
  });

  it("the command line trains, evaluates and predicts with the results of x86, and says what the machine is", async () => {
    const data = ["--data", "shapes", "--train-count", "30", "--test-count", "10"];
    const summary = async (platform: Platform, out: string, ...more: string[]) => {
      const args = ["train", "--model", file("model.json"), ...data, "--batch-size", "6", "--steps", "3", "--seed", "9", "--json"];
      return JSON.parse(await succeed(platform, [MAIN, ...args, "--out", file(out), ...more]));
    };
    const [x86, arm] = [await summary(HERE, "x86", "--activations", "stored"), await summary(machine, "arm", "--threads", "1")];
    for (const key of ["weightsSha256", "trainLoss", "testLoss", "testError", "parameters"])
      expect(arm[key], key).to.equal(x86[key]);

    const model = file("arm/model.safetensors");
    for (const args of [
      ["evaluate", model, ...data, "--json"],
      ["predict", model, ...data, "--count", "5", "--json"],
      ["inspect", model, "--json"],
      ["memory", "revnet-38", "--threads", "1", "--json"],
    ]) {
      const [here, there] = await Promise.all([HERE, machine].map((platform) => succeed(platform, [MAIN, ...args])));
      expect(JSON.parse(there!), args[0]).to.deep.equal(JSON.parse(here!));
    }
    const doctor = JSON.parse(await succeed(machine, [MAIN, "doctor", "--json"]));
    expect(doctor).to.deep.include({ isa: "neon", commonBits: true, trainable: true });
    const refused = await run(machine, [MAIN, "train", "--model", "no-such-model", "--data", "shapes"]);
    expect(refused.status).to.be.oneOf([1, 2]);
    expect(refused.stderr).to.include("no-such-model");
  });

  for (const [i, { name }] of SUITES.entries())
    it(`passes: ${name}`, async () => {
      const { status, stdout, stderr } = await suites[i]!;
      expect(status, `${stdout}\n${stderr}`).to.equal(0);
      expect(stdout).to.match(/[1-9]\d* passing/);
    });
});

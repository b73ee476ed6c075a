/**
 * The suites on the CUDA backend where there is no GPU: builds the addon in which CUDA is emulated (test/emulation) and runs those
 * parts of the suites that name cuda with it, in processes of their own. REVNET_EMULATION_SEED repeats a schedule.
 */
import { spawn, spawnSync } from "node:child_process";
import os from "node:os";
import path from "node:path";
import { expect } from "chai";

const ROOT = path.join(__dirname, "../../..");
const TESTS = path.join(__dirname, "..");
const ADDON = path.join(ROOT, "build-emulated", "Release", "revnet.node");
const SEED = process.env.REVNET_EMULATION_SEED ?? String(Math.floor(Math.random() * 1e6));

/** Longest first, so that none is left over for the end. */
const SUITES = [
  { name: "ops, bfloat16", files: ["ops/backends"], grep: "the cuda backend bfloat16" },
  { name: "ops, tf32", files: ["ops/backends"], grep: "the cuda backend tf32" },
  {
    name: "networks: reversibility and memory",
    files: ["network/exactness", "network/training-step", "network/memory-plan"],
    grep: "cuda",
  },
  { name: "networks: golden files, gradients, interface", files: ["network/golden", "network/network"], grep: "cuda" },
  { name: "ops, float32", files: ["ops/backends"], grep: "the cuda backend float32" },
  { name: "updates", files: ["ops/updates"], grep: "cuda" },
  {
    name: "training",
    files: ["training/training", "training/optimizers", "training/precise", "cuda/precision", "cuda/storage"],
    grep: "cuda|storage in bfloat16",
  },
  { name: "the backend's own", files: ["cuda/backend"], grep: "the CUDA backend" },
];

interface Outcome {
  status: number | null;
  output: string;
}

function mocha(files: string[], grep: string): Promise<Outcome> {
  const program = path.join(path.dirname(require.resolve("mocha/package.json")), "bin", "mocha.js");
  const args = ["--no-config", "--timeout", "300000", "--grep", grep, ...files.map((file) => path.join(TESTS, `${file}.test.js`))];
  const child = spawn(process.execPath, [program, ...args], {
    cwd: ROOT,
    env: { ...process.env, REVNET_ADDON: ADDON, REVNET_EMULATION_SEED: SEED },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  return new Promise((resolve) => child.on("close", (status) => resolve({ status, output })));
}

describe("CUDA, emulated", function () {
  // With another addon the suites run on that one, and this is one of them.
  if (process.env.REVNET_ADDON || process.platform === "win32") return;
  this.timeout(1_200_000);
  this.slow(600_000);
  const outcomes = new Map<string, Promise<Outcome>>();

  before(() => {
    const { status, stderr } = spawnSync(process.execPath, [path.join(ROOT, "scripts", "build.js"), "emulated"], {
      encoding: "utf8",
    });
    expect(status, stderr).to.equal(0);
    console.log(`    REVNET_EMULATION_SEED=${SEED}`);
    // As many at once as there are processors; each result is waited for by its test.
    const waiting = SUITES.map((suite) => {
      let start = () => {};
      const started = new Promise<void>((resolve) => {
        start = resolve;
      });
      outcomes.set(
        suite.name,
        started.then(() => mocha(suite.files, suite.grep)),
      );
      return { ...suite, start };
    });
    const work = async (): Promise<void> => {
      for (let next = waiting.shift(); next; next = waiting.shift()) {
        next.start();
        await outcomes.get(next.name);
      }
    };
    for (let i = 0; i < os.availableParallelism(); ++i) void work();
  });

  for (const { name } of SUITES)
    it(`passes: ${name}`, async () => {
      const { status, output } = (await outcomes.get(name)) as Outcome;
      expect(status, `${output}\nREVNET_EMULATION_SEED=${SEED}`).to.equal(0);
      expect(output).to.match(/[1-9]\d* passing/);
      expect(output, "what is skipped on an emulated device").not.to.match(/\d+ pending/);
    });
});

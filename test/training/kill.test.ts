/** Runs that are killed or interrupted at random moments, as seen from outside: the command line in processes of its own. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";
import { expect } from "chai";
import { native } from "../../lib/native/index.js";
import { TINY_REVNET } from "../support/tiny.js";

const MAIN = path.join(__dirname, "../../lib/cli/main.js");
const STEPS = 400;
const KILLS = 20;

describe("a run that is stopped from outside", function () {
  this.timeout(300_000);
  let folder: string;
  let whole: { weightsSha256: string; metrics: unknown[] };
  const file = (...names: string[]) => path.join(folder, ...names);

  function start(out: string, ...more: string[]) {
    const args = ["train", "--model", file("tiny.json"), "--data", "shapes", "--train-count", "64", "--test-count", "20"];
    args.push("--batch-size", "8", "--steps", String(STEPS), "--validate-every", "50", "--checkpoint-every", "3");
    args.push("--threads", "1", "--device", "cpu", "--out", file(out), "--json", ...more);
    const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    const output = { stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output.stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (output.stderr += text));
    return { child, output, closed: once(child, "close") as Promise<[number | null, string | null]> };
  }

  /** To the end; from which step it went on. */
  async function finish(out: string, ...more: string[]) {
    const { output, closed } = start(out, ...more);
    const [status] = await closed;
    expect(status, output.stderr).to.equal(0);
    const metrics = (await readFile(file(out, "metrics.jsonl"), "utf8")).trimEnd().split("\n");
    return {
      weightsSha256: JSON.parse(output.stdout).weightsSha256 as string,
      metrics: metrics.map((line) => ({ ...JSON.parse(line), milliseconds: 0 })),
      resumedFrom: Number(/checkpoint of step (\d+)/.exec(output.stderr)?.[1] ?? 0),
    };
  }

  /** Until it says that training begins; false if it ended before. */
  const underWay = (child: ChildProcess) =>
    Promise.race([once(child.stderr!, "data").then(() => true), once(child, "exit").then(() => false)]);

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-kill-"));
    await writeFile(file("tiny.json"), JSON.stringify({ ...TINY_REVNET, input: [32, 32, 3], classes: 10, strides: [2, 2] }));
    whole = await finish("whole");
    expect(whole.metrics.length).to.be.greaterThan(STEPS);
  });
  after(() => rm(folder, { recursive: true }));

  const same = (run: typeof whole) => {
    expect(run.weightsSha256).to.equal(whole.weightsSha256);
    expect(run.metrics).to.deep.equal(whole.metrics);
  };

  it(`ends with the same bits after ${KILLS} times kill -9, at random moments`, async () => {
    const moments = native.philox(20n, 0, 0, "dataset", KILLS);
    for (let i = 0; i < KILLS; ++i) {
      const { child, output, closed } = start("killed", "--resume");
      // One in four while it starts, the others while it trains and writes checkpoints.
      if (i % 4 !== 0) expect(await underWay(child), output.stderr).to.equal(true);
      await setTimeout((moments[i]! / 2 ** 32) * (i % 4 === 0 ? 400 : 120));
      child.kill("SIGKILL");
      expect((await closed)[1], `kill ${i} came too late: ${output.stderr}`).to.equal("SIGKILL");
      // Of files. That values leave the range of fixed-point streams is this network's own, killed or not.
      const warnings = output.stderr.split("\n").filter((line) => line.includes("warning") && !line.includes("left the range"));
      expect(warnings).to.deep.equal([]);
    }
    const run = await finish("killed", "--resume");
    expect(run.resumedFrom).to.be.greaterThan(0);
    same(run);
  });

  it("ends with the same bits after Ctrl-C, from the very step that was reached", async () => {
    let reached = 0;
    const moments = native.philox(21n, 0, 0, "dataset", 4);
    for (const moment of moments) {
      const { child, output, closed } = start("interrupted", "--resume");
      expect(await underWay(child), output.stderr).to.equal(true);
      await setTimeout((moment / 2 ** 32) * 120);
      child.kill("SIGINT");
      expect((await closed)[0], output.stderr).to.equal(130);
      expect(Number(/checkpoint of step (\d+)/.exec(output.stderr)?.[1] ?? 0)).to.equal(reached);
      reached = JSON.parse(await readFile(file("interrupted", "summary.json"), "utf8")).steps;
    }
    expect(reached).to.be.greaterThan(0);
    const run = await finish("interrupted", "--resume");
    expect(run.resumedFrom).to.equal(reached);
    same(run);
  });

  for (const [signal, status] of [
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const)
    it(`ends with the same bits after ${signal}, which counts once where it comes twice`, async () => {
      const { child, output, closed } = start(signal, "--resume");
      expect(await underWay(child), output.stderr).to.equal(true);
      child.kill(signal);
      child.kill(signal);
      expect((await closed)[0], output.stderr).to.equal(status);
      expect(await readdir(file(signal)))
        .to.include("model.safetensors")
        .and.not.include("run.lock");
      same(await finish(signal, "--resume"));
    });

  if (process.platform === "linux")
    it("goes on where its output cannot be written", async () => {
      const full = await open("/dev/full", "w");
      const args = ["train", "--model", file("tiny.json"), "--data", "shapes", "--train-count", "64", "--test-count", "20"];
      args.push("--batch-size", "8", "--steps", String(STEPS), "--validate-every", "50", "--checkpoint-every", "3");
      args.push("--threads", "1", "--device", "cpu", "--out", file("mute"));
      const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", full.fd, full.fd] });
      expect((await once(child, "close"))[0]).to.equal(0);
      await full.close();
      const { weightsSha256 } = JSON.parse(await readFile(file("mute", "summary.json"), "utf8"));
      expect(weightsSha256).to.equal(whole.weightsSha256);
    });

  if (process.platform !== "win32")
    it("goes on in memory where the disk is full, says so, and can be resumed once there is room", async () => {
      const train = async (limit: string) => {
        const child = path.join(__dirname, "full-disk-child.js");
        const command = `ulimit -f ${limit}; exec "$0" "$@"`;
        const { stdout } = await promisify(execFile)("sh", ["-c", command, process.execPath, child, file("full")]);
        return JSON.parse(stdout);
      };
      const full = await train("8");
      expect(full.steps).to.equal(100);
      expect(full.fileError).to.include(file("full"));
      expect(full.warnings.join("\n"))
        .to.match(/ERR_FILE cannot write '.*metrics\.jsonl'.*EFBIG/)
        .and.match(/^100 ERR_FILE/m);
      expect((await readdir(file("full", "checkpoints"))).filter((name) => name.endsWith(".tmp"))).to.deep.equal([]);
      const roomy = await train("unlimited");
      expect(roomy).to.deep.equal({ warnings: [], weightsSha256: full.weightsSha256, steps: 100 });
      const lines = (await readFile(file("full", "metrics.jsonl"), "utf8")).trimEnd().split("\n");
      expect(lines.filter((line) => JSON.parse(line).type === "step")).to.have.length(100);
    });
});

/** scripts/gpu-check: parts that end, fail, lack something or hang, and what is left of each; with stand-ins for what they run. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect } from "chai";

const SCRIPTS = path.join(__dirname, "../../../scripts");

interface Context {
  record(result: object): void;
  program(name: string): string;
  command(what: string, line: string[]): Promise<{ status: number | null; stdout: string }>;
}
interface Part {
  name: string;
  limit: number;
  grace?: number;
  mayBeCut?: boolean;
  run(context: Context, options: object): Promise<boolean>;
}
const { Parts } = require(path.join(SCRIPTS, "gpu-check/run.js")) as {
  Parts: new (out: string, options: object, summarize: (results: object[]) => string) => { run(parts: Part[]): Promise<boolean> };
};
const { PARTS, DEFAULT_PARTS, kernelsOf } = require(path.join(SCRIPTS, "gpu-check/parts.js")) as {
  PARTS: Part[];
  DEFAULT_PARTS: string[];
  kernelsOf(report: string): object[];
};
const { summary } = require(path.join(SCRIPTS, "gpu-check/summary.js")) as { summary(results: object[]): string };

/** A zombie, which nobody has waited for, is not. */
function isAlive(pid: string): boolean {
  try {
    process.kill(Number(pid), 0);
  } catch {
    return false;
  }
  return !spawnSync("ps", ["-o", "stat=", "-p", pid], { encoding: "utf8" }).stdout?.trim().startsWith("Z");
}

describe("gpu-check", () => {
  let out: string;
  const log = console.log;
  beforeEach(() => {
    out = mkdtempSync(path.join(os.tmpdir(), "gpu-check-test-"));
    console.log = () => {};
  });
  afterEach(() => {
    console.log = log;
    rmSync(out, { recursive: true, force: true });
  });
  const read = (name: string): string => readFileSync(path.join(out, name), "utf8");
  const results = () =>
    read("results.jsonl")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
  const node = (code: string): string[] => [process.execPath, "-e", code];

  it("cuts a part that hangs, with what it started, names it, and goes on", async () => {
    const pids = path.join(out, "pids");
    // Neither of the two ends by an interrupt.
    const hanging = ["sh", "-c", `trap "" INT; sleep 1000 & echo "$$ $!" > '${pids}'; echo begun; wait`];
    const hangs: Part = {
      name: "hangs",
      limit: 1,
      grace: 0.1,
      run: async (part) => {
        await part.command("the first", hanging);
        await part.command("the second", node(""));
        return true;
      },
    };
    const works: Part = {
      name: "works",
      limit: 60,
      run: async (part) => (await part.command("quick", node("console.log(7)"))).stdout === "7\n",
    };
    expect(await new Parts(out, {}, summary).run([hangs, works]), "failed").to.equal(true);
    expect(results().map(({ part, status }) => `${part} ${status}`)).to.deep.equal(["hangs CUT", "works PASS"]);
    expect(results()[0].reason).to.equal("the limit of 1 s was reached in the first; 1 not begun, first the second");
    expect(read("log.txt")).to.include("begun").and.include("limit of 1 s");
    for (const pid of read("pids").trim().split(" ")) expect(isAlive(pid), pid).to.equal(false);
    expect(read("summary.md")).to.include("| hangs | CUT |").and.include("| works | PASS |");
  });

  it("writes each result as it comes, and fails, skips and passes parts", async () => {
    const seen: string[] = [];
    const parts: Part[] = [
      {
        name: "passes",
        limit: 9,
        run: async (part) => {
          part.record({ note: "early" });
          seen.push(read("results.jsonl"));
          return true;
        },
      },
      { name: "lacks", limit: 9, run: async (part) => part.program("no-such-program-at-all") !== "" },
      { name: "throws", limit: 9, run: () => Promise.reject(new Error("a mistake")) },
    ];
    expect(await new Parts(out, {}, summary).run(parts)).to.equal(true);
    expect(seen).to.deep.equal(['{"part":"passes","note":"early"}\n']);
    const ended = results().filter(({ status }) => status);
    expect(ended.map(({ status }) => status)).to.deep.equal(["PASS", "SKIPPED", "FAIL"]);
    expect(ended[1].reason).to.equal("there is no no-such-program-at-all here");
    expect(ended[2].reason).to.include("a mistake");
    expect(await new Parts(out, {}, summary).run(parts.slice(0, 2)), "a tool that is missing is no failure").to.equal(false);
  });

  it("keeps within 8 minutes by default and 15 in all", () => {
    const minutes = (parts: Part[]) => parts.reduce((sum, { limit }) => sum + limit, 0) / 60;
    expect(minutes(PARTS.filter(({ name }) => DEFAULT_PARTS.includes(name)))).to.be.at.most(8);
    expect(minutes(PARTS)).to.be.at.most(15);
  });

  it("runs NVIDIA's checkers on the ops where there are any, and takes their word", async () => {
    const checker = path.join(out, "compute-sanitizer");
    writeFileSync(
      checker,
      '#!/bin/sh\necho "$@" >> "$0.log"\necho "========= ERROR SUMMARY: 1 error"\n[ "$2" = memcheck ] || exit 3\n',
      { mode: 0o755 },
    );
    const before = process.env.PATH;
    process.env.PATH = `${out}:${before}`;
    try {
      expect(await new Parts(out, { device: "cuda" }, summary).run(PARTS.filter(({ name }) => name === "sanitizer"))).to.equal(
        true,
      );
    } finally {
      process.env.PATH = before;
    }
    expect(read("compute-sanitizer.log")).to.match(/--tool memcheck .*ops\.js cuda\n--tool racecheck .*ops\.js cuda\n$/);
    expect(read("summary.md")).to.include("| memcheck | clean |").and.include("| racecheck | NOT CLEAN |");
  });

  it("reads ncu's report", () => {
    const report = [
      "  void revnet::cuda::<unnamed>::convolveKernel<revnet::cuda::Bfloat16, 16>(Pass) (512, 1, 1)x(128, 1, 1), Context 1, Stream 13, Device 0, CC 9.0",
      "    DRAM Throughput                   %        38.10",
      "    Duration                         us     1,011.42",
      "          On average, each warp of this workload spends 6.1 cycles being stalled waiting for a barrier",
      "  sumPartialsKernel(Sums) (9, 2, 1)x(256, 1, 1), Context 1, Stream 13, Device 0, CC 9.0",
    ].join("\n");
    expect(kernelsOf(report)).to.deep.equal([
      {
        kernel: "convolveKernel",
        "DRAM Throughput": "38.10 %",
        Duration: "1,011.42 us",
        stall: "6.1 cycles waiting for a barrier",
      },
      { kernel: "sumPartialsKernel" },
    ]);
  });

  it("sets ours beside the peer's, as docs/performance.md does", () => {
    const timing = { model: "revnet-38", activations: "reversible" };
    const timings = [
      { name: "ours", ...timing, median: 1 },
      { name: "peer", ...timing, median: 8 },
    ];
    const text = summary([{ part: "times", batchSize: 100, precision: "tf32", peer: "eager, tf32", timings }]);
    expect(text).to.include("| revnet-38, batch 100, reversible | tf32 | 1.00 | 8.00 | eager, tf32 | 0.13 |");
  });

  it("refuses unknown parts and limits before it begins", () => {
    const script = path.join(SCRIPTS, "gpu-check.sh");
    for (const args of [["nonsense"], ["--limit", "verify=soon"], ["--limit", "nonsense=3"], ["--nonsense"]]) {
      const { status, stderr } = spawnSync(script, [path.join(out, "new"), ...args], { encoding: "utf8" });
      expect(status, args.join(" ")).to.equal(2);
      expect(stderr).to.match(/^gpu-check: .*(nonsense|soon)/);
    }
    expect(existsSync(path.join(out, "new"))).to.equal(false);
  });
});

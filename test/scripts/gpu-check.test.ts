/** scripts/gpu-check: parts that end, fail, lack something or hang, and what is left of each; with stand-ins for what they run. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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
  together?: boolean;
  run(context: Context, options: object): Promise<boolean>;
}
const { Parts, longest } = require(path.join(SCRIPTS, "gpu-check/run.js")) as {
  Parts: new (out: string, options: object, summarize: (results: object[]) => string) => { run(parts: Part[]): Promise<boolean> };
  longest(parts: Part[]): number;
};
const { PARTS, DEFAULT_PARTS } = require(path.join(SCRIPTS, "gpu-check/parts.js")) as { PARTS: Part[]; DEFAULT_PARTS: string[] };
const { timePeer } = require(path.join(SCRIPTS, "gpu-check/peers.js")) as {
  timePeer(part: Context, options: object, job: object): Promise<number | undefined>;
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

  it("runs neighbours that may be run together at the same time, and the next part after them", async () => {
    const seen: string[] = [];
    let meet = () => {};
    const met = new Promise<void>((resolve) => {
      meet = resolve;
    });
    const part = (name: string, run: () => unknown, rest: object): Part => ({
      name,
      limit: 9,
      run: async () => {
        await run();
        seen.push(name);
        return true;
      },
      ...rest,
    });
    // The first could not end if the second waited for it.
    const together = [part("waits", () => met, { together: true }), part("meets", () => meet(), { together: true })];
    expect(await new Parts(out, {}, summary).run([...together, part("last", () => {}, {})])).to.equal(false);
    expect(seen.at(-1)).to.equal("last");
    expect(longest([...together, part("last", () => {}, { limit: 3 })])).to.equal(9 + 3);
  });

  it("tells a command that a signal has ended from one that was stopped", async () => {
    const crashes: Part = {
      name: "crashes",
      limit: 9,
      run: async (part) => {
        const { status } = await part.command("a crash", ["sh", "-c", "kill -SEGV $$"]);
        part.record({ ended: status });
        return status === 0;
      },
    };
    expect(await new Parts(out, {}, summary).run([crashes])).to.equal(true);
    expect(results()).to.deep.include({ part: "crashes", ended: 128 + 11 });
    expect(results().at(-1).status).to.equal("FAIL");
  });

  it("starts peers ahead, lets them wait for their turn, and ends those that have none", async function () {
    if (spawnSync("python3", ["--version"]).status !== 0) return this.skip();
    // In place of PyTorch.
    mkdirSync(path.join(out, "torch"));
    writeFileSync(
      path.join(out, "torch", "__init__.py"),
      "class cuda:\n  is_available = lambda: False\nclass _dynamo:\n  reset = lambda: None\n",
    );
    const peer = path.join(out, "peer.py");
    writeFileSync(
      peer,
      [
        "import os, sys",
        `open('${path.join(out, "calls")}', 'a').write(f"{os.getpid()} {' '.join(sys.argv[1:])}\\n")`,
        'print("m: median 2.50 ms, min 2.00 ms")',
      ].join("\n"),
    );
    const calls = () => read("calls").trim().split("\n");
    const before = process.env.PYTHONPATH;
    process.env.PYTHONPATH = out;
    const options = { device: "cpu", python: "python3", peer, models: ["resnet-32"], batchSizes: [2] };
    const turn: Part = {
      name: "turn",
      limit: 20,
      run: async (part) => {
        expect(calls(), "only what compiles has run").to.have.length(1);
        const job = { model: "resnet-32", batchSize: 2, activations: "stored", precision: "bfloat16" };
        part.record({ median: await timePeer(part, options, job) });
        return true;
      },
    };
    try {
      expect(await new Parts(out, options, summary).run([...PARTS.filter(({ name }) => name === "peers"), turn])).to.equal(false);
    } finally {
      if (before === undefined) delete process.env.PYTHONPATH;
      else process.env.PYTHONPATH = before;
    }
    expect(results()).to.deep.include({ part: "peers", ready: 3, of: 3 }).and.to.deep.include({ part: "turn", median: 2.5 });
    const [warm, timed] = calls();
    expect(timed, "the same process, with the same arguments").to.equal(warm);
    expect(timed).to.match(/ time resnet-32 --batch 2 --steps 20 --threads \d+ --compile --bf16$/);
  });

  it("keeps within 8 minutes by default and 15 in all", () => {
    expect(longest(PARTS.filter(({ name }) => DEFAULT_PARTS.includes(name))) / 60).to.be.at.most(8);
    expect(longest(PARTS) / 60).to.be.at.most(15);
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
    const calls = read("compute-sanitizer.log").trim().split("\n");
    const precisions = ["bfloat16", "tf32", "float32"];
    for (const tool of ["memcheck", "racecheck"])
      for (const precision of precisions)
        expect(
          calls.filter((call) => call.startsWith(`--tool ${tool}`) && call.endsWith(`ops.js cuda ${precision}`)),
        ).to.have.length(1);
    expect(read("summary.md")).to.include("| memcheck | tf32 | clean |").and.include("| racecheck | tf32 | NOT CLEAN |");
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

/**
 * Runs the parts of gpu-check one after the other, and their commands one after the other: each within what is left of its part's
 * time. What a command prints goes to log.txt as it comes; each result becomes a line of results.jsonl, and summary.md is written
 * anew, as soon as it is there. A run that is cut off has told what it had seen until then.
 */
const { spawn, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

/** Seconds from the interrupt, which lets a training write its files, to the kill. */
const GRACE = 3;

/** A part cannot be done here: a program or a file is missing. */
class Missing extends Error {}

class Parts {
  #results = [];

  /** @param summarize from the results so far to the text of summary.md */
  constructor(out, options, summarize) {
    this.out = out;
    this.options = options;
    this.summarize = summarize;
    fs.mkdirSync(out, { recursive: true });
    for (const name of ["log.txt", "results.jsonl"]) fs.writeFileSync(path.join(out, name), "");
  }

  /** Whether any part failed. */
  async run(parts) {
    let failed = false;
    for (const part of parts) {
      const context = new PartContext(this, part);
      const start = performance.now();
      let outcome;
      try {
        const ok = await part.run(context, this.options);
        outcome =
          context.cut.length + context.notBegun.length > 0
            ? { status: "CUT", reason: cutReason(context) }
            : { status: ok === false ? "FAIL" : "PASS" };
      } catch (error) {
        outcome =
          error instanceof Missing ? { status: "SKIPPED", reason: error.message } : { status: "FAIL", reason: String(error.stack) };
      }
      const seconds = Number(((performance.now() - start) / 1000).toFixed(1));
      failed ||= outcome.status === "FAIL" || (outcome.status === "CUT" && part.mayBeCut !== true);
      this.record({ part: part.name, seconds, ...outcome });
      console.log(`${outcome.status.padEnd(7)} ${part.name} (${seconds} s)${outcome.reason ? `: ${outcome.reason}` : ""}`);
    }
    return failed;
  }

  record(result) {
    this.#results.push(result);
    fs.appendFileSync(path.join(this.out, "results.jsonl"), `${JSON.stringify(result)}\n`);
    fs.writeFileSync(path.join(this.out, "summary.md"), this.summarize(this.#results));
  }

  log(text) {
    fs.appendFileSync(path.join(this.out, "log.txt"), text);
  }
}

function cutReason({ part, cut, notBegun }) {
  const rest = notBegun.length > 0 ? `; ${notBegun.length} not begun, first ${notBegun[0]}` : "";
  return `the limit of ${part.limit} s was reached${cut.length > 0 ? ` in ${cut.join(", ")}` : ""}${rest}`;
}

class PartContext {
  /** What was under way when the time was over, and what came after it. */
  cut = [];
  notBegun = [];
  #deadline;

  constructor(parts, part) {
    this.parts = parts;
    this.part = part;
    this.#deadline = performance.now() + 1000 * part.limit;
  }

  get secondsLeft() {
    return (this.#deadline - performance.now()) / 1000;
  }

  record(result) {
    this.parts.record({ part: this.part.name, ...result });
  }

  /** The path of a program. @throws Missing */
  program(name) {
    const found = spawnSync("sh", ["-c", 'command -v "$1"', "sh", name], { encoding: "utf8" });
    if (found.status !== 0) throw new Missing(`there is no ${name} here`);
    return found.stdout.trim();
  }

  /** @throws Missing */
  require(value, what) {
    if (value === undefined) throw new Missing(what);
    if (typeof value === "string" && value.startsWith("/") && !fs.existsSync(value)) throw new Missing(`there is no ${value}`);
    return value;
  }

  /**
   * @param what names the command in messages
   * @returns its status (null where it was stopped), what it wrote to standard output, and the end of what it wrote to standard error
   */
  command(what, [program, ...args], { env = {}, onLine } = {}) {
    const left = this.#deadline - performance.now();
    if (left <= 0) {
      this.notBegun.push(what);
      return Promise.resolve({ status: null, stdout: "", stderr: "" });
    }
    this.parts.log(`\n== ${this.part.name}: ${what}\n$ ${[program, ...args].join(" ")}\n`);
    // A group of its own: what it starts ends with it.
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], detached: true, env: { ...process.env, ...env } });
    const signal = (name) => {
      try {
        process.kill(-child.pid, name);
      } catch {} // it has ended
    };
    let stopped = false;
    let kill;
    const timer = setTimeout(() => {
      stopped = true;
      this.cut.push(what);
      this.parts.log(`\n== stopped: the limit of ${this.part.limit} s is reached\n`);
      signal("SIGINT");
      kill = setTimeout(() => signal("SIGKILL"), 1000 * (this.part.grace ?? GRACE));
    }, left);
    let [stdout, stderr] = ["", ""];
    let pending = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      stdout += text;
      this.parts.log(text);
      const lines = (pending + text).split("\n");
      pending = lines.pop();
      for (const line of lines) onLine?.(line);
    });
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr = (stderr + text).slice(-4000);
      this.parts.log(text);
    });
    return new Promise((resolve) => {
      const end = (status) => {
        clearTimeout(timer);
        clearTimeout(kill);
        signal("SIGKILL");
        resolve({ status: stopped ? null : status, stdout, stderr });
      };
      child.on("error", (error) => {
        this.parts.log(`${error.message}\n`);
        end(127);
      });
      child.on("exit", (status) => setTimeout(() => end(status), stopped ? 0 : 20)); // what it wrote last arrives
    });
  }
}

module.exports = { Missing, Parts };

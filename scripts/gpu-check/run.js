/**
 * Runs the parts of gpu-check: one after the other, but neighbours that may be run together at the same time. The commands of a part
 * have what is left of its time. What a command prints goes to log.txt as it comes; each result becomes a line of results.jsonl, and
 * summary.md is written anew, as soon as it is there. A run that is cut off has told what it had seen until then.
 */
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { Child } = require("./child.js");

/** Seconds from the interrupt, which lets a training write its files, to the kill. */
const GRACE = 3;
/** Of the commands that a limit has cut, so many are named. */
const NAMED = 3;

/** A part cannot be done here: a program or a file is missing. */
class Missing extends Error {}

/** Neighbours that run together, and each of the others by itself. */
function groups(parts) {
  const result = [];
  for (const part of parts) {
    if (part.together && result.at(-1)?.[0].together) result.at(-1).push(part);
    else result.push([part]);
  }
  return result;
}

/** The seconds that parts take at most. */
const longest = (parts) => groups(parts).reduce((sum, group) => sum + Math.max(...group.map(({ limit }) => limit)), 0);

class Parts {
  /** What one part leaves for a later one, by name. */
  left = new Map();
  #results = [];
  #atEnd = [];

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
    try {
      for (const group of groups(parts)) {
        const outcomes = await Promise.all(group.map((part) => this.#runPart(part)));
        failed ||= outcomes.includes(false);
      }
    } finally {
      for (const end of this.#atEnd) end();
    }
    return failed;
  }

  /** @returns false where it failed */
  async #runPart(part) {
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
    this.record({ part: part.name, seconds, ...outcome });
    console.log(`${outcome.status.padEnd(7)} ${part.name} (${seconds} s)${outcome.reason ? `: ${outcome.reason}` : ""}`);
    return outcome.status !== "FAIL" && (outcome.status !== "CUT" || part.mayBeCut === true);
  }

  record(result) {
    this.#results.push(result);
    fs.appendFileSync(path.join(this.out, "results.jsonl"), `${JSON.stringify(result)}\n`);
    fs.writeFileSync(path.join(this.out, "summary.md"), this.summarize(this.#results));
  }

  log(text) {
    fs.appendFileSync(path.join(this.out, "log.txt"), text);
  }

  /** When all parts have ended, however they have. */
  atEnd(action) {
    this.#atEnd.push(action);
  }
}

function cutReason({ part, cut, notBegun }) {
  const others = cut.length > NAMED ? ` and ${cut.length - NAMED} others` : "";
  const under = cut.length > 0 ? ` in ${cut.slice(0, NAMED).join(", ")}${others}` : "";
  const rest = notBegun.length > 0 ? `; ${notBegun.length} not begun, first ${notBegun[0]}` : "";
  return `the limit of ${part.limit} s was reached${under}${rest}`;
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

  /** Starts a process that may go on after this part: it is killed at the end of the last one. */
  start(what, line, { env, onLine } = {}) {
    const { name, together } = this.part;
    this.parts.log(`\n== ${name}: ${what}\n`);
    const child = new Child(line, { env, onLine, log: (text) => this.parts.log(text), prefix: together ? `[${what}] ` : "" });
    this.parts.atEnd(() => child.signal("SIGKILL"));
    return child;
  }

  /**
   * @param what names the command in messages
   * @returns its status (null where it was stopped), what it wrote to standard output, and the end of what it wrote to standard error
   */
  command(what, line, options) {
    if (this.secondsLeft <= 0) {
      this.notBegun.push(what);
      return Promise.resolve({ status: null, stdout: "", stderr: "" });
    }
    const child = this.start(what, line, options);
    child.closeInput();
    return this.finish(what, child);
  }

  /** Waits for a process within what is left of the time. @returns what `command` returns */
  async finish(what, child) {
    let stopped = false;
    let kill;
    const timer = setTimeout(() => {
      stopped = true;
      this.cut.push(what);
      this.parts.log(`\n== ${what} is stopped: the limit of ${this.part.limit} s is reached\n`);
      child.signal("SIGINT");
      kill = setTimeout(() => child.signal("SIGKILL"), 1000 * (this.part.grace ?? GRACE));
    }, 1000 * this.secondsLeft);
    const status = await child.ended;
    clearTimeout(timer);
    clearTimeout(kill);
    return { status: stopped ? null : status, stdout: child.stdout, stderr: child.stderr };
  }
}

module.exports = { Missing, Parts, longest };

/** A process that gpu-check has started: its output goes to the log as it comes, and what it starts itself ends with it. */
const { spawn } = require("node:child_process");
const os = require("node:os");

class Child {
  stdout = "";
  /** The end of what it wrote to standard error. */
  stderr = "";
  /** Its exit status; 128 and more where a signal ended it, 127 where it could not be started. */
  ended;
  #process;

  /**
   * @param log is called with each piece of text
   * @param onLine is called with each line of standard output
   * @param prefix begins each line of the log, where several processes write to it at once
   */
  constructor([program, ...args], { env = {}, log, onLine, prefix = "" }) {
    log(`${prefix}$ ${[program, ...args].join(" ")}\n`);
    // A group of its own, so that a signal reaches what it starts too.
    const child = spawn(program, args, { stdio: "pipe", detached: true, env: { ...process.env, ...env } });
    this.#process = child;
    child.stdin.on("error", () => {}); // it may end before it has read
    const lines = (stream, each) => {
      let pending = "";
      stream.setEncoding("utf8").on("data", (text) => {
        const whole = (pending + text).split("\n");
        pending = whole.pop();
        for (const line of whole) each(line);
      });
      return () => pending !== "" && each(pending);
    };
    const flushOut = lines(child.stdout, (line) => {
      this.stdout += `${line}\n`;
      log(`${prefix}${line}\n`);
      onLine?.(line);
    });
    const flushErrors = lines(child.stderr, (line) => {
      this.stderr = `${this.stderr}${line}\n`.slice(-4000);
      log(`${prefix}${line}\n`);
    });
    this.ended = new Promise((resolve) => {
      const end = (status) => {
        this.signal("SIGKILL"); // what it has left running
        flushOut();
        flushErrors();
        resolve(status);
      };
      child.on("error", (error) => {
        log(`${prefix}${error.message}\n`);
        end(127);
      });
      // What it wrote last arrives after this; "close" would wait for all that still hold its standard output.
      child.on("exit", (status, signal) => setTimeout(() => end(status ?? 128 + os.constants.signals[signal]), 20));
    });
  }

  write(text) {
    this.#process.stdin.write(text);
  }

  closeInput() {
    this.#process.stdin.end();
  }

  /** To it and all that it has started. */
  signal(name) {
    if (this.#process.pid === undefined) return;
    try {
      process.kill(-this.#process.pid, name);
    } catch {} // they have ended
  }
}

module.exports = { Child };

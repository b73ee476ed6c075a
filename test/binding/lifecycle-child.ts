/** One scenario of lifecycle.test.ts in a process of its own: `node lifecycle-child.js SCENARIO`. Prints "ok" where it survives. */
import { readdirSync } from "node:fs";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { native } from "../../lib/native/index.js";
import { copySession, sleep, slowSession } from "./programs.js";

const ok = () => console.log("ok");

/** Threads of this process (Linux only; 0 elsewhere). */
function threads(): number {
  return process.platform === "linux" ? readdirSync("/proc/self/task").length : 0;
}

async function worker(scenario: string, terminate: boolean): Promise<void> {
  const started = new Worker(__filename, { workerData: scenario });
  const ended = new Promise<number>((resolve) => started.once("exit", resolve));
  await new Promise((resolve) => started.once("message", resolve));
  if (terminate) await started.terminate();
  await ended;
}

const scenarios: Record<string, () => unknown> = {
  /** process.exit in the middle of a step, with more waiting. */
  async exit() {
    const { run } = slowSession(native, 500);
    void run();
    void run();
    await sleep(Math.random() * 20);
    process.exit(7);
  },
  /** The same right after the thread started. */
  exitAtOnce() {
    void slowSession(native, 500).run();
    process.exit(7);
  },
  exitFromGetter() {
    const { session, run } = slowSession(native, 500);
    void run();
    session.addProgram({
      locals: [],
      get ops() {
        return process.exit(7);
      },
    });
  },
  /** An exception nobody catches, in the middle of a step. */
  async crash() {
    void slowSession(native, 500).run();
    await sleep(5);
    throw new Error("uncaught");
  },
  /** A pending run keeps the process alive until it is done. */
  pending() {
    void slowSession(native, 3).run().then(ok);
  },
  /** An idle session, never disposed, does not. */
  async idle() {
    const { session, program, x, y, elements } = copySession(native);
    await session.run(program, [[x, new Float64Array(elements)]], [y]);
    ok();
  },
  disposeAndLeave() {
    const { session, run } = slowSession(native, 500);
    run().catch(ok);
    session.dispose();
  },
  /** Sessions that were forgotten: their threads end. (Run with --expose-gc.) */
  async forget() {
    const collect = globalThis.gc!;
    const use = async () => {
      const { session, program, x, y, elements } = copySession(native);
      await session.run(program, [[x, new Float64Array(elements)]], [y]);
    };
    await use();
    const before = threads();
    for (let i = 0; i < 50; ++i) await use();
    for (let i = 0; i < 100 && threads() > before + 2; ++i) {
      collect();
      await sleep(10);
    }
    if (threads() > before + 2) throw new Error(`${threads()} threads are left of ${before}`);
    ok();
  },
  /** A session that was forgotten with a step under way finishes it. */
  async forgetPending() {
    const steps = Array.from({ length: 5 }, () => slowSession(native, 3).run());
    for (let i = 0; i < 10; ++i) {
      globalThis.gc!();
      await sleep(5);
    }
    await Promise.all(steps);
    ok();
  },
  async terminateWorkers() {
    for (let i = 0; i < 15; ++i) await Promise.all([worker("step", true), worker("step", true)]);
    ok();
  },
  async terminateInGetter() {
    for (let i = 0; i < 5; ++i) await worker("getter", true);
    ok();
  },
  async terminateBusyWorkers() {
    for (let i = 0; i < 10; ++i) await worker("traffic", true);
    ok();
  },
  async exitingWorkers() {
    for (let i = 0; i < 10; ++i) await worker("exit", false);
    ok();
  },
  async finishingWorkers() {
    for (let i = 0; i < 10; ++i) await worker("finish", false);
    ok();
  },
  /** The process ends while workers are in the middle of steps. */
  async exitWithWorkers() {
    for (let i = 0; i < 3; ++i) {
      const started = new Worker(__filename, { workerData: "step" });
      await new Promise((resolve) => started.once("message", resolve));
    }
    void slowSession(native, 500).run();
    process.exit(7);
  },
};

/** What a worker does; it tells the parent when it is under way. */
const inWorker: Record<string, () => unknown> = {
  step() {
    const { run } = slowSession(native, 500);
    void run();
    void run();
    parentPort!.postMessage("started");
  },
  getter() {
    const { session } = copySession(native);
    session.addProgram({
      locals: [],
      get ops(): never {
        parentPort!.postMessage("started");
        for (;;);
      },
    });
  },
  /** Results and errors arrive all the time. */
  async traffic() {
    const { session, program, x, y, elements } = copySession(native);
    parentPort!.postMessage("started");
    for (;;) {
      await Promise.allSettled(
        Array.from({ length: 50 }, (_, i) => session.run(program, [[x, new Float64Array(elements - (i % 2))]], [y])),
      );
    }
  },
  exit() {
    void slowSession(native, 500).run();
    parentPort!.postMessage("started");
    process.exit(0);
  },
  async finish() {
    await slowSession(native, 1).run();
    parentPort!.postMessage("started");
  },
};

void (isMainThread ? scenarios[process.argv[2]!]! : inWorker[workerData as string]!)();

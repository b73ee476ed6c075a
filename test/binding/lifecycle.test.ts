/**
 * Ends of every kind, in the middle of a step: of the process, of a worker, of the last reference to a session. Each scenario
 * runs in a process of its own, several times, since what goes wrong here goes wrong sometimes.
 */
import { spawn } from "node:child_process";
import path from "node:path";
import { expect } from "chai";

/** REVNET_STRESS=10 plays every scenario ten times as often. */
const stress = Number(process.env.REVNET_STRESS ?? 1);

/** At most two processes at a time: with more, timing would be all that is tested. */
const lanes: Promise<unknown>[] = [Promise.resolve(), Promise.resolve()];
let turn = 0;
function queue<T>(task: () => Promise<T>): Promise<T> {
  const lane = turn++ % lanes.length;
  const result = lanes[lane]!.then(task);
  lanes[lane] = result.catch(() => undefined);
  return result;
}

interface Ending {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

function play(scenario: string): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--expose-gc", path.join(__dirname, "lifecycle-child.js"), scenario], {
      timeout: 50_000,
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

async function expectEnding(scenario: string, code: number, stdout: string, times: number): Promise<void> {
  const endings = Array.from({ length: times * stress }, () => queue(() => play(scenario)));
  for (const { stderr, ...ending } of await Promise.all(endings))
    expect(ending, stderr).to.deep.equal({ code, signal: null, stdout });
}

describe("ends during a step", function () {
  this.timeout(60_000 * stress);

  it("process.exit", () => expectEnding("exit", 7, "", 8));
  it("process.exit as the step starts", () => expectEnding("exitAtOnce", 7, "", 8));
  it("process.exit in a getter of an argument", () => expectEnding("exitFromGetter", 7, "", 2));
  it("process.exit while workers run steps too", () => expectEnding("exitWithWorkers", 7, "", 2));
  it("an uncaught exception", () => expectEnding("crash", 1, "", 2));
  it("a pending run keeps the process alive", () => expectEnding("pending", 0, "ok\n", 2));
  it("an idle session does not", () => expectEnding("idle", 0, "ok\n", 2));
  it("dispose, then the end of the program", () => expectEnding("disposeAndLeave", 0, "ok\n", 2));
  it("a forgotten session is collected and its thread ends", () => expectEnding("forget", 0, "ok\n", 2));
  it("a session forgotten in a step finishes it", () => expectEnding("forgetPending", 0, "ok\n", 2));
  it("worker.terminate", () => expectEnding("terminateWorkers", 0, "ok\n", 2));
  it("worker.terminate while results arrive", () => expectEnding("terminateBusyWorkers", 0, "ok\n", 2));
  it("worker.terminate in a getter of an argument", () => expectEnding("terminateInGetter", 0, "ok\n", 2));
  it("process.exit in a worker", () => expectEnding("exitingWorkers", 0, "ok\n", 2));
  it("workers that come to their end", () => expectEnding("finishingWorkers", 0, "ok\n", 2));
});

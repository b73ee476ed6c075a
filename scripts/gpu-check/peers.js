/**
 * PyTorch beside ours. Its processes take long to load PyTorch and, where they compile, minutes of the processor: so those of the most
 * important times are started ahead, while correctness is checked, and wait (ahead.py) until it is their turn.
 */
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { Missing } = require("./run.js");

/** The peer in each of our precisions: PyTorch's own default for convolutions is tf32, which this variable of NVIDIA's turns off. */
const PEERS = {
  float32: { name: "eager, float32", flags: [], env: { NVIDIA_TF32_OVERRIDE: "0" } },
  tf32: { name: "eager, tf32", flags: [], env: {} },
  bfloat16: { name: "compiled, bfloat16", flags: ["--compile", "--bf16"], env: {} },
};
/** Processes that compile at the same time share the processor's cores. */
const COMPILE_THREADS = "2";
const STEPS = "20";

/** Whether the peer can run here; where not, the result says why. */
async function hasPeer(part, { peer, python }) {
  let problem;
  try {
    part.require(peer, "no peer: --peer names none");
    const find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)";
    const { status } = await part.command("is there PyTorch", [part.program(python), "-c", find]);
    if (status !== 0) problem = `${python} has no torch`;
  } catch (error) {
    if (!(error instanceof Missing)) throw error;
    problem = error.message;
  }
  if (problem) part.record({ note: `${problem}; ours alone` });
  return problem === undefined;
}

/** PyTorch's cache of what it has compiled, for this run. */
function cacheOf(parts) {
  if (!parts.left.has("cache")) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "gpu-check-peer-"));
    parts.left.set("cache", folder);
    parts.atEnd(() => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));
  }
  return parts.left.get("cache");
}

const title = ({ model, batchSize, precision, activations }) =>
  `${model}, batch ${batchSize}, ${activations}, peer ${PEERS[precision].name}`;

/** Starts the peer of a job, which then waits. @returns its process, and whether it gets ready */
function startPeer(part, { peer, python, device }, job, warm) {
  const { flags, env } = PEERS[job.precision];
  const args = ["time", job.model, "--batch", String(job.batchSize), "--steps", STEPS];
  args.push("--threads", String(os.availableParallelism()), ...(device.startsWith("cuda") ? ["--device", "cuda"] : []));
  args.push(...(job.activations === "stored" && job.model.startsWith("revnet") ? ["--stored"] : []), ...flags);
  const ahead = [python, path.join(__dirname, "ahead.py"), ...(warm ? ["--warm"] : []), peer, ...args];
  let readied;
  const ready = new Promise((resolve) => {
    readied = resolve;
  });
  const child = part.start(title(job), ahead, {
    env: { ...env, TORCHINDUCTOR_CACHE_DIR: cacheOf(part.parts), TORCHINDUCTOR_COMPILE_THREADS: COMPILE_THREADS },
    onLine: (line) => line === "ready" && readied(true),
  });
  child.ended.then(() => readied(false));
  return { child, ready };
}

/** The part: starts the peers of these jobs. Those that are not ready within its time are given up. */
async function startPeers(part, options, jobs) {
  if (!(await hasPeer(part, options))) return true;
  const compiling = ({ precision }) => PEERS[precision].flags.includes("--compile");
  const outcomes = await Promise.all(
    jobs.map(async (job) => {
      const started = startPeer(part, options, job, compiling(job));
      let timer;
      const late = new Promise((resolve) => {
        timer = setTimeout(resolve, 1000 * part.secondsLeft, null);
      });
      const ready = await Promise.race([started.ready, late]);
      clearTimeout(timer);
      if (ready) part.parts.left.set(title(job), started);
      else {
        started.child.signal("SIGKILL");
        if (ready === null) part.cut.push(title(job));
        else part.record({ note: `${title(job)} ended before it was ready: ${started.child.stderr.trimEnd().split("\n").at(-1)}` });
      }
      return ready !== false;
    }),
  );
  part.record({ ready: outcomes.filter(Boolean).length - part.cut.length, of: jobs.length });
  return outcomes.every(Boolean);
}

/** @returns the median of the peer's steps in milliseconds; undefined where there is none, and a note says why */
async function timePeer(part, options, job) {
  const what = title(job);
  if (part.secondsLeft <= 0) {
    part.notBegun.push(what);
    return undefined;
  }
  const { child } = part.parts.left.get(what) ?? startPeer(part, options, job, false);
  part.parts.left.delete(what);
  child.write("go\n");
  child.closeInput();
  const { status, stdout, stderr } = await part.finish(what, child);
  const median = stdout.match(/median ([\d.]+) ms/)?.[1];
  if (status === 0 && median !== undefined) return Number(median);
  if (status !== null) part.record({ note: `${what}: ${stderr.trimEnd().split("\n").at(-1) || "no median in its output"}` });
  return undefined;
}

module.exports = { PEERS, hasPeer, startPeers, timePeer };

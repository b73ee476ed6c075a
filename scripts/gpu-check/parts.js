/** The parts of gpu-check, in the order in which they run: the most important first. */
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { Missing } = require("./run.js");

const ROOT = path.resolve(__dirname, "../..");
const REVNET = [process.execPath, path.join(ROOT, "dist", "cli", "main.js")];
const TESTS = path.join(ROOT, "dist-test", "test");
const PRECISIONS = ["bfloat16", "tf32", "float32"];
const CIFAR_MODELS = ["revnet-38", "resnet-32", "revnet-110", "resnet-110", "revnet-164", "resnet-164"];
/** The peer in each of our precisions: PyTorch's own default for convolutions is tf32, which this variable of NVIDIA's turns off. */
const PEERS = {
  float32: { name: "eager, float32", flags: "", env: { NVIDIA_TF32_OVERRIDE: "0" } },
  tf32: { name: "eager, tf32", flags: "", env: {} },
  bfloat16: { name: "compiled, bfloat16", flags: "--compile --bf16", env: {} },
};

async function verify(part, { device }) {
  // The last line of a budget that is over comes before the limit.
  const budget = Math.max(1, part.secondsLeft - 15);
  const onLine = (line) => line.startsWith("{") && part.record({ line: JSON.parse(line) });
  const command = [...REVNET, "doctor", "--verify", "--device", device, "--json", "--budget", String(budget)];
  return (await part.command("doctor --verify", command, { onLine })).status === 0;
}

async function suites(part) {
  const mocha = part.require(path.join(ROOT, "node_modules", "mocha", "bin", "mocha.js"));
  const files = ["ops", "network", "training", "cuda", "binding"].map((folder) =>
    path.join(part.require(TESTS), folder, "*.test.js"),
  );
  const ignored = ["--ignore", path.join(TESTS, "cuda", "emulated.test.js")];
  const args = [mocha, "--no-config", "--timeout", "120000", "--grep", "cuda", ...ignored, ...files];
  const { status, stdout } = await part.command("mocha --grep cuda", [process.execPath, ...args], { env: { NO_COLOR: "1" } });
  // Counted by the lines of the tests, which a run that is cut off has printed too; mocha's own list of failures comes after "passing".
  const [tests] = stdout.split(/^ +\d+ passing/m);
  const failures = [...tests.matchAll(/^ +\d+\) (.*)$/gm)].map(([, title]) => title);
  const passing = tests.match(/^ +✔ /gm)?.length ?? 0;
  part.record({ passing, failures, pending: tests.match(/^ +- /gm)?.length ?? 0 });
  return status === 0 && passing > 0;
}

async function sanitizer(part, { device }) {
  const program = part.program("compute-sanitizer");
  let ok = true;
  for (const tool of ["memcheck", "racecheck"]) {
    const script = [process.execPath, path.join(__dirname, "ops.js"), device];
    const { status, stdout } = await part.command(tool, [program, "--tool", tool, "--error-exitcode", "3", ...script]);
    if (status !== null) part.record({ tool, ok: status === 0, said: lastLine(stdout, /SUMMARY/) });
    ok &&= status === 0;
  }
  return ok;
}

/** @param peer a key of PEERS, where there is a peer to time in turns with ours */
async function bench(part, { device, peer: file, python }, { model, batchSize, precision, peer, steps = 10, rounds = 2 }) {
  const { name, flags, env } = PEERS[peer] ?? { env: {} };
  const args = ["bench", model, "--device", device, "--precision", precision, "--batch-size", String(batchSize), "--json"];
  args.push("--steps", String(steps), "--rounds", String(rounds));
  if (peer) args.push("--peer", file, "--python", python, ...(flags ? [`--peer-flags=${flags}`] : []));
  const what = `${model}, batch ${batchSize}, ${precision}${peer ? `, peer ${name}` : ""}`;
  const { status, stdout, stderr } = await part.command(what, [...REVNET, ...args], { env });
  if (status !== 0) {
    if (status !== null) part.record({ note: `${what}: ${lastLine(stderr, /./)}` });
    return status === null;
  }
  const { timings, ratios } = JSON.parse(stdout);
  part.record({ what, model, batchSize, precision, peer: name, timings, ratios });
  return true;
}

async function times(part, options) {
  const { models = CIFAR_MODELS, batchSizes = [100, 1024] } = options;
  const jobs = models.flatMap((model) =>
    batchSizes.flatMap((batchSize) => PRECISIONS.map((precision) => ({ model, batchSize, precision }))),
  );
  let ok = true;
  // Ours alone take a second each; with the peer, whose processes start and compile for long, as many as there is time for.
  for (const job of jobs) ok = (await bench(part, options, { ...job, rounds: 1 })) && ok;
  if (!hasPeer(part, options)) return ok;
  for (const job of jobs) ok = (await bench(part, options, { ...job, peer: job.precision, rounds: 1 })) && ok;
  return ok;
}

async function imagenet(part, options) {
  let ok = true;
  const peer = hasPeer(part, options);
  for (const model of ["revnet-56", "resnet-50"])
    for (const precision of ["bfloat16", "tf32"])
      ok = (await bench(part, options, { model, batchSize: 32, precision, steps: 5, rounds: 1 })) && ok;
  for (const model of peer ? ["revnet-56", "resnet-50"] : [])
    ok = (await bench(part, options, { model, batchSize: 32, precision: "tf32", peer: "tf32", steps: 5, rounds: 1 })) && ok;
  return ok;
}

/** Whether the peer can run here; where not, the result says why. */
function hasPeer(part, { peer, python }) {
  try {
    part.require(peer, "no peer: --peer names none");
    const find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)";
    if (spawnSync(part.program(python), ["-c", find], { timeout: 20_000 }).status !== 0)
      throw new Missing(`${python} has no torch`);
    return true;
  } catch (error) {
    part.record({ note: `${error.message}; ours alone` });
    return false;
  }
}

async function profile(part, { device }) {
  const program = part.program("ncu");
  const script = [process.execPath, path.join(__dirname, "profiled.js"), device];
  const { status, stdout } = await part.command("ncu", [program, "--clock-control", "none", "--set", "detailed", ...script]);
  part.record({ kernels: kernelsOf(stdout) });
  return status === 0;
}

/** Of ncu's report: each kernel, its duration and shares, and why its warps stall most. */
function kernelsOf(report) {
  const kernels = [];
  for (const line of report.split("\n")) {
    // A kernel's heading: its name with namespaces and arguments, its grid and its block.
    if (/, Context \d+, Stream \d+/.test(line))
      kernels.push({ kernel: /(\w+)\s*[<(]/.exec(line.replace(/<unnamed>::|\(anonymous namespace\)::/g, ""))[1] });
    const value = /^ +(Duration|Memory Throughput|DRAM Throughput|Registers Per Thread|Achieved Occupancy) +(\S+) +([\d.,]+)$/.exec(
      line,
    );
    const kernel = kernels.at(-1);
    if (value && kernel) kernel[value[1]] ??= `${value[3]} ${value[2]}`;
    const stall = /spends ([\d.]+) cycles being stalled (.+?)\.?$/.exec(line);
    if (stall && kernel) kernel.stall ??= `${stall[1]} cycles ${stall[2]}`;
  }
  return kernels;
}

async function train(part, { device, dataDir, unpack, python, trainModel = "revnet-38", steps }) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "gpu-check-"));
  try {
    let data = dataDir;
    if (data === undefined) {
      data = path.join(folder, "cifar-10");
      part.require(unpack, "no data: neither --data-dir nor --unpack is given");
      part.program(python);
      const { status, stderr } = await part.command("unpacking", [python, unpack, data]);
      if (status !== 0) {
        part.record({ note: `unpacking: ${lastLine(stderr, /./)}` });
        return false;
      }
    }
    part.require(data);
    const out = path.join(folder, "run");
    const args = ["train", "--model", trainModel, "--data", "cifar-10", "--data-dir", data, "--device", device, "--out", out];
    args.push("--precision", "bfloat16", ...(steps === undefined ? [] : ["--steps", steps]));
    const start = performance.now();
    const { status } = await part.command(`train ${trainModel}`, [...REVNET, ...args]);
    part.record({ model: trainModel, ...trained(out), seconds: Math.round((performance.now() - start) / 1000) });
    return status === 0;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** The last validation, also of a run that was stopped. */
function trained(out) {
  const file = path.join(out, "metrics.jsonl");
  const lines = fs.existsSync(file) ? fs.readFileSync(file, "utf8").trimEnd().split("\n") : [];
  const last = lines.findLast((line) => line.includes('"validation"'));
  return last === undefined ? { note: "no validation" } : { validation: JSON.parse(last) };
}

const lastLine = (text, pattern) =>
  text
    .trimEnd()
    .split("\n")
    .findLast((line) => pattern.test(line)) ?? "";

const PARTS = [
  { name: "verify", limit: 130, what: "revnet doctor --verify", run: verify },
  { name: "suites", limit: 130, what: "the tests that name cuda", run: suites },
  { name: "sanitizer", limit: 60, what: "NVIDIA's memcheck and racecheck over the ops", run: sanitizer },
  { name: "times", limit: 160, what: "steps of the six models for CIFAR, in turns with the peer", run: times, mayBeCut: true },
  { name: "imagenet", limit: 60, what: "steps of revnet-56 and resnet-50 at 224x224, batch 32", run: imagenet, mayBeCut: true },
  { name: "profile", limit: 50, what: "ncu on the kernels of one residual function", run: profile },
  { name: "train", limit: 310, what: "revnet-38 on CIFAR-10 by the paper's recipe, in bfloat16", run: train, mayBeCut: true },
];
const DEFAULT_PARTS = ["verify", "suites", "sanitizer", "times"];

module.exports = { DEFAULT_PARTS, PARTS, kernelsOf };

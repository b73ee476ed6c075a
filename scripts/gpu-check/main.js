#!/usr/bin/env node
/** Reads the arguments of gpu-check.sh and runs the parts that were asked for. */
const { spawnSync } = require("node:child_process");
const os = require("node:os");
const path = require("node:path");
const { parseArgs } = require("node:util");
const { Parts, longest } = require("./run.js");
const { DEFAULT_PARTS, PARTS } = require("./parts.js");
const { summary } = require("./summary.js");

const FLAGS = {
  peer: "FILE.py    times PyTorch in turns with ours (docs/gpu-testing.md says what it has to print)",
  python: "PROGRAM  runs the peer and the unpacking script (default python3)",
  "data-dir": "DIR    CIFAR-10's binary files, for the part train",
  unpack: "FILE.py  or a script that writes them into the folder that it is given",
  device: "NAME     default cuda",
  models: "A,B,...  for the part times, in place of the six for CIFAR",
  "batch-sizes": "N,M   for the part times (default 100,1024)",
  "train-model": "MODEL  for the part train, in place of revnet-38",
  steps: "N         for the part train, in place of the recipe's",
  limit: "PART=SECONDS  another time limit; can be given several times",
};

function help() {
  const parts = PARTS.map(({ name, limit, what }) => `  ${name.padEnd(10)} ${String(limit).padStart(4)} s  ${what}`);
  const minutes = (parts) => Math.ceil(longest(parts) / 60);
  return [
    "gpu-check.sh OUT [PART...]: writes summary.md, results.jsonl and log.txt into the folder OUT, as each part goes on.",
    "",
    `Parts, with their time limits. By default ${DEFAULT_PARTS.join(", ")},`,
    `which take ${minutes(PARTS.filter(({ byDefault }) => byDefault))} minutes at most; "all": ${minutes(PARTS)}. Parts that are named run in the order in which they are named,`,
    `${PARTS.filter(({ together }) => together)
      .map(({ name }) => name)
      .join(", ")} at the same time where they are neighbours.`,
    ...parts,
    "",
    ...Object.entries(FLAGS).map(([name, text]) => `  --${name} ${text}`),
  ].join("\n");
}

function fail(message) {
  console.error(`gpu-check: ${message}`);
  process.exit(2);
}

function readArguments(args) {
  const options = Object.fromEntries(Object.keys(FLAGS).map((name) => [name, { type: "string" }]));
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { ...options, limit: { type: "string", multiple: true, default: [] }, help: { type: "boolean", short: "h" } },
  });
  return { values, out: positionals[0], asked: positionals.slice(1) };
}

async function main() {
  let given;
  try {
    given = readArguments(process.argv.slice(2));
  } catch (error) {
    fail(error.message);
  }
  const { values, out, asked } = given;
  if (values.help || out === undefined) {
    console.log(help());
    process.exit(values.help ? 0 : 2);
  }
  const names = asked.length === 0 ? DEFAULT_PARTS : asked.includes("all") ? PARTS.map(({ name }) => name) : asked;
  const limits = Object.fromEntries(values.limit.map((text) => text.split("=")));
  for (const name of [...names, ...Object.keys(limits)])
    if (!PARTS.some((part) => part.name === name))
      fail(`unknown part '${name}'; there are ${PARTS.map((part) => part.name).join(", ")}`);
  for (const [name, seconds] of Object.entries(limits))
    if (!(Number(seconds) > 0)) fail(`--limit ${name}: expected seconds, got '${seconds}'`);
  const parts = [...new Set(names)].map((asked) => {
    const part = PARTS.find(({ name }) => name === asked);
    return { ...part, limit: Number(limits[asked] ?? part.limit) };
  });
  const absolute = (file) => (file === undefined ? undefined : path.resolve(file));
  const options = {
    peer: absolute(values.peer),
    python: values.python ?? "python3",
    dataDir: absolute(values["data-dir"]),
    unpack: absolute(values.unpack),
    device: values.device ?? "cuda",
    models: values.models?.split(","),
    batchSizes: values["batch-sizes"]?.split(",").map(Number),
    trainModel: values["train-model"],
    steps: values.steps,
  };
  const run = new Parts(path.resolve(out), options, summary);
  const query = ["--query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem", "--format=csv,noheader"];
  const { stdout: machine } = spawnSync("nvidia-smi", query, { encoding: "utf8", timeout: 10_000 });
  if (machine) run.record({ machine: `${machine.trim()}; ${os.availableParallelism()} processor cores` });
  const failed = await run.run(parts);
  process.exit(failed ? 1 : 0);
}

void main();

#!/usr/bin/env node
/** Reads the arguments of gpu-check.sh and runs the parts that were asked for. */
const path = require("node:path");
const { parseArgs } = require("node:util");
const { Parts } = require("./run.js");
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
  const total = (names) => PARTS.filter(({ name }) => names.includes(name)).reduce((sum, { limit }) => sum + limit, 0) / 60;
  return [
    "gpu-check.sh OUT [PART...]: writes summary.md, results.jsonl and log.txt into the folder OUT, as each part goes on.",
    "",
    `Parts, with their time limits (by default ${DEFAULT_PARTS.join(", ")}: ${total(DEFAULT_PARTS)} minutes at most; "all": ${total(PARTS.map(({ name }) => name))}):`,
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
  const parts = PARTS.filter(({ name }) => names.includes(name)).map((part) => ({
    ...part,
    limit: Number(limits[part.name] ?? part.limit),
  }));
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
  const failed = await new Parts(path.resolve(out), options, summary).run(parts);
  process.exit(failed ? 1 : 0);
}

void main();

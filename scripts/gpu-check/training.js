/** The part of gpu-check that trains a network by the paper's recipe. */
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { lastLine } = require("./text.js");

const REVNET = [process.execPath, path.resolve(__dirname, "../../dist/cli/main.js")];

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

module.exports = { train };

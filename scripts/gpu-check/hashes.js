/**
 * What has to hold to the bit, on a network of the size that the package is for: node hashes.js DEVICE [MODEL STEPS RUNS]. Prints a JSON object a
 * line: for each precision the weights' SHA-256 after so many steps at batch 100, reversible and stored, and how many different ones
 * so many runs of a tenth of the steps end with. Exits 1 where there is more than one.
 */
const path = require("node:path");

const dist = path.resolve(__dirname, "../../dist");
const { createNetwork } = require(path.join(dist, "index.js"));
const { trainedHash } = require(path.join(dist, "verify", "networks.js"));
const { subjectOf } = require(path.join(dist, "verify", "verify.js"));

const BATCH = 100;

async function hashOf(model, options, activations, steps) {
  const network = createNetwork(model, options);
  try {
    return await trainedHash(network, activations, steps, BATCH);
  } finally {
    network.dispose();
  }
}

async function main() {
  const [, , device, model = "revnet-38", steps = "200", runs = "20"] = process.argv;
  for (const precision of subjectOf({ device }).precisions) {
    const options = { device, precision };
    const reversible = await hashOf(model, options, "reversible", Number(steps));
    const stored = await hashOf(model, options, "stored", Number(steps));
    const repeated = new Set();
    for (let i = 0; i < Number(runs); ++i) repeated.add(await hashOf(model, options, "reversible", Math.ceil(Number(steps) / 10)));
    const ok = reversible === stored && repeated.size === 1;
    console.log(
      JSON.stringify({
        model,
        precision,
        steps: Number(steps),
        reversible,
        stored,
        runs: Number(runs),
        different: repeated.size,
        ok,
      }),
    );
    if (!ok) process.exitCode = 1;
  }
}

void main();

/** Whole training steps of a model, for a profiler: node step.js DEVICE [MODEL BATCH PRECISION ACTIVATIONS STEPS]. */
const path = require("node:path");

const dist = path.resolve(__dirname, "../../dist");
const { createNetwork } = require(path.join(dist, "index.js"));
const { trainedHash } = require(path.join(dist, "verify", "networks.js"));

async function main() {
  const [, , device, model = "revnet-38", batch = "100", precision = "bfloat16", activations = "reversible", steps = "1"] =
    process.argv;
  const network = createNetwork(model, { device, precision });
  console.log(await trainedHash(network, activations, Number(steps), Number(batch)));
  network.dispose();
}

void main();

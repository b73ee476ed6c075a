/**
 * A process that ends in mid-step: node exit.js DEVICE HOW MILLISECONDS, where HOW is "exit" (process.exit) or "dispose" (the network is
 * disposed of, and the process ends by itself). The steps of revnet-38 are under way, and the end comes so many milliseconds after
 * the first of them. Anything but exit status 0 is a fault.
 */
const path = require("node:path");

const dist = path.resolve(__dirname, "../../dist");
const { createNetwork } = require(path.join(dist, "index.js"));
const { randomSplit } = require(path.join(dist, "verify", "small.js"));

const BATCH = 100;

async function main() {
  const [, , device, how, milliseconds] = process.argv;
  const network = createNetwork("revnet-38", { device });
  const training = await network.prepareTraining({ batchSize: BATCH, data: randomSplit(network.spec, BATCH) });
  const indices = Int32Array.from({ length: BATCH }, (_, i) => i);
  const step = () => training.run({ learningRate: 0.1, momentum: 0.9, weightDecay: 2e-4, indices });
  await step();
  let ended = false;
  const steps = (async () => {
    while (!ended) await Promise.all([step(), step()]);
  })();
  steps.catch((error) => {
    if (error.code !== "ERR_DISPOSED") throw error;
  });
  setTimeout(() => {
    if (how === "exit") process.exit(0);
    ended = true;
    network.dispose();
  }, Number(milliseconds));
}

void main();

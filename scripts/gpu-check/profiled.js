/**
 * One residual function of revnet-38's first stage at batch 100, forward and backward, in bfloat16, for a profiler: prepare, two
 * convolutions forward; prepare, for each layer the weights' gradient and the masked backward data, and the tail (the sum of partial
 * gradients, the pass through the first norm). node profiled.js DEVICE
 */
const path = require("node:path");

const dist = path.resolve(__dirname, "../../dist/verify");
const { Device, initialValues } = require(path.join(dist, "device.js"));
const { generate } = require(path.join(dist, "families.js"));

async function main() {
  const [, , name, n = "100"] = process.argv;
  const shape = { n: Number(n), h: 32, w: 32, c: 16, k: 16, hidden: 16, kernel: 3, stride: 1 };
  const problem = generate({ family: "residual", ...shape, stream: "fixed", seed: 1 });
  const device = new Device({ device: name, precision: "bfloat16", poison: false });
  await device.program(problem.tensors, [...problem.forward, ...problem.backward]).run(initialValues(problem.tensors), []);
  device.dispose();
}

void main();

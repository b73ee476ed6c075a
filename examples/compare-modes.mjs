// The same training twice, rebuilding activations and storing them: the weights are the same to the bit, the memory is not.
import { fileURLToPath } from "node:url";
import { trainRevNet } from "revnet";

const steps = Number(process.env.STEPS ?? 60);
const model = { extends: fileURLToPath(new URL("revnet-shapes.json", import.meta.url)), name: "deeper", units: [8, 8, 8] };

const summaries = [];
for (const activations of ["reversible", "stored"]) {
  const run = trainRevNet({ model, data: "shapes", trainCount: 1000, testCount: 200, batchSize: 50, steps, activations });
  const { network, summary } = await run;
  network.dispose();
  summaries.push(summary);
  console.log(
    `${activations.padEnd(10)}  activations ${(summary.memory.activations / 2 ** 20).toFixed(1)} MiB, ` +
      `${summary.stepMilliseconds.median.toFixed(0)} ms a step, weights ${summary.weightsSha256.slice(0, 16)}...`,
  );
}
if (summaries[0].weightsSha256 !== summaries[1].weightsSha256) throw new Error("the weights differ");
console.log("the weights are the same, to the bit");

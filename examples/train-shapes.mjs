// Trains a small RevNet on the drawn shapes, and shows what it makes of the first test images.
import { fileURLToPath } from "node:url";
import { openDataset, trainRevNet } from "revnet";

const data = await openDataset("shapes");
const steps = process.env.STEPS && Number(process.env.STEPS); // otherwise the model's recipe says
const model = fileURLToPath(new URL("revnet-shapes.json", import.meta.url));
const run = trainRevNet({ model, data, ...(steps && { steps }) });

for await (const event of run) {
  if (event.type === "start") console.log(`${event.parameters} parameters on ${event.device}`);
  if (event.type === "validation") console.log(`step ${event.step}: test error ${(100 * event.error).toFixed(1)} %`);
}

const { network, summary } = await run;
console.log(
  `activations: ${(summary.memory.activations / 2 ** 20).toFixed(1)} MiB, reconstructed exactly: ${summary.reconstruction.exact}`,
);

const count = 5;
const probabilities = await network.predict(data.test.images.subarray(0, count * 32 * 32 * 3));
for (let i = 0; i < count; i++) {
  const row = [...probabilities.subarray(i * data.classes.length, (i + 1) * data.classes.length)];
  console.log(`a ${data.classes[data.test.labels[i]]} is taken for a ${data.classes[row.indexOf(Math.max(...row))]}`);
}
network.dispose();

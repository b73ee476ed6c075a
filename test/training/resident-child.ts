/** Trains two steps of revnet (32,32,64,112) with argv[2] units a stage, and prints what the process then holds. */
import { createNetwork } from "../../lib/index.js";

async function main(units: number, activations: "reversible" | "stored"): Promise<void> {
  const batchSize = 100;
  const network = createNetwork(
    {
      name: `revnet-${units}`,
      kind: "revnet",
      stem: "cifar",
      input: [32, 32, 3],
      classes: 10,
      filters: [32, 32, 64, 112],
      units: [units, units, units],
      strides: [1, 2, 2],
      bottleneck: false,
    },
    { device: "cpu", threads: 2 },
  );
  const images = new Uint8Array(batchSize * 3072).map((_, i) => (i * 40503) >> 8);
  const labels = new Int32Array(batchSize).map((_, i) => i % 10);
  const step = await network.prepareTraining({ batchSize, activations, data: { count: batchSize, images, labels } });
  const planned = step.planned();
  for (let i = 0; i < 2; i++)
    await step.run({
      learningRate: 0.01,
      momentum: 0.9,
      weightDecay: 0,
      step: i,
      indices: new Int32Array(batchSize).map((_, j) => j),
    });
  console.log(JSON.stringify({ resident: process.memoryUsage.rss(), planned, counted: network.memory() }));
}

void main(Number(process.argv[2]), process.argv[3] as "reversible" | "stored");

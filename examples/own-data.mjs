// A data set is any object with these fields. This one tells horizontal from vertical stripes.
import { trainRevNet } from "revnet";

const [height, width, channels] = [16, 16, 1];

function drawSplit(count) {
  const labels = Int32Array.from({ length: count }, (_, i) => i % 2);
  const images = new Uint8Array(count * height * width * channels);
  for (let i = 0; i < count; i++) {
    const phase = Math.random() * 6;
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        images[(i * height + y) * width + x] = 128 + 60 * Math.sin(phase + (labels[i] === 0 ? y : x)) + 40 * (Math.random() - 0.5);
  }
  return { count, images, labels };
}

const { network, summary } = await trainRevNet({
  model: {
    name: "stripes",
    kind: "revnet",
    stem: "cifar",
    input: [height, width, channels],
    classes: 2,
    filters: [8, 8, 16],
    units: [2, 2],
    strides: [1, 2],
    bottleneck: false,
  },
  data: {
    name: "stripes",
    shape: [height, width, channels],
    classes: ["horizontal", "vertical"],
    train: drawSplit(400),
    test: drawSplit(100),
  },
  batchSize: 20,
  steps: Number(process.env.STEPS ?? 40),
  augment: false,
});
console.log(`test error ${(100 * summary.testError).toFixed(1)} % after ${summary.steps} steps`);
network.dispose();

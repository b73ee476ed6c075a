/** A problem small enough for the reference device: 8x8 RGB images of 4 classes, and networks that learn them in a few steps. */
import {
  type Dataset,
  type NetworkSpec,
  type Split,
  type TrainingResult,
  type TrainOptions,
  trainRevNet,
} from "../../lib/index.js";
import { native } from "../../lib/native/index.js";

export const TINY_REVNET: NetworkSpec = {
  name: "tiny-revnet",
  kind: "revnet",
  stem: "cifar",
  input: [8, 8, 3],
  classes: 4,
  filters: [4, 8, 16],
  units: [2, 2],
  strides: [1, 2],
  bottleneck: false,
};
export const TINY_RESNET: NetworkSpec = { ...TINY_REVNET, name: "tiny-resnet", kind: "resnet" };

/** The quadrant that is bright, on noise. */
function split(count: number, salt: number): Split {
  const labels = Int32Array.from({ length: count }, (_, i) => i % 4);
  const noise = native.philox(BigInt(salt), 0, 0, "dataset", count * 192);
  const images = Uint8Array.from({ length: count * 192 }, (_, i) => {
    const [pixel, label] = [Math.floor((i % 192) / 3), labels[Math.floor(i / 192)]!];
    const quadrant = 2 * (Math.floor(pixel / 8) >> 2) + ((pixel % 8) >> 2);
    return (noise[i]! >>> 25) + (quadrant === label ? 100 : 0);
  });
  return { count, images, labels };
}

export function tinyDataset(trainCount = 64, testCount = 22): Dataset {
  return {
    name: "quadrants",
    shape: [8, 8, 3],
    classes: ["a", "b", "c", "d"],
    train: split(trainCount, 1),
    test: split(testCount, 2),
  };
}

/** Devices of this machine that train in a test's time; one that is absent is reported by `revnet doctor`, not here. */
export const DEVICES: string[] = native
  .devices()
  .filter(({ available }) => available)
  .map(({ name }) => name);

/** A short training of the tiny RevNet on the reference device. */
export const tinyOptions = (overrides: Partial<TrainOptions> = {}): TrainOptions => ({
  model: TINY_REVNET,
  data: tinyDataset(),
  device: "reference",
  batchSize: 16,
  steps: 6,
  augment: false,
  optimizer: { learningRate: 0.05 },
  schedule: "constant",
  ...overrides,
});

/** Trains so, and disposes of the network. */
export async function trainTiny(overrides: Partial<TrainOptions> = {}): Promise<TrainingResult> {
  const result = await trainRevNet(tinyOptions(overrides));
  result.network.dispose();
  return result;
}

/** What a run leaves in its folder, in this order. */
export const RUN_FILES = [
  "analysis.json",
  "checkpoints",
  "config.json",
  "metrics.jsonl",
  "model.safetensors",
  "report.html",
  "summary.json",
  "tensorboard",
];

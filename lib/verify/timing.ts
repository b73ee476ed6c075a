/** Times of training steps, as `revnet bench` and `revnet doctor --verify` measure them. */
import type { Network } from "../network/network.js";
import type { Activations } from "../network/recorder.js";

/** Steps before the first timed one: memory is touched, caches and clocks settle. */
const WARMUP = 2;

/** Records a training step. @returns runs so many steps, after some that do not count, and gives their milliseconds */
export async function stepTimer(
  network: Network,
  activations: Activations,
  batchSize: number,
): Promise<(steps: number) => Promise<number[]>> {
  const { spec } = network;
  const imageBytes = spec.input[0] * spec.input[1] * spec.input[2];
  // Hashed positions: what the images show does not matter to the time, as long as it varies.
  const images = Uint8Array.from({ length: batchSize * imageBytes }, (_, i) => Math.imul(i, 0x9e3779b1) >>> 24);
  const labels = Int32Array.from({ length: batchSize }, (_, i) => i % spec.classes);
  const step = await network.prepareTraining({
    batchSize,
    activations,
    data: { count: batchSize, images, labels },
    padding: 2,
    flip: true,
  });
  const indices = Int32Array.from(labels, (_, i) => i);
  let number = 0;
  return async (steps) => {
    const milliseconds: number[] = [];
    for (let i = -WARMUP; i < steps; i++) {
      const start = performance.now();
      await step.run({ learningRate: 0.01, momentum: 0.9, weightDecay: 2e-4, step: number++, seed: 0, indices });
      if (i >= 0) milliseconds.push(performance.now() - start);
    }
    return milliseconds;
  };
}

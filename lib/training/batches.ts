/** Which images a step trains on. */
import { permutation } from "../data/random.js";

/**
 * The training images in a new order each epoch. An epoch is floor(count / batchSize) full batches: batch statistics want
 * full batches, and the plan's shapes are fixed; the few images left over are others in every epoch.
 */
export class Batches {
  readonly stepsPerEpoch: number;
  readonly #count: number;
  readonly #batchSize: number;
  readonly #seed: number;
  #epoch = -1;
  #order: Int32Array = new Int32Array(0);

  /** count >= batchSize >= 1 */
  constructor(count: number, batchSize: number, seed: number) {
    this.#count = count;
    this.#batchSize = batchSize;
    this.#seed = seed;
    this.stepsPerEpoch = Math.floor(count / batchSize);
  }

  /** Indices into the training split, [batchSize], of `step` (from 0): a function of (seed, step) alone. */
  at(step: number): Int32Array {
    const epoch = Math.floor(step / this.stepsPerEpoch);
    if (epoch !== this.#epoch) {
      this.#order = permutation(this.#count, this.#seed, epoch);
      this.#epoch = epoch;
    }
    const first = (step % this.stepsPerEpoch) * this.#batchSize;
    return this.#order.slice(first, first + this.#batchSize);
  }
}

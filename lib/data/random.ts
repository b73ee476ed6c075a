/** Counter-based random numbers (Philox4x32-10) for data: what is drawn depends on the seed and the position alone. */
import { native } from "../native/index.js";

const MASK = 0xffffffff;

/** The 64-bit seed that native code takes; `seed` is a non-negative safe integer. */
export const nativeSeed = (seed: number): bigint => BigInt(seed);

/** Numbers drawn in advance for one item, consumed in order. Runs out with an exception, never silently. */
export class Draws {
  readonly #words: Uint32Array;
  #next = 0;

  /** `count` words of the item (`low`, `high`) for data set `seed`. */
  constructor(seed: number, low: number, high: number, count: number) {
    this.#words = native.philox(nativeSeed(seed), low, high, "dataset", count);
  }

  #word(): number {
    if (this.#next >= this.#words.length) throw new RangeError("more random numbers used than were drawn");
    return this.#words[this.#next++]!;
  }

  /** In [low, high). */
  uniform(low: number, high: number): number {
    return low + ((high - low) * this.#word()) / (MASK + 1);
  }

  /** An integer in [0, below). */
  integer(below: number): number {
    return Math.floor(this.uniform(0, below));
  }

  /** `count` random bytes. */
  bytes(count: number): Uint8Array {
    const words = this.#words.slice(this.#next, this.#next + Math.ceil(count / 4));
    if (words.length * 4 < count) throw new RangeError("more random numbers used than were drawn");
    this.#next += words.length;
    const bytes = new Uint8Array(words.length * 4);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < words.length; i++) view.setUint32(4 * i, words[i]!, true);
    return bytes.subarray(0, count);
  }
}

/**
 * A permutation of [0, count) that depends on (seed, epoch) alone, by Fisher-Yates: the order of any epoch, and so the
 * batch of any step, can be computed without those before it.
 */
export function permutation(count: number, seed: number, epoch: number): Int32Array {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  if (count < 2) return order;
  const draws = native.philox(nativeSeed(seed), epoch >>> 0, Math.floor(epoch / 2 ** 32), "shuffle", count - 1);
  for (let i = count - 1; i > 0; i--) {
    // Multiply-shift maps 32 random bits to [0, i]; its bias is below count / 2^32.
    const j = Math.floor((draws[i - 1]! * (i + 1)) / 2 ** 32);
    const kept = order[i]!;
    order[i] = order[j]!;
    order[j] = kept;
  }
  return order;
}

/** Words of random crops: enough for an image's area, shape and place. */
export const CROP_WORDS = 4;

/** [batchSize][CROP_WORDS] for the crops of a step: of (seed, step, position in the batch) alone. */
export function cropDraws(seed: number, step: number, batchSize: number): Uint32Array {
  return native.philox(nativeSeed(seed), step >>> 0, Math.floor(step / 2 ** 32), "dataset", batchSize * CROP_WORDS);
}

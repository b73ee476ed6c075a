/**
 * Initial values, as in the authors' code: convolutions truncated normal with std sqrt(2 / (k * k * out)) (He et al. 2015,
 * fan-out), the classifier uniform within sqrt(3 / in), norms 1 and 0. Each tensor draws from a stream of its own, so the
 * values depend on the seed and the tensor's place alone: same seed, same bits, on every device.
 */
import { native } from "../native/index.js";
import { type Initializer, type ParameterLayout, pack, type RealArray } from "./parameters.js";

const TWO_POW_32 = 2 ** 32;

/**
 * Fills the flat buffers with the initial values of seed `seed`. The arrays in between are made once, for the largest tensor:
 * one each would be garbage of several times the network's size, which the process then keeps.
 */
export function initialize(layout: ParameterLayout, seed: bigint, parameters: RealArray, running: RealArray): void {
  const entries = [...layout.entries.values()];
  const largest = Math.max(...entries.map(({ elements }) => elements));
  const scratch = new Float32Array(largest);
  const draws = new Uint32Array(wordsFor(largest));
  let stream = 0;
  for (const entry of entries) {
    const values = scratch.subarray(0, entry.elements);
    const words = (count: number) =>
      native.philox(seed, stream, 0, "initialization", count <= draws.length ? draws.subarray(0, count) : count);
    fill(values, entry.initializer, words);
    if (entry.initializer.type !== "constant") ++stream;
    pack(entry, values, entry.buffer === "parameters" ? parameters : running);
  }
}

/** `words(n)` gives the first n words of the tensor's stream; the array is good until the next call. */
type Words = (count: number) => Uint32Array;

function fill(values: Float32Array, initializer: Initializer, words: Words): void {
  switch (initializer.type) {
    case "constant":
      values.fill(initializer.value);
      return;
    case "uniform":
      words(values.length).forEach((word, i) => {
        values[i] = initializer.limit * symmetric(word);
      });
      return;
    case "truncatedNormal":
      truncatedNormal(values, initializer.std, words);
  }
}

/** Maps 32 random bits to (-1, 1), symmetrically: neither end nor 0 is hit. */
const symmetric = (word: number) => (2 * word + 1) / TWO_POW_32 - 1;

/** Words that most likely give `count` normals: one gives a value with probability 0.785 (inside the circle) times 0.954 (within two sigma). */
const wordsFor = (count: number) => 2 * Math.ceil(0.75 * count) + 64;

/**
 * Normals by Marsaglia's polar method, those beyond two standard deviations rejected. The arithmetic beside basic operations
 * is one log and one sqrt, which V8 computes in software, alike everywhere.
 */
function truncatedNormal(values: Float32Array, std: number, words: Words): void {
  const count = values.length;
  for (let budget = wordsFor(count); ; budget *= 2) {
    const stream = words(budget);
    let filled = 0;
    for (let i = 0; i + 1 < budget && filled < count; i += 2) {
      const u = symmetric(stream[i]!);
      const v = symmetric(stream[i + 1]!);
      const s = u * u + v * v;
      if (s >= 1) continue;
      const radius = Math.sqrt((-2 * Math.log(s)) / s);
      if (Math.abs(u * radius) <= 2) values[filled++] = u * radius * std;
      if (Math.abs(v * radius) <= 2 && filled < count) values[filled++] = v * radius * std;
    }
    if (filled === count) return;
  }
}

/**
 * Initial values, as in the authors' code: convolutions truncated normal with std sqrt(2 / (k * k * out)) (He et al. 2015,
 * fan-out), the classifier uniform within sqrt(3 / in), norms 1 and 0. Each tensor draws from a stream of its own, so the
 * values depend on the seed and the tensor's place alone: same seed, same bits, on every device.
 */
import { native } from "../native/index.js";
import { type Initializer, type ParameterLayout, pack, type RealArray } from "./parameters.js";

const TWO_POW_32 = 2 ** 32;

/** Fills the flat buffers with the initial values of seed `seed`. */
export function initialize(layout: ParameterLayout, seed: bigint, parameters: RealArray, running: RealArray): void {
  let stream = 0;
  for (const entry of layout.entries.values()) {
    const random = entry.initializer.type !== "constant";
    const values = draw(entry.initializer, entry.elements, seed, stream);
    if (random) ++stream;
    pack(entry, values, entry.buffer === "parameters" ? parameters : running);
  }
}

function draw(initializer: Initializer, count: number, seed: bigint, stream: number): Float32Array {
  switch (initializer.type) {
    case "constant":
      return new Float32Array(count).fill(initializer.value);
    case "uniform": {
      const words = native.philox(seed, stream, 0, "initialization", count);
      return Float32Array.from(words, (word) => initializer.limit * symmetric(word));
    }
    case "truncatedNormal":
      return truncatedNormal(count, initializer.std, (words) => native.philox(seed, stream, 0, "initialization", words));
  }
}

/** Maps 32 random bits to (-1, 1), symmetrically: neither end nor 0 is hit. */
const symmetric = (word: number) => (2 * word + 1) / TWO_POW_32 - 1;

/**
 * Normals by Marsaglia's polar method, those beyond two standard deviations rejected. `words(n)` gives the first n words of a
 * stream. The arithmetic beside basic operations is one log and one sqrt, which V8 computes in software, alike everywhere.
 */
function truncatedNormal(count: number, std: number, words: (count: number) => Uint32Array): Float32Array {
  const values = new Float32Array(count);
  // One word gives a value with probability 0.785 (inside the circle) times 0.954 (within two sigma); more are drawn if need be.
  for (let budget = 2 * Math.ceil(0.75 * count) + 64; ; budget *= 2) {
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
    if (filled === count) return values;
  }
}

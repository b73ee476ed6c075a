/** Choices by a seed: the same in every run. */
import { native } from "../../lib/native/index.js";

export class Chance {
  #words: Uint32Array | Int32Array = new Uint32Array(0);
  #at = 0;
  #block = 0;

  constructor(private readonly seed: number) {}

  /** In [0, count). */
  below(count: number): number {
    if (this.#at === this.#words.length) {
      this.#words = native.philox(BigInt(this.seed), this.#block++, 0, "dataset", 256);
      this.#at = 0;
    }
    return (this.#words[this.#at++]! >>> 0) % count;
  }

  of<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  /** Once in so many times. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }
}

/** Seeds of the cases to try: all with the variable set, else `sample` of them. */
export function seeds(variable: string, whole: number, sample: number): number[] {
  const count = process.env[variable] === undefined ? sample : whole;
  return Array.from({ length: count }, (_, i) => i);
}

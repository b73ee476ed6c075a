/** Seeded random numbers for op problems (mulberry32, Box-Muller): independent of the Philox generator that is under test itself. */
import { cosine, logarithm } from "../elementary.js";

export class Random {
  constructor(private state: number) {}

  /** Uniform in [0, 1). */
  uniform(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** Integer in [0, bound). */
  integer(bound: number): number {
    return Math.floor(this.uniform() * bound);
  }

  normal(): number {
    return Math.sqrt(-2 * logarithm(1 - this.uniform())) * cosine(2 * Math.PI * this.uniform());
  }
}

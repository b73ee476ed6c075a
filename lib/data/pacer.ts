import { setImmediate } from "node:timers/promises";

/**
 * Keeps the event loop free during long JavaScript loops: `await pacer.breathe()` once an iteration lets other work in
 * whenever `milliseconds` have passed, and costs a clock reading otherwise.
 */
export class Pacer {
  readonly #milliseconds: number;
  #last = performance.now();

  constructor(milliseconds = 8) {
    this.#milliseconds = milliseconds;
  }

  breathe(): Promise<void> | undefined {
    if (performance.now() - this.#last < this.#milliseconds) return undefined;
    return setImmediate().then(() => {
      this.#last = performance.now();
    });
  }
}

/** One line on a terminal that says how far something is; nothing where there is no terminal. */
import type { WriteStream } from "node:tty";
import { canRedraw } from "./output.js";

const REDRAW_MILLISECONDS = 100;

export class Meter {
  #last = Number.NEGATIVE_INFINITY;
  #shown = false;
  readonly #redraws: boolean;

  constructor(
    private readonly what: string,
    private readonly stream: NodeJS.WriteStream = process.stderr,
    private readonly show: (value: number) => string = String,
    env: NodeJS.ProcessEnv = process.env,
  ) {
    this.#redraws = canRedraw(stream, env);
  }

  /** To be handed on as `onProgress`. */
  readonly update = (done: number, total?: number): void => {
    const now = performance.now();
    if (!this.#redraws || (now - this.#last < REDRAW_MILLISECONDS && done !== total)) return;
    this.#last = now;
    // Zero is what some terminals say that do not know.
    const columns = (this.stream as WriteStream).columns || 80;
    const share = total ? ` (${Math.floor((100 * done) / total)} %)` : "";
    const text = `${this.what} ${this.show(done)}${total ? ` of ${this.show(total)}` : ""}${share}`;
    this.stream.write(`\r\x1b[K${text.slice(0, columns - 1)}`);
    this.#shown = true;
  };

  /** Takes the line off the terminal. */
  clear(): void {
    if (this.#shown) this.stream.write("\r\x1b[K");
    this.#shown = false;
  }
}

/** How training shows on a terminal (one line that is redrawn) and elsewhere (plain lines now and then). */
import type { WriteStream } from "node:tty";
import type { StartEvent, StepEvent, TrainingEvent } from "../training/events.js";
import { duration, percent } from "./output.js";

const REDRAW_MILLISECONDS = 100;
/** Between plain lines for steps; epochs and validations always have theirs. */
const LINE_MILLISECONDS = 5000;
/** Steps over which rate and loss are smoothed. */
const HORIZON = 20;

export class Progress {
  readonly #stream: NodeJS.WriteStream;
  #start: StartEvent | undefined;
  #lastShown = 0;
  #barShown = false;
  #loss: number | undefined;
  #error = 0;
  #milliseconds = 0;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  show(event: TrainingEvent): void {
    switch (event.type) {
      case "start":
        this.#start = event;
        this.#line(
          `${event.model}: ${event.parameters.toLocaleString("en")} parameters, ${event.steps} steps of ${event.batchSize} images, on ${event.device}`,
        );
        if (event.resumedFrom > 0) this.#line(`going on from the checkpoint of step ${event.resumedFrom}`);
        break;
      case "step":
        this.#smooth(event);
        this.#showStep(event);
        break;
      case "epoch":
        this.#line(
          `epoch ${event.epoch}: training loss ${event.loss.toFixed(4)}, error ${percent(event.error)}, ${duration(event.milliseconds)}`,
        );
        break;
      case "validation":
        this.#line(`step ${event.step}: test loss ${event.loss.toFixed(4)}, test error ${percent(event.error)}`);
        break;
      case "outOfRange":
        this.#line(`warning: step ${event.step}: ${event.count} values left the range of the fixed-point streams (+-512)`);
        break;
      case "warning":
        this.#line(`warning: step ${event.step}: ${event.message}`);
        break;
      case "brokenImage":
        this.#line(`warning: step ${event.step}: ${event.file} is left out: ${event.reason}`);
        break;
      case "data":
        if (this.#stream.isTTY) this.#draw(`reading images ${event.done}/${event.total}`, event.done / event.total);
        break;
      case "checkpoint":
      case "done":
        break;
    }
  }

  /** Takes the bar off the terminal. */
  clear(): void {
    if (this.#barShown) this.#stream.write("\r\x1b[K");
    this.#barShown = false;
  }

  #smooth({ step, loss, error, milliseconds }: StepEvent): void {
    const weight = this.#loss === undefined ? 1 : Math.max(1 / HORIZON, 1 / step);
    this.#loss = (this.#loss ?? loss) + weight * (loss - (this.#loss ?? loss));
    this.#error += weight * (error - this.#error);
    this.#milliseconds += weight * (milliseconds - this.#milliseconds);
  }

  #showStep(event: StepEvent): void {
    const now = performance.now();
    const last = event.step === this.#start?.steps;
    if (now - this.#lastShown < (this.#stream.isTTY ? REDRAW_MILLISECONDS : LINE_MILLISECONDS) && !last) return;
    this.#lastShown = now;
    const { steps = event.step, batchSize = 0 } = this.#start ?? {};
    const rate = (1000 * batchSize) / this.#milliseconds;
    const rest =
      `loss ${this.#loss!.toFixed(4)}  error ${percent(this.#error)}  ` +
      `${rate.toFixed(0)} images/s  ETA ${duration((steps - event.step) * this.#milliseconds)}`;
    if (this.#stream.isTTY) this.#draw(`${event.step}/${steps}  ${rest}`, event.step / steps);
    else this.#line(`step ${event.step}/${steps}  epoch ${event.epoch}  ${rest}`);
  }

  #draw(text: string, fraction: number): void {
    const { columns = 80 } = this.#stream as WriteStream;
    const width = Math.min(30, Math.max(5, columns - text.length - 4));
    const bar = "#".repeat(Math.round(fraction * width)).padEnd(width, ".");
    this.#stream.write(`\r\x1b[K${`[${bar}] ${text}`.slice(0, columns - 1)}`);
    this.#barShown = true;
  }

  #line(text: string): void {
    this.clear();
    this.#stream.write(`${text}\n`);
  }
}

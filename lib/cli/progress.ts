/** How training shows on a terminal (one line that is redrawn) and elsewhere (plain lines now and then). */

import type { WriteStream } from "node:tty";
import { leftOutLine } from "../data/left-out.js";
import { cosineText, printable, shortNumber } from "../text.js";
import type { StartEvent, StepEvent, TrainingEvent } from "../training/events.js";
import { canRedraw, duration, percent, throughput, wrap } from "./output.js";

const REDRAW_MILLISECONDS = 100;
/** Between plain lines for steps; epochs and validations always have theirs. */
const LINE_MILLISECONDS = 5000;
/** Steps over which rate and loss are smoothed. */
const HORIZON = 20;

export class Progress {
  readonly #stream: NodeJS.WriteStream;
  readonly #redraws: boolean;
  #start: StartEvent | undefined;
  #lastShown = 0;
  #barShown = false;
  #loss: number | undefined;
  #error = 0;
  #milliseconds = 0;
  /** Seen by this process: a resumed run's first is not step 1. */
  #steps = 0;
  readonly #outOfRange = { steps: 0, values: 0 };

  /** @param now milliseconds from any origin, for tests */
  constructor(
    stream: NodeJS.WriteStream,
    private readonly now: () => number = () => performance.now(),
    env: NodeJS.ProcessEnv = process.env,
  ) {
    this.#stream = stream;
    this.#redraws = canRedraw(stream, env);
  }

  show(event: TrainingEvent): void {
    switch (event.type) {
      case "start":
        this.#start = event;
        this.#line(
          `${event.model}: ${event.parameters.toLocaleString("en")} parameters, ${event.steps} steps of ${event.batchSize} images`,
        );
        this.#line(`on ${event.device}`);
        if (event.scaledFrom)
          this.#line(
            `learning rate ${shortNumber(event.learningRate)}: the recipe's ${shortNumber(event.scaledFrom.learningRate)} for batches of ` +
              `${event.scaledFrom.batchSize}, scaled to ${event.batchSize} (--no-scale-learning-rate: as it is)`,
          );
        if (event.resumedFrom > 0)
          this.#line(
            event.resumedFrom < event.steps
              ? `going on from the checkpoint of step ${event.resumedFrom}`
              : `the checkpoint of step ${event.resumedFrom} is the last one: there is nothing left to train`,
          );
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
        this.#line(`step ${event.step}: ${event.split} loss ${event.loss.toFixed(4)}, error ${percent(event.error)}`);
        break;
      case "verification":
        this.#line(
          `step ${event.step}: reconstruction error ${shortNumber(event.maxError)}, cosine of reversible and stored gradients ${cosineText(event.cosine)}`,
        );
        break;
      case "outOfRange":
        if (this.#outOfRange.steps === 0)
          this.#line(
            `warning: step ${event.step}: ${shortNumber(event.count)} values left the range of the fixed-point streams (+-512); such steps are counted from now on, and told at the end`,
          );
        this.#outOfRange.steps += 1;
        this.#outOfRange.values += event.count;
        break;
      case "warning":
        this.#line(`warning: ${event.step > 0 ? `step ${event.step}: ` : ""}${event.message}`);
        break;
      case "leftOut":
        this.#line(`warning: ${leftOutLine(event)}`);
        break;
      case "brokenImage":
        this.#line(`warning: step ${event.step}: ${event.file} is left out: ${event.reason}`);
        break;
      case "data":
        if (this.#redraws) this.#draw([`reading images ${event.done}/${event.total}`], event.done / event.total);
        break;
      case "ui":
        this.#line(`live page: ${event.url}`);
        break;
      case "checkpoint":
      case "done":
        break;
    }
  }

  /** A line of its own. */
  note(text: string): void {
    this.#line(text);
  }

  /** However the run ended: takes the bar off the terminal, and says what was only counted. */
  end(): void {
    this.clear();
    const { steps, values } = this.#outOfRange;
    if (steps > 1)
      this.#line(`warning: in ${steps} steps, ${shortNumber(values)} values left the range of the fixed-point streams`);
  }

  /** Takes the bar off the terminal. */
  clear(): void {
    if (this.#barShown) this.#stream.write("\r\x1b[K");
    this.#barShown = false;
  }

  #smooth({ loss, error, milliseconds }: StepEvent): void {
    this.#steps += 1;
    const weight = Math.max(1 / HORIZON, 1 / this.#steps);
    this.#loss = (this.#loss ?? loss) + weight * (loss - (this.#loss ?? loss));
    this.#error += weight * (error - this.#error);
    // The first step warms up what the others use: its time says nothing of theirs.
    const timed = Math.max(1 / HORIZON, 1 / Math.max(1, this.#steps - 1));
    this.#milliseconds += timed * (milliseconds - this.#milliseconds);
  }

  #showStep(event: StepEvent): void {
    const now = this.now();
    const last = event.step === this.#start?.steps;
    if (now - this.#lastShown < (this.#redraws ? REDRAW_MILLISECONDS : LINE_MILLISECONDS) && !last) return;
    this.#lastShown = now;
    const { steps = event.step, batchSize = 0 } = this.#start ?? {};
    const loss = `loss ${this.#loss!.toFixed(4)}`;
    const error = `error ${percent(this.#error)}`;
    const timing =
      this.#steps > 1
        ? [throughput((1000 * batchSize) / this.#milliseconds), `ETA ${duration((steps - event.step) * this.#milliseconds)}`]
        : [];
    if (this.#redraws) this.#draw([`${event.step}/${steps}`, loss, error, ...timing], event.step / steps);
    else this.#line([`step ${event.step}/${steps}`, `epoch ${event.epoch}`, loss, error, ...timing].join("  "));
  }

  #draw(parts: readonly string[], fraction: number): void {
    // Zero is what some terminals say that do not know.
    const columns = (this.#stream as WriteStream).columns || 80;
    this.#stream.write(`\r\x1b[K${progressLine(parts, fraction, columns - 1)}`);
    this.#barShown = true;
  }

  #line(text: string): void {
    this.clear();
    this.#stream.write(
      wrap(printable(text), this.#stream.columns)
        .map((line) => `${line}\n`)
        .join(""),
    );
  }
}

/** Positions of step, loss, error, rate and ETA in the order in which they are left out where the line is too narrow. */
const DISPENSABLE = [3, 2, 4, 1];
const SHORTEST_BAR = 5;

/** A bar and the parts, on at most `width` columns: with less room first the bar goes, then one part after the other. */
export function progressLine(parts: readonly string[], fraction: number, width: number): string {
  const text = parts.join("  ");
  const bar = Math.min(30, width - text.length - 3);
  if (bar >= SHORTEST_BAR) return `[${"#".repeat(Math.round(fraction * bar)).padEnd(bar, ".")}] ${text}`;
  for (let dropped = 0; dropped <= DISPENSABLE.length; ++dropped) {
    const left = parts.filter((_, i) => !DISPENSABLE.slice(0, dropped).includes(i)).join("  ");
    if (left.length <= width) return left;
  }
  return parts[0]!.slice(0, Math.max(0, width));
}

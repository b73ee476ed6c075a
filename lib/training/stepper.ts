/**
 * Runs a run's steps one after the other. Short ones are started ahead: the next waits at the device while the present one runs, so
 * that what happens between two steps (events, metrics.jsonl) holds up no device.
 */
import type { BrokenImage } from "../data/dataset.js";
import type { StepBatch, StepResult, StepSettings, TrainingStep } from "../network/training-step.js";
import { learningRateAt } from "../schedules/index.js";
import type { Fed, Feed } from "./feed.js";
import type { Settings } from "./options.js";

/** Milliseconds of a step from which on there is little to gain, and an abort would have to wait for the step that was started ahead. */
const LONG = 50;

export interface StepDone extends StepResult {
  readonly learningRate: number;
  readonly broken: readonly BrokenImage[];
  /** Of the step alone, and of waiting for its images. */
  readonly milliseconds: number;
}

export class Stepper {
  /** Images of the next step to be started. */
  #fed: Promise<Fed>;
  /** The step that was started ahead; it resolves once it has its images and runs. */
  #ahead: Promise<{ done: Promise<StepDone> }> | undefined;
  /** When the last step ended, and how long it took. */
  #end = 0;
  #milliseconds = Infinity;

  /** @param next counted from 0 @param steps of the whole run @param now milliseconds from any origin, for tests */
  constructor(
    private readonly training: TrainingStep,
    private readonly settings: Settings,
    private readonly feed: Feed,
    private next: number,
    private readonly steps: number,
    private readonly now: () => number = () => performance.now(),
  ) {
    this.#fed = this.#feedNext();
  }

  /** Whether the next step has been started: it changes the parameters then, whether it is waited for or not. */
  get isAhead(): boolean {
    return this.#ahead !== undefined;
  }

  /** One step. @param thenAnother whether nothing comes between it and the next one */
  async step(thenAnother: boolean): Promise<StepDone> {
    const { done } = await (this.#ahead ?? this.#start());
    this.#ahead = thenAnother && this.#milliseconds < LONG ? this.#start() : undefined;
    // Whoever waits for it meets the error.
    this.#ahead?.catch(() => {});
    return done;
  }

  async #start(): Promise<{ done: Promise<StepDone> }> {
    const start = this.now();
    const { batch, broken } = await this.#fed;
    const { optimizer, schedule, seed } = this.settings;
    const { type: _, ...settings } = optimizer;
    const step = this.next++;
    const learningRate = learningRateAt(schedule, optimizer.learningRate, step, this.steps);
    const running = this.training.run({ ...settings, seed, learningRate, step, ...batch } as StepSettings & StepBatch);
    // Chosen, or made, while the step runs on its own thread.
    this.#fed = this.#feedNext();
    const done = running.then((result) => {
      const end = this.now();
      this.#milliseconds = end - Math.max(start, this.#end);
      this.#end = end;
      return { ...result, learningRate, broken, milliseconds: this.#milliseconds };
    });
    done.catch(() => {});
    return { done };
  }

  #feedNext(): Promise<Fed> {
    const fed = this.feed.next();
    fed.catch(() => {});
    return fed;
  }
}

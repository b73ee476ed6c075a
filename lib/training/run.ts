/** The object trainRevNet returns: a promise of the result, and an async iterable of what happens on the way. */
import { RevNetError } from "../errors.js";
import type { Network } from "../network/network.js";
import { EventChannel } from "./channel.js";
import type { EpochEvent, StepEvent, TrainingEvent, ValidationEvent, VerificationEvent } from "./events.js";
import type { Summary } from "./summary.js";

export function throwIfAborted(signal: AbortSignal | undefined, steps: number): void {
  if (signal?.aborted) throw new RevNetError("ERR_ABORTED", `training was aborted after ${steps} steps`, { cause: signal.reason });
}

/** Every step, epoch, validation and verification of a run, in order; of a resumed run, those before that the last 8 MiB of metrics.jsonl hold as well. */
export interface History {
  steps: StepEvent[];
  epochs: EpochEvent[];
  validations: ValidationEvent[];
  verifications: VerificationEvent[];
}

export interface TrainingResult {
  /** The trained network; the caller disposes of it. */
  network: Network;
  history: History;
  summary: Summary;
  /** Why files of `outDir` could not be written in the end, such as a full disk; what they would hold is in the other fields. */
  fileError?: RevNetError;
}

/**
 * A run in progress. `await run` gives the result or throws the RevNetError that ended it. `for await (const event of run)` gives
 * the events from then on; training waits for a loop that falls far behind, and leaving the loop lets training go on (abort it
 * with the `signal` option). Iterating is optional, and any number of loops may run side by side.
 */
export class TrainingRun implements Promise<TrainingResult>, AsyncIterable<TrainingEvent> {
  readonly [Symbol.toStringTag] = "TrainingRun";
  readonly #events = new EventChannel<TrainingEvent>();
  readonly #result: Promise<TrainingResult>;

  /** @internal `train` sends the run's events and returns its result; it starts after the caller had time to iterate. */
  constructor(train: (events: EventChannel<TrainingEvent>) => Promise<TrainingResult>) {
    this.#result = Promise.resolve()
      .then(() => train(this.#events))
      .then(
        (result) => {
          this.#events.end();
          return result;
        },
        (error: unknown) => {
          this.#events.end({ error });
          throw error;
        },
      );
  }

  // biome-ignore lint/suspicious/noThenProperty: a run is awaited like a promise
  then<A = TrainingResult, B = never>(
    fulfilled?: ((result: TrainingResult) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#result.then(fulfilled, rejected);
  }

  catch<B = never>(rejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<TrainingResult | B> {
    return this.#result.catch(rejected);
  }

  finally(settled?: (() => void) | null): Promise<TrainingResult> {
    return this.#result.finally(settled);
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<TrainingEvent> {
    // A failure reaches the loop; without this it would also count as an unhandled rejection when nobody awaits the run.
    this.#result.catch(() => {});
    return this.#events.iterate();
  }
}

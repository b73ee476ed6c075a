/** What a run has told so far, and the ways of each record: into the history, metrics.jsonl, the live page and the events. */
import type { BrokenImage } from "../data/dataset.js";
import type { Evaluation } from "../network/inference.js";
import { rangeWarning } from "./divergence.js";
import type { TrainingEvent } from "./events.js";
import type { Keeper } from "./keeper.js";
import type { Live } from "./live.js";
import type { MetricsRecord } from "./metrics.js";
import type { History } from "./run.js";

export type Send = (event: TrainingEvent) => Promise<void>;

export class Journal {
  readonly history: History = { steps: [], epochs: [], validations: [], verifications: [] };
  /** Stream elements that left their range, over all steps. */
  outOfRange = 0;
  readonly #broken = new Map<string, BrokenImage>();
  #keeper: Keeper | undefined;
  #live: Live | undefined;
  #rangeTold = false;

  constructor(readonly send: Send) {}

  /** Images that could not be decoded, in the order in which the run met them. */
  get brokenImages(): BrokenImage[] {
    return [...this.#broken.values()];
  }

  /** From now on, records are kept there as well. @param records those that are there already */
  keepIn(keeper: Keeper, records: readonly MetricsRecord[]): void {
    this.#keeper = keeper;
    for (const record of records) this.#remember(record);
  }

  /** From now on, the page shows each record; and those before, as of step `done`. */
  showOn(live: Live, done: number): void {
    this.#live = live;
    const { steps, validations, verifications } = this.history;
    for (const record of [...steps, ...validations, ...verifications]) live.take(record);
    if (this.outOfRange > 0) live.take({ type: "outOfRange", step: done, count: this.outOfRange });
    for (const image of this.brokenImages) live.take({ type: "brokenImage", step: done, ...image });
  }

  async report(record: MetricsRecord): Promise<void> {
    this.#remember(record);
    this.#live?.take(record);
    await this.#keeper?.log(record);
    await this.send(record);
  }

  /** Those that the run has not met before. */
  async reportBroken(step: number, images: readonly BrokenImage[]): Promise<void> {
    for (const image of images) if (!this.#broken.has(image.file)) await this.report({ type: "brokenImage", step, ...image });
  }

  /** What a validation or test met: images as reportBroken; values out of range, the first time. */
  async reportMet(step: number, { broken, outOfRange }: Pick<Evaluation, "broken" | "outOfRange">): Promise<void> {
    await this.reportBroken(step, broken);
    if (outOfRange === 0 || this.#rangeTold) return;
    this.#rangeTold = true;
    await this.send(rangeWarning(step, outOfRange));
  }

  #remember(record: MetricsRecord): void {
    switch (record.type) {
      case "step":
        this.history.steps.push(record);
        break;
      case "epoch":
        this.history.epochs.push(record);
        break;
      case "validation":
        this.history.validations.push(record);
        break;
      case "verification":
        this.history.verifications.push(record);
        break;
      case "outOfRange":
        this.outOfRange += record.count;
        break;
      case "brokenImage":
        this.#broken.set(record.file, { file: record.file, reason: record.reason });
        break;
    }
  }
}

/** Precise batch norm in a run: when, and from which batches. */
import type { MemoryReport } from "../../binding.js";
import type { AnyDataset } from "../data/dataset.js";
import type { StatisticsEstimation } from "../network/statistics.js";
import type { StepImages } from "../network/training-step.js";
import type { Batches } from "./batches.js";
import { feedOf } from "./feed.js";
import type { Journal } from "./journal.js";
import type { Settings } from "./options.js";
import { throwIfAborted } from "./run.js";

/** Images that are enough: a channel's statistics are over all their pixels. */
const IMAGES = 2048;

export class PreciseStatistics {
  constructor(
    private readonly estimation: StatisticsEstimation,
    private readonly settings: Settings,
    private readonly dataset: AnyDataset,
    private readonly of: Batches,
    private readonly journal: Journal,
  ) {}

  /** How many: the first ones that the run trained on, always, so that what is estimated is a function of the weights alone. */
  get batches(): number {
    return Math.min(Math.ceil(IMAGES / this.settings.batchSize), this.of.stepsPerEpoch);
  }

  /** Bytes that the session will hold once it has run. */
  planned(): MemoryReport {
    return this.estimation.planned();
  }

  /** @param step of those done, the last */
  async estimate(step: number): Promise<void> {
    const count = await this.estimation.run(this.#images(step));
    if (count > 0) await this.journal.report({ type: "outOfRange", step, count });
  }

  async *#images(done: number): AsyncGenerator<StepImages> {
    const { seed, signal } = this.settings;
    const feed = feedOf(this.dataset.train, this.of, this.settings, [0, this.batches]);
    try {
      for (let step = 0; step < this.batches; ++step) {
        throwIfAborted(signal, done);
        const { batch, broken } = await feed.next();
        await this.journal.reportBroken(done, broken);
        yield { seed, step, ...batch };
      }
    } finally {
      await feed.close();
    }
  }
}

/** Steps of a run that goes on, in a bounded number of rows whatever its length: each is the mean of as many steps. */
import type { StepRow } from "./run-files.js";

export class ThinnedSteps {
  #rows: StepRow[] = [];
  /** Steps in each row. */
  #each = 1;
  /** Fewer than that, yet to become a row. */
  #rest: StepRow[] = [];

  /** @param most rows, an even number; at least half as many once there were so many steps */
  constructor(private readonly most: number) {}

  push(step: StepRow): void {
    this.#rest.push(step);
    if (this.#rest.length < this.#each) return;
    this.#rows.push(meanOf(this.#rest));
    this.#rest = [];
    if (this.#rows.length < this.most) return;
    this.#rows = Array.from({ length: this.most / 2 }, (_, i) => meanOf(this.#rows.slice(2 * i, 2 * i + 2)));
    this.#each *= 2;
  }

  /** And how many steps each of them stands for; the last one may stand for fewer. */
  get rows(): { steps: StepRow[]; stepsEach: number } {
    const last = this.#rest.length > 0 ? [meanOf(this.#rest)] : [];
    return { steps: [...this.#rows, ...last], stepsEach: this.#each };
  }
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Of steps that follow one another: their means, with the last one's number and learning rate. A loss of null counts for nothing. */
export function meanOf(steps: readonly StepRow[]): StepRow {
  const { step, learningRate } = steps.at(-1)!;
  const losses = steps.map(({ loss }) => loss).filter((loss) => loss !== null);
  return {
    step,
    loss: losses.length > 0 ? mean(losses) : null,
    error: mean(steps.map(({ error }) => error)),
    learningRate,
    milliseconds: mean(steps.map(({ milliseconds }) => milliseconds)),
  };
}

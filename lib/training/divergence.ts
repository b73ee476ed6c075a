/** What ends a run that has diverged: values that are not finite, and streams that keep leaving the range of fixed point. */
import { logarithm } from "../elementary.js";
import type { NotFinite } from "../network/program.js";
import { shortNumber } from "../text.js";
import type { WarningEvent } from "./events.js";
import type { StepDone } from "./stepper.js";

/**
 * A value out of range wraps around, and the step's gradients are wrong from there on. A few such values in a step do little harm, and a
 * run may come back from them; it does not where they are more than a share of all that the streams hold, or come step after step.
 */
export const MOST_OUT_OF_RANGE = { share: 1e-3, stepsInARow: 10 };

/** Of a validation or test: its result is right, but the network's training is at the edge of what it can. */
export const rangeWarning = (step: number, count: number): WarningEvent => ({
  type: "warning",
  step,
  code: "REVNET_OUT_OF_RANGE",
  message: `${shortNumber(count)} values left the range of the fixed-point streams, +-512, as images were classified; those batches were computed again on float32 streams, so the result is right`,
});

/** So many times the loss of guessing is no network that has yet to learn, but one that diverged. */
const CHANCE_FACTOR = 2;

/** Of a run that ends with everything finite and a loss that guessing would beat by far. @param loss mean of the last epoch */
export function chanceWarning(step: number, loss: number, classes: number): WarningEvent | undefined {
  const chance = logarithm(classes);
  if (loss <= CHANCE_FACTOR * chance) return undefined;
  const message = `the training loss is ${shortNumber(loss)} at the end, where guessing gives ${shortNumber(chance)}: the run has diverged, and its network is of no use; try a lower learning rate`;
  return { type: "warning", step, code: "REVNET_ABOVE_CHANCE", message };
}

/** Why a run cannot go on. */
export interface Divergence {
  readonly code: "ERR_NOT_FINITE" | "ERR_OUT_OF_RANGE";
  readonly message: string;
}

export class DivergenceWatch {
  #stepsOutOfRange = 0;

  /**
   * @param streamElements values that the streams of a step hold, all blocks' together
   * @param learningRate of the optimizer, which the schedule multiplies
   */
  constructor(
    private readonly streamElements: number,
    private readonly learningRate: number,
  ) {}

  /**
   * What is wrong after this step; undefined: nothing that ends a run.
   * @param culprit names a parameter or running statistic that is not finite, as the device has them now
   */
  async check(step: number, done: StepDone, culprit: () => Promise<string | undefined>): Promise<Divergence | undefined> {
    const { loss, notFinite, outOfRange } = done;
    this.#stepsOutOfRange = outOfRange > 0 ? this.#stepsOutOfRange + 1 : 0;
    if (notFinite.includes("images"))
      return {
        code: "ERR_NOT_FINITE",
        message: `the images of step ${step} are NaN, infinite or beyond 2^64 once they are normalised: check the data's mean and scale`,
      };
    if (!Number.isFinite(loss) || notFinite.length > 0) {
      const facts = [...(Number.isFinite(loss) ? [] : [`its loss is ${loss}`]), await this.#named(notFinite, culprit)];
      return {
        code: "ERR_NOT_FINITE",
        message: `step ${step} diverged: ${facts.filter(Boolean).join(", ")}; ${this.#advice(done)}`,
      };
    }
    const share = outOfRange / this.streamElements;
    const far = share > MOST_OUT_OF_RANGE.share;
    if (!far && this.#stepsOutOfRange < MOST_OUT_OF_RANGE.stepsInARow) return undefined;
    const [count, all] = [outOfRange, this.streamElements].map(shortNumber);
    const which = far ? `step ${step}` : `step ${step}, as some did in each of the last ${this.#stepsOutOfRange} steps`;
    return {
      code: "ERR_OUT_OF_RANGE",
      message: `${count} of ${all} values left the range of the fixed-point streams, +-512, in ${which}: gradients are wrong then; ${this.#advice(done)}, or streams of type float32`,
    };
  }

  async #named(notFinite: readonly NotFinite[], culprit: () => Promise<string | undefined>): Promise<string> {
    return (await culprit()) ?? notFinite.map((what) => `its ${what} are NaN, infinite or beyond 2^64`).join(", ");
  }

  #advice({ learningRate }: StepDone): string {
    const lower = shortNumber(Number((this.learningRate / 10).toPrecision(1)));
    return `try a learning rate of ${lower} instead of ${shortNumber(this.learningRate)}${
      learningRate === this.learningRate ? "" : ` (it was ${shortNumber(learningRate)} in this step)`
    }`;
  }
}

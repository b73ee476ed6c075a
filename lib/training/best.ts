/** The best validation of a run so far, and how long ago it was: for best.safetensors, and for `patience`. */
import type { Network } from "../network/network.js";
import type { Best, Progress } from "./checkpoint.js";
import type { ValidationEvent } from "./events.js";

type Quality = Pick<ValidationEvent, "loss" | "error">;

export class BestSoFar {
  best: Best | null = null;
  /** Its parameters, where they are to be gone back to; not after a resume. */
  parameters: Network["parameters"] | undefined;
  #since = 0;
  /** Step of the last validation. */
  #validated = 0;

  /** What of it a checkpoint holds. */
  get progress(): Pick<Progress, "best" | "sinceBest" | "validated"> {
    return { best: this.best, sinceBest: this.#since, validated: this.#validated };
  }

  restore({ best, sinceBest, validated }: Progress): void {
    this.best = best;
    [this.#since, this.#validated] = [sinceBest, validated];
  }

  /** How many validations have passed without a better one. */
  get since(): number {
    return this.#since;
  }

  /** A lower error, and among equal ones a lower loss. */
  isBeatenBy({ loss, error }: Quality): boolean {
    if (!Number.isFinite(loss)) return false;
    return this.best === null || error < this.best.error || (error === this.best.error && loss < this.best.loss);
  }

  /** Whether the validation is the best one; again the same one, which a run makes where metrics.jsonl was lost, is not. */
  take(step: number, { loss, error }: Quality): boolean {
    if (step === this.#validated) return false;
    this.#validated = step;
    const better = this.isBeatenBy({ loss, error });
    if (better) this.best = { step, loss, error };
    this.#since = better ? 0 : this.#since + 1;
    return better;
  }
}

/** How a network is meant to be trained: the part of a model's JSON that the trainer's defaults come from. */
import { RevNetError } from "../errors.js";
import { checkOptimizer, type OptimizerRecipe } from "../optimizers/index.js";
import { checkSchedule, type ScheduleRecipe } from "../schedules/index.js";
import { checkBoolean, checkInteger, checkKeys, checkNumber } from "../validation.js";

/** Training images are zero-padded on each side, cropped back at random, and mirrored with probability 1/2. */
export interface AugmentRecipe {
  /** Pixels on each side. */
  readonly padding: number;
  /** Whether images are mirrored. */
  readonly flip: boolean;
  /**
   * Of image files only: training takes a random part of each, at least this share of its area, and resizes it; absent or 0: the
   * middle.
   */
  readonly resizedCrop?: number;
}

/** How a network is meant to be trained: what options that are not given come from. */
export interface Recipe {
  /** Images of a step. */
  readonly batchSize: number;
  readonly steps: number;
  readonly optimizer: OptimizerRecipe;
  readonly schedule: ScheduleRecipe;
  readonly augment: AugmentRecipe;
}

const CODE = "ERR_INVALID_SPEC";
const KEYS = ["batchSize", "steps", "optimizer", "schedule", "augment"] as const;
export const MAX_BATCH = 65536;

/** @throws RevNetError ERR_INVALID_SPEC, or `code` where the same shape comes as an option. */
export function checkRecipe(value: unknown, what: string, code = CODE): Recipe {
  checkKeys(value, KEYS, what, code);
  for (const key of KEYS) if (value[key] === undefined) throw new RevNetError(code, `${what}: '${key}' is missing`);
  return {
    batchSize: checkInteger(value.batchSize, 1, MAX_BATCH, `${what}.batchSize`, code),
    steps: checkInteger(value.steps, 1, Number.MAX_SAFE_INTEGER, `${what}.steps`, code),
    optimizer: asGiven(value.optimizer, `${what}.optimizer`, code),
    schedule: checkSchedule(value.schedule, `${what}.schedule`, code),
    augment: checkAugment(value.augment, `${what}.augment`, code),
  };
}

/** What was checked, without defaults: a model prints as it was written. */
function asGiven(value: unknown, what: string, code: string): OptimizerRecipe {
  checkOptimizer(value, what, code);
  return { ...(value as OptimizerRecipe) };
}

export function checkAugment(value: unknown, what: string, code = CODE): AugmentRecipe {
  checkKeys(value, ["padding", "flip", "resizedCrop"], what, code);
  const { resizedCrop } = value;
  return {
    padding: checkInteger(value.padding, 0, 1024, `${what}.padding`, code),
    flip: checkBoolean(value.flip, `${what}.flip`, code),
    ...(resizedCrop !== undefined && { resizedCrop: checkNumber(resizedCrop, 0, 1, `${what}.resizedCrop`, code) }),
  };
}

/** How a network is meant to be trained: the part of a model's JSON that the trainer's defaults come from. */
import { RevNetError } from "../errors.js";
import { checkSchedule, type ScheduleRecipe } from "../schedules/index.js";
import { checkBoolean, checkInteger, checkKeys, checkNumber } from "../validation.js";

/** SGD: v = momentum v + (g + weightDecay w); w -= learningRate v. Weight decay is for conv and linear weights only. */
export interface OptimizerRecipe {
  /** At the start of the schedule. */
  readonly learningRate: number;
  /** In [0, 1). */
  readonly momentum: number;
  readonly weightDecay: number;
}

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
    optimizer: checkOptimizer(value.optimizer, `${what}.optimizer`, code),
    schedule: checkSchedule(value.schedule, `${what}.schedule`, code),
    augment: checkAugment(value.augment, `${what}.augment`, code),
  };
}

export function checkOptimizer(value: unknown, what: string, code = CODE): OptimizerRecipe {
  checkKeys(value, ["learningRate", "momentum", "weightDecay"], what, code);
  return {
    learningRate: checkNumber(value.learningRate, 0, 1e6, `${what}.learningRate`, code),
    momentum: checkNumber(value.momentum, 0, 1, `${what}.momentum`, code),
    weightDecay: checkNumber(value.weightDecay, 0, 1e6, `${what}.weightDecay`, code),
  };
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

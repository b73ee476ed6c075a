/** How a network is meant to be trained: the part of a model's JSON that the trainer's defaults come from. */
import { RevNetError } from "../errors.js";
import { checkBoolean, checkChoice, checkInteger, checkKeys, checkNumber, describe } from "../validation.js";

/** SGD: v = momentum v + (g + weightDecay w); w -= learningRate v. Weight decay is for conv and linear weights only. */
export interface OptimizerRecipe {
  /** At the start of the schedule. */
  readonly learningRate: number;
  /** In [0, 1). */
  readonly momentum: number;
  readonly weightDecay: number;
}

/** The learning rate over a run; positions are fractions of all steps, so that a shorter run keeps the shape. */
export type ScheduleRecipe =
  | { readonly type: "constant" }
  /** Half a cosine from the learning rate down to 0. */
  | { readonly type: "cosine" }
  /** Multiplied by `gamma` from each milestone on. */
  | { readonly type: "step"; readonly milestones: readonly number[]; readonly gamma: number };

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

export function checkSchedule(value: unknown, what: string, code = CODE): ScheduleRecipe {
  checkKeys(value, ["type", "milestones", "gamma"], what, code);
  const type = checkChoice(value.type, ["constant", "cosine", "step"], `${what}.type`, code);
  if (type !== "step") {
    checkKeys(value, ["type"], `${what} (${type})`, code);
    return { type };
  }
  const { milestones } = value;
  if (!Array.isArray(milestones) || milestones.length > 1000)
    throw new RevNetError(code, `${what}.milestones: expected an array of fractions of the run, got ${describe(milestones)}`);
  const fractions = Array.from(milestones, (entry: unknown, i) => checkNumber(entry, 0, 1, `${what}.milestones[${i}]`, code));
  for (let i = 1; i < fractions.length; ++i)
    if (fractions[i]! < fractions[i - 1]!)
      throw new RevNetError(code, `${what}.milestones: expected ascending fractions of the run`);
  return { type, milestones: fractions, gamma: checkNumber(value.gamma, 0, 1, `${what}.gamma`, code) };
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

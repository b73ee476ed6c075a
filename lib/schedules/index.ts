/** Learning-rate schedules, one file each: pure functions of the step, so that any step can be run again. */

import { number } from "../kinds.js";
import { checkChoice, checkKeys } from "../validation.js";
import { constant } from "./constant.js";
import { cosine } from "./cosine.js";
import type { ScheduleKind } from "./kind.js";
import { oneCycle } from "./one-cycle.js";
import { step } from "./step.js";

/** What all schedules have but "one-cycle", which rises by itself. */
export interface Warmup {
  /** Linear warm-up: the share of the run in which the rate rises from 0 to what the schedule says; default 0. */
  readonly warmup?: number;
}
/** The learning rate over a run; positions are fractions of all steps, so that a shorter run keeps the shape. */
export type ScheduleRecipe =
  | ({ readonly type: "constant" } & Warmup)
  /** Half a cosine from the learning rate down to 0. */
  | ({ readonly type: "cosine" } & Warmup)
  /** Multiplied by `gamma` from each milestone on. */
  | ({ readonly type: "step"; readonly milestones: readonly number[]; readonly gamma: number } & Warmup)
  /**
   * Up by half a cosine from a `divFactor`-th (default 25) of the learning rate to the whole, which is reached at `peak` (default 0.3), and
   * down by another to a `finalDivFactor`-th (default 10,000) of what it began with.
   */
  | { readonly type: "one-cycle"; readonly peak: number; readonly divFactor: number; readonly finalDivFactor: number };
export type Schedule = ScheduleRecipe;
export type ScheduleName = Schedule["type"];

/** Every schedule there is, by its name. */
const SCHEDULES: { readonly [N in ScheduleName]: ScheduleKind<N> } = {
  step,
  constant,
  cosine,
  "one-cycle": oneCycle,
};
export const SCHEDULE_NAMES = Object.keys(SCHEDULES) as ScheduleName[];

const kindOf = (type: ScheduleName) => SCHEDULES[type] as ScheduleKind<ScheduleName>;
const WARMUP = number(0, 1);
const ALL_KEYS = ["type", "warmup", ...new Set(SCHEDULE_NAMES.flatMap((name) => SCHEDULES[name].keys as readonly string[]))];

/** @throws RevNetError `code` naming the setting, what it was and what was expected */
export function checkSchedule(value: unknown, what: string, code: string): Schedule {
  // Before the type: who has mistyped "type" is told so.
  checkKeys(value, ALL_KEYS, what, code);
  const type = checkChoice(value.type, SCHEDULE_NAMES, `${what}.type`, code);
  const kind = kindOf(type);
  checkKeys(value, ["type", ...kind.keys, ...(kind.rises ? [] : ["warmup"])], `${what} (${type})`, code);
  const { warmup } = value;
  return {
    ...kind.check(value, what, code),
    ...(warmup !== undefined && { warmup: WARMUP.check(warmup, `${what}.warmup`, code) }),
  };
}

/** A schedule or the name of one, or a warm-up for the recipe's; settings that are not given are the defaults. */
export function resolveSchedule(value: unknown, code: string, recipe: Schedule = constant.defaults): Schedule {
  if (typeof value === "string") return kindOf(checkChoice(value, SCHEDULE_NAMES, "schedule", code)).defaults;
  checkKeys(value, ALL_KEYS, "schedule", code);
  const { type, ...settings } = value;
  const base = type === undefined ? recipe : kindOf(checkChoice(type, SCHEDULE_NAMES, "schedule.type", code)).defaults;
  return checkSchedule({ ...base, ...settings }, "schedule", code);
}

/** The learning rate of `step` (from 0) in a run of `steps`, from the base rate `base`. */
export function learningRateAt(schedule: Schedule, base: number, step: number, steps: number): number {
  const { warmup = 0 } = schedule as Warmup;
  const rise = warmup > 0 ? Math.min(1, (step + 1) / (warmup * steps)) : 1;
  return rise * kindOf(schedule.type).rate(schedule, base, step / steps);
}

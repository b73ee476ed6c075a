/** Learning-rate schedules, one file each: pure functions of the step, so that any step can be run again. */
import { checkChoice, checkKeys } from "../validation.js";
import { constant } from "./constant.js";
import { cosine } from "./cosine.js";
import type { ScheduleKind } from "./kind.js";
import { step } from "./step.js";

/** The learning rate over a run; positions are fractions of all steps, so that a shorter run keeps the shape. */
export type ScheduleRecipe =
  | { readonly type: "constant" }
  /** Half a cosine from the learning rate down to 0. */
  | { readonly type: "cosine" }
  /** Multiplied by `gamma` from each milestone on. */
  | { readonly type: "step"; readonly milestones: readonly number[]; readonly gamma: number };
export type Schedule = ScheduleRecipe;
export type ScheduleName = Schedule["type"];

/** Every schedule there is, by its name. */
const SCHEDULES: { readonly [N in ScheduleName]: ScheduleKind<N> } = { step, constant, cosine };
export const SCHEDULE_NAMES = Object.keys(SCHEDULES) as ScheduleName[];

const kindOf = (type: ScheduleName) => SCHEDULES[type] as ScheduleKind<ScheduleName>;
const ALL_KEYS = ["type", ...new Set(SCHEDULE_NAMES.flatMap((name) => SCHEDULES[name].keys as readonly string[]))];

/** @throws RevNetError `code` naming the setting, what it was and what was expected */
export function checkSchedule(value: unknown, what: string, code: string): Schedule {
  // Before the type: who has mistyped "type" is told so.
  checkKeys(value, ALL_KEYS, what, code);
  const type = checkChoice(value.type, SCHEDULE_NAMES, `${what}.type`, code);
  const kind = kindOf(type);
  checkKeys(value, ["type", ...kind.keys], `${what} (${type})`, code);
  return kind.check(value, what, code);
}

/** A schedule, or the name of one. */
export function resolveSchedule(value: unknown, code: string): Schedule {
  if (typeof value !== "string") return checkSchedule(value, "schedule", code);
  return kindOf(checkChoice(value, SCHEDULE_NAMES, "schedule", code)).defaults;
}

/** The learning rate of `step` (from 0) in a run of `steps`, from the base rate `base`. */
export function learningRateAt(schedule: Schedule, base: number, step: number, steps: number): number {
  return kindOf(schedule.type).rate(schedule, base, step / steps);
}

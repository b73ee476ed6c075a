/** Learning-rate schedules: a pure function of the step, so that any step can be run again. */
import { cosine } from "../elementary.js";
import { checkSchedule, type ScheduleRecipe } from "../network/recipe.js";
import { checkChoice } from "../validation.js";

export type Schedule = ScheduleRecipe;
export type ScheduleName = Schedule["type"];

/** A schedule, or the name of one: "step" alone stands for the paper's drops to a tenth at 50 % and 75 % of the steps. */
export function resolveSchedule(value: unknown, code: string): Schedule {
  if (typeof value !== "string") return checkSchedule(value, "schedule", code);
  const type = checkChoice(value, ["step", "constant", "cosine"], "schedule", code);
  return type === "step" ? { type, milestones: [0.5, 0.75], gamma: 0.1 } : { type };
}

/**
 * The learning rate of `step` (from 0) in a run of `steps`, from the base rate `base`. The cosine is that of Loshchilov and
 * Hutter, "SGDR" (ICLR 2017), without restarts.
 */
export function learningRateAt(schedule: Schedule, base: number, step: number, steps: number): number {
  const progress = step / steps;
  switch (schedule.type) {
    case "constant":
      return base;
    case "cosine":
      return (base * (1 + cosine(Math.PI * progress))) / 2;
    case "step":
      return schedule.milestones.reduce((rate, milestone) => (progress >= milestone ? rate * schedule.gamma : rate), base);
  }
}

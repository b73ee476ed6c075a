import { RevNetError } from "../errors.js";
import { checkNumber, describe } from "../validation.js";
import type { ScheduleKind } from "./kind.js";

export const step: ScheduleKind<"step"> = {
  keys: ["milestones", "gamma"],
  // The paper's drops to a tenth.
  defaults: { type: "step", milestones: [0.5, 0.75], gamma: 0.1 },
  check({ milestones, gamma }, what, code) {
    if (!Array.isArray(milestones) || milestones.length > 1000)
      throw new RevNetError(code, `${what}.milestones: expected an array of fractions of the run, got ${describe(milestones)}`);
    const fractions = Array.from(milestones, (entry: unknown, i) => checkNumber(entry, 0, 1, `${what}.milestones[${i}]`, code));
    for (let i = 1; i < fractions.length; ++i)
      if (fractions[i]! < fractions[i - 1]!)
        throw new RevNetError(code, `${what}.milestones: expected ascending fractions of the run`);
    return { type: "step", milestones: fractions, gamma: checkNumber(gamma, 0, 1, `${what}.gamma`, code) };
  },
  rate: ({ milestones, gamma }, base, progress) =>
    milestones.reduce((rate, milestone) => (progress >= milestone ? rate * gamma : rate), base),
};

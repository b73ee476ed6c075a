import { cosine as cos } from "../elementary.js";
import { checkNumber } from "../validation.js";
import type { ScheduleKind } from "./kind.js";

/** From one rate to another by half a cosine, `share` of the way. */
const anneal = (from: number, to: number, share: number) => to + ((from - to) * (1 + cos(Math.PI * share))) / 2;

/** Smith and Topin, "Super-Convergence" (2018), with PyTorch's defaults; momentum stays. */
export const oneCycle: ScheduleKind<"one-cycle"> = {
  keys: ["peak", "divFactor", "finalDivFactor"],
  defaults: { type: "one-cycle", peak: 0.3, divFactor: 25, finalDivFactor: 1e4 },
  rises: true,
  check: ({ peak, divFactor, finalDivFactor }, what, code) => ({
    type: "one-cycle",
    peak: checkNumber(peak, 0, 1, `${what}.peak`, code),
    divFactor: checkNumber(divFactor, 1, 1e12, `${what}.divFactor`, code),
    finalDivFactor: checkNumber(finalDivFactor, 1, 1e12, `${what}.finalDivFactor`, code),
  }),
  rate({ peak, divFactor, finalDivFactor }, base, progress) {
    const first = base / divFactor;
    if (progress < peak) return anneal(first, base, progress / peak);
    return anneal(base, first / finalDivFactor, peak < 1 ? (progress - peak) / (1 - peak) : 0);
  },
};

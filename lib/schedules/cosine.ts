import { cosine as cos } from "../elementary.js";
import type { ScheduleKind } from "./kind.js";

/** Loshchilov and Hutter, "SGDR" (ICLR 2017), without restarts. */
export const cosine: ScheduleKind<"cosine"> = {
  keys: [],
  defaults: { type: "cosine" },
  check: () => ({ type: "cosine" }),
  rate: (_, base, progress) => (base * (1 + cos(Math.PI * progress))) / 2,
};

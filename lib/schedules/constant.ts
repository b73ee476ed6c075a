import type { ScheduleKind } from "./kind.js";

export const constant: ScheduleKind<"constant"> = {
  keys: [],
  defaults: { type: "constant" },
  check: () => ({ type: "constant" }),
  rate: (_, base) => base,
};

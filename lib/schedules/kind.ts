import type { Schedule, ScheduleName } from "./index.js";

/** What a schedule's file exports, and lib/schedules/index.ts lists. */
export interface ScheduleKind<N extends ScheduleName, S = Extract<Schedule, { type: N }>> {
  /** Its settings besides `type` and `warmup`. */
  readonly keys: readonly (keyof S & string)[];
  /** Whether it begins low by itself, so that no warm-up is taken. */
  readonly rises?: boolean;
  /** What its name alone stands for. */
  readonly defaults: S;
  /**
   * @param value with no other keys than `type`, `keys` and `warmup`
   * @throws RevNetError `code` naming the setting
   */
  check(value: Readonly<Record<string, unknown>>, what: string, code: string): S;
  /** @param progress the share of the run that is done, in [0, 1), so that a shorter run keeps the shape */
  rate(schedule: S, base: number, progress: number): number;
}

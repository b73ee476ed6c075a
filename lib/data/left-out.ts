/** What a folder has beside the images that are used, in few words: how many, why, and the first ones of each reason. */
import type { AnyDataset, LeftOut } from "./dataset.js";

/** What was left out of a folder, by reason. */
export interface LeftOutSummary {
  /** Of all reasons. */
  readonly count: number;
  /** The most frequent first. */
  readonly reasons: readonly {
    readonly reason: string;
    readonly count: number;
    /** The first ones' paths. */
    readonly files: readonly string[];
  }[];
}

/** Files that are named for each reason. */
const SHOWN = 5;
/** Reasons that are told apart; they hold extensions, of which there may be any number. */
const MAX_REASONS = 50;
const OTHERS = "other reasons";

export function summarizeLeftOut(leftOut: readonly LeftOut[]): LeftOutSummary {
  const reasons = new Map<string, { reason: string; count: number; files: string[] }>();
  for (const { file, reason } of leftOut) {
    // One entry for all links to what is there already.
    const kind = reason.replace(/^(the same (file|folder) as) .*/s, "$1 another");
    const key = reasons.has(kind) || reasons.size < MAX_REASONS ? kind : OTHERS;
    const entry = reasons.get(key) ?? { reason: key, count: 0, files: [] };
    entry.count += 1;
    if (entry.files.length < SHOWN) entry.files.push(file);
    reasons.set(key, entry);
  }
  return { count: leftOut.length, reasons: [...reasons.values()].sort((a, b) => b.count - a.count) };
}

export const leftOutOf = (dataset: AnyDataset): LeftOutSummary =>
  summarizeLeftOut("leftOut" in dataset ? (dataset.leftOut ?? []) : []);

/** "3 left out: 2 hidden (DIR/a/.x.png, ...); 1 a named pipe (DIR/a/p.png)" */
export function leftOutLine({ count, reasons }: LeftOutSummary): string {
  const each = reasons.map((entry) => `${entry.count} ${entry.reason} (${entry.files[0]}${entry.count > 1 ? ", ..." : ""})`);
  return `${count} left out of the folder: ${each.join("; ")}`;
}

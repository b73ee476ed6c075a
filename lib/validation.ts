/**
 * Checks of what comes from outside (options, specs, files), and the words of their errors: what was wrong, what was expected.
 * Each takes the error code to throw, since the same mistake in an option and in a model's JSON has different codes.
 */
import { types } from "node:util";
import { RevNetError } from "./errors.js";

/** Levenshtein distance: insertions, deletions and substitutions that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; ++i) {
    const next = [i];
    for (let j = 1; j <= b.length; ++j) {
      const substituted = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** The candidate that `name` most likely stands for, ignoring case, "-", "_" and spaces: a near one, or the only one that begins so. */
export function nearest(name: string, all: Iterable<string>): string | undefined {
  // Nobody mistypes a hundred characters; longer names would only cost time.
  if (name.length > 100) return undefined;
  const plain = (text: string) => text.toLowerCase().replace(/[-_ ]/g, "");
  const letters = plain(name);
  const candidates = [...all];
  let best: string | undefined;
  // Of a name of three letters or fewer, two others make another name.
  let bestDistance = (letters.length > 3 ? Math.max(2, Math.floor(letters.length / 3)) : 1) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(letters, plain(candidate));
    if (distance < bestDistance && distance < candidate.length) [best, bestDistance] = [candidate, distance];
  }
  if (best !== undefined || letters.length < 4) return best;
  const begun = candidates.filter((candidate) => plain(candidate).startsWith(letters));
  return begun.length === 1 ? begun[0] : undefined;
}

/** `unknown model 'revnet38'; did you mean 'revnet-38'?`, or the list of what there is where nothing is near. */
export function unknownMessage(what: string, name: string, candidates: Iterable<string>): string {
  const known = [...candidates];
  const shown = name.length > 100 ? `${name.slice(0, 100)}...` : name;
  const near = nearest(name, known);
  if (near !== undefined) return `unknown ${what} '${shown}'; did you mean '${near}'?`;
  const list = known.length > 40 ? `${known.slice(0, 40).join(", ")}, ...` : known.join(", ");
  return `unknown ${what} '${shown}'; expected ${known.length > 1 ? "one of " : ""}${list || "none"}`;
}

/** A short rendering of any value for an error message. Never throws. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return "a function";
  if (value === null || typeof value !== "object") return String(value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (ArrayBuffer.isView(value)) {
    if (types.isDataView(value)) return "a DataView";
    const gone = isGone(value) ? " whose buffer was transferred away or has shrunk" : "";
    return `${typedArrayName(value)} of ${typedArrayLength(value)}${gone}`;
  }
  return "an object";
}

const article = (name: string) => (/^[AEIOU]/.test(name) && !name.startsWith("Ui") ? `an ${name}` : `a ${name}`);
const typedArrayName = (value: ArrayBufferView) => article(Object.prototype.toString.call(value).slice(8, -1));
/** Whether a typed array has lost its memory: it reads as empty then. */
export function isGone(value: ArrayBufferView): boolean {
  try {
    // All methods refuse such an array.
    Uint8Array.prototype.at.call(value, 0);
    return false;
  } catch {
    return true;
  }
}
const typedArrayLength = (value: ArrayBufferView) => (value as Uint8Array).length;

/**
 * The largest magnitude of a pixel, parameter or statistic: float32 cannot hold the squares of larger ones. The same on every device
 * (native/core/ops.h).
 */
export const LARGEST_VALUE = 2 ** 64;

/** False for NaN too. */
export const isFiniteValue = (value: number): boolean => Math.abs(value) <= LARGEST_VALUE;

/** Whether isFiniteValue is true of all: one pass without a branch, since networks have tens of millions. */
export function areFinite(values: ArrayLike<number>): boolean {
  let wrong = 0;
  for (let i = 0; i < values.length; ++i) wrong += Math.abs(values[i]!) <= LARGEST_VALUE ? 0 : 1;
  return wrong === 0;
}

/** Throws unless `value` is an object (not null, not an array) whose keys, called `kind` in the message, are all among `known`. */
export function checkKeys(
  value: unknown,
  known: readonly string[],
  what: string,
  code: string,
  kind = "key",
): asserts value is Record<string, unknown> {
  if (value === null || typeof value !== "object" || Array.isArray(value) || ArrayBuffer.isView(value))
    throw new RevNetError(code, `${what}: expected an object, got ${describe(value)}`);
  for (const key of Object.keys(value))
    if (!known.includes(key)) throw new RevNetError(code, `${what}: ${unknownMessage(kind, key, known)}`);
}

/** Throws RevNetError ERR_INVALID_ARGUMENT unless `value` is an object with no other keys than `known`. */
export function checkOptions(value: unknown, known: readonly string[], what = "options"): void {
  checkKeys(value, known, what, "ERR_INVALID_ARGUMENT", "option");
}

/** Throws unless `value` is one of `choices`; a string that is nearly one is told so. */
export function checkChoice<T extends string>(value: unknown, choices: readonly T[], what: string, code: string): T {
  if (typeof value === "string" && (choices as readonly string[]).includes(value)) return value as T;
  if (typeof value === "string") throw new RevNetError(code, `${what}: ${unknownMessage("value", value, choices)}`);
  throw new RevNetError(code, `${what}: expected one of ${choices.join(", ")}, got ${describe(value)}`);
}

/** Throws unless `value` is an integer in [low, high]. */
export function checkInteger(value: unknown, low: number, high: number, what: string, code: string): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= low && value <= high) return value;
  throw new RevNetError(code, `${what}: expected an integer from ${low} to ${high}, got ${describe(value)}`);
}

/** Throws unless `value` is a finite number in [low, high]. */
export function checkNumber(value: unknown, low: number, high: number, what: string, code: string): number {
  if (typeof value === "number" && value >= low && value <= high && Number.isFinite(value)) return value;
  const range = high === Infinity ? `of at least ${low}` : `from ${low} to ${high}`;
  throw new RevNetError(code, `${what}: expected a number ${range}, got ${describe(value)}`);
}

export function checkBoolean(value: unknown, what: string, code: string): boolean {
  if (typeof value === "boolean") return value;
  throw new RevNetError(code, `${what}: expected true or false, got ${describe(value)}`);
}

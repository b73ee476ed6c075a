/** Checks that give JSON from a file its type: each takes a value and where it stands, and returns it or throws ERR_INVALID_FILE. */
import { RevNetError } from "../errors.js";
import { describe } from "../validation.js";

export type Check<T> = (value: unknown, where: string) => T;

function refuse(where: string, expected: string, value: unknown): never {
  throw new RevNetError("ERR_INVALID_FILE", `${where}: expected ${expected}, got ${describe(value)}`);
}

export const number: Check<number> = (value, where) => (typeof value === "number" ? value : refuse(where, "a number", value));
export const text: Check<string> = (value, where) => (typeof value === "string" ? value : refuse(where, "a string", value));
export const flag: Check<boolean> = (value, where) => (typeof value === "boolean" ? value : refuse(where, "true or false", value));
export const count: Check<number> = (value, where) =>
  Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : refuse(where, "a count", value);

/** JSON has no NaN and no infinity; they come as null. */
export const nullable =
  <T>(check: Check<T>): Check<T | null> =>
  (value, where) =>
    value === null ? null : check(value, where);

/** A key that older files have not. */
export const optional =
  <T>(check: Check<T>): Check<T | undefined> =>
  (value, where) =>
    value === undefined ? undefined : check(value, where);

export const list =
  <T>(check: Check<T>): Check<T[]> =>
  (value, where) =>
    Array.isArray(value) ? value.map((entry, i) => check(entry, `${where}[${i}]`)) : refuse(where, "an array", value);

/** The named keys, checked; others are left out. */
export const record =
  <T extends object>(keys: { [K in keyof T]: Check<T[K]> }): Check<T> =>
  (value, where) => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return refuse(where, "an object", value);
    const entries = Object.entries(keys) as [string, Check<unknown>][];
    return Object.fromEntries(
      entries.map(([key, check]) => [key, check((value as Record<string, unknown>)[key], `${where}.${key}`)]),
    ) as T;
  };

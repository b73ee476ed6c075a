/** Kinds of values that options and settings take: the check, and the type of the flag, in one. */
import { RevNetError } from "./errors.js";
import { checkBoolean, checkChoice, checkInteger, checkNumber, describe } from "./validation.js";

/** A flag of the command line. */
export interface Flag {
  readonly type: "string" | "integer" | "number" | "boolean";
  readonly help: string;
  /** What stands for the value in the help, such as "DIR". */
  readonly value?: string;
}

/** What a value may be. */
export interface Kind<T> {
  readonly flag: Flag["type"];
  /** Of numbers: the least and the largest. */
  readonly range?: readonly [low: number, high: number];
  /** @throws RevNetError `code` (default ERR_INVALID_ARGUMENT) that begins with `name` */
  check(value: unknown, name: string, code?: string): T;
}

const CODE = "ERR_INVALID_ARGUMENT";

export const integer = (low: number, high: number): Kind<number> => ({
  flag: "integer",
  range: [low, high],
  check: (value, name, code = CODE) => checkInteger(value, low, high, name, code),
});

export const number = (low: number, high: number): Kind<number> => ({
  flag: "number",
  range: [low, high],
  check: (value, name, code = CODE) => checkNumber(value, low, high, name, code),
});

export const choice = <T extends string>(choices: readonly T[]): Kind<T> => ({
  flag: "string",
  check: (value, name, code = CODE) => checkChoice(value, choices, name, code),
});

export const boolean: Kind<boolean> = { flag: "boolean", check: (value, name, code = CODE) => checkBoolean(value, name, code) };

export const text: Kind<string> = {
  flag: "string",
  check(value, name, code = CODE) {
    if (typeof value === "string" && value !== "" && !value.includes("\0")) return value;
    throw new RevNetError(code, `${name}: expected a non-empty string, got ${describe(value)}`);
  },
};

/** A kind of its own. */
export const kind = <T>(check: Kind<T>["check"], flag: Flag["type"] = "string"): Kind<T> => ({ flag, check });

/** What is checked as it becomes the setting. */
export const unchecked = <T>(): Kind<T> => kind((value) => value as T);

/** `--batch-size` is `batchSize`. */
export const kebab = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

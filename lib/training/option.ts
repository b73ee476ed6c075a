/**
 * How an option of training is declared: once, in options.ts. From the declarations follow the checks, the defaults, the flags and their help, what
 * config.json holds, what a run can be resumed with, the type of trainRevNet's argument with its documentation, and what the fuzz test tries.
 */
import { RevNetError } from "../errors.js";
import { type Flag, type Kind, kebab } from "../kinds.js";
import type { Recipe } from "../network/recipe.js";
import type { NetworkSpec } from "../network/spec.js";

export const CODE = "ERR_INVALID_ARGUMENT";

/** What a default or a check may depend on. */
export interface Context {
  /** All options, unchecked. */
  readonly given: Readonly<Record<string, unknown>>;
  /** The model's. */
  readonly recipe: Recipe;
  /** Where relative paths start. */
  readonly cwd: string;
}

/** What an option's part in a run's identity may depend on. */
export interface IdentityContext {
  readonly settings: Readonly<Record<string, unknown>>;
  readonly spec: NetworkSpec;
  /** Of the whole run. */
  readonly steps: number;
}

/** An option that takes a `Given` and becomes a `Setting`. */
export interface Option<Given, Setting> {
  /** Of the value, or undefined where none was given. @throws RevNetError ERR_INVALID_ARGUMENT that begins with `name` */
  resolve(value: Given | undefined, name: string, context: Context): Setting;
  readonly range?: Kind<Given>["range"];
  /** `revnet train`'s flags for it, by their names. */
  flags(name: string): Readonly<Record<string, Flag>>;
  /** The option's value, from those of the flags by their names in camel case; undefined: it was not given. */
  fromFlags(values: Readonly<Record<string, unknown>>, name: string): unknown;
  /** What the bits of a run depend on; undefined: nothing here. */
  identity(setting: Setting, context: IdentityContext): unknown;
  /** Whether config.json holds the setting. */
  readonly inConfig: boolean;
}

interface Declaration<Given, Setting> {
  /** The setting where the option is not given. */
  fallback: (context: Context) => Setting;
  /** The flag of the option's name; or several, and what is made of them. */
  flag?: Omit<Flag, "type">;
  flags?: Readonly<Record<string, Flag>>;
  fromFlags?: (values: Readonly<Record<string, unknown>>) => unknown;
  /** Why the option cannot be given with these others: the message's end. */
  refuse?: (given: Context["given"]) => string | undefined;
  /** true: the bits of a run depend on the setting. A function: what of it, if anything. */
  identity?: boolean | Option<Given, Setting>["identity"];
  /** Default true; false for what concerns this process alone. */
  inConfig?: boolean;
}

/** One flag, of the option's own name. */
export function option<Given, Setting>(
  kind: Kind<Given>,
  declaration: Declaration<Given, Setting> & { becomes: (value: Given, context: Context) => Setting },
): Option<Given, Setting>;
export function option<Given, Fallback>(
  kind: Kind<Given>,
  declaration: Declaration<Given, Given | Fallback>,
): Option<Given, Given | Fallback>;
export function option<Given, Setting>(
  kind: Kind<Given>,
  {
    fallback,
    flag,
    flags,
    fromFlags,
    refuse,
    identity = false,
    inConfig = true,
    becomes = (value) => value as unknown as Setting,
  }: Declaration<Given, Setting> & { becomes?: (value: Given, context: Context) => Setting },
): Option<Given, Setting> {
  return {
    ...(kind.range && { range: kind.range }),
    resolve(value, name, context) {
      if (value === undefined) return fallback(context);
      const refusal = value === false ? undefined : refuse?.(context.given);
      if (refusal !== undefined) throw new RevNetError(CODE, `${name}: ${refusal}`);
      return becomes(kind.check(value, name), context);
    },
    flags: (name) => flags ?? (flag ? { [kebab(name)]: { type: kind.flag, ...flag } } : {}),
    fromFlags: fromFlags ?? ((values, name) => values[name]),
    identity: typeof identity === "function" ? identity : (setting) => (identity ? setting : undefined),
    inConfig,
  };
}

/** Fallbacks of many options. */
export const absent = (): undefined => undefined;

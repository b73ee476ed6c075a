/** Optimizers, one file each: settings, state, hyperparameters and op. Everything else goes by this table. */
import type { Flag } from "../kinds.js";
import { kebab } from "../kinds.js";
import { checkChoice, checkKeys } from "../validation.js";
import { type AdamWRecipe, adamw } from "./adamw.js";
import type { OptimizerKind, Setting } from "./kind.js";
import { type SgdRecipe, sgd } from "./sgd.js";

export type OptimizerName = "sgd" | "adamw";
/** An optimizer and its settings; without a `type` it is SGD. */
export type OptimizerRecipe = SgdRecipe | AdamWRecipe;
/** A setting may be left out where it has a default. */
export type OptimizerSettings = Omit<SgdRecipe, "type"> | Omit<AdamWRecipe, "type">;
/** With every setting. */
export type Optimizer = Readonly<Record<string, number | boolean>> & {
  readonly type: OptimizerName;
  readonly learningRate: number;
};

/** Every optimizer there is, by its name. */
const OPTIMIZERS: Readonly<Record<OptimizerName, object>> = { sgd, adamw };
export const OPTIMIZER_NAMES = Object.keys(OPTIMIZERS) as OptimizerName[];

type AnySettings = Readonly<Record<string, Setting<number | boolean>>>;
export type AnyKind = Omit<OptimizerKind<object>, "settings" | "values"> & {
  readonly settings: AnySettings;
  values(settings: Readonly<Record<string, number | boolean>>, step: number): readonly number[];
};
export const optimizerKind = (type: OptimizerName): AnyKind => OPTIMIZERS[type] as unknown as AnyKind;

const kinds = OPTIMIZER_NAMES.map(optimizerKind);
/** Names of all settings of all optimizers. */
const SETTINGS = [...new Set(kinds.flatMap(({ settings }) => Object.keys(settings)))];
/** Names of all state tensors: in a checkpoint, `NAME.` comes before the parameter's. */
export const STATE_NAMES: readonly string[] = [...new Set(kinds.flatMap(({ state }) => state))];

/** @throws RevNetError `code` naming the setting, what it was and what was expected */
export function checkOptimizer(value: unknown, what: string, code: string): Optimizer {
  // Before the type: who has mistyped "type" is told so.
  checkKeys(value, ["type", ...SETTINGS], what, code);
  const type = checkChoice(value.type ?? "sgd", OPTIMIZER_NAMES, `${what}.type`, code);
  const { type: _, ...settings } = value;
  return { type, ...checkSettings(type, settings, `${what}.`, code) } as Optimizer;
}

/** The settings of an optimizer, with defaults. @param prefix of their names in messages */
export function checkSettings(type: OptimizerName, value: object, prefix: string, code: string): Record<string, number | boolean> {
  const { settings } = optimizerKind(type);
  checkKeys(value, Object.keys(settings), `${prefix.replace(/\.$/, "") || "optimizer"} (${type})`, code);
  return Object.fromEntries(
    Object.entries(settings).map(([name, { kind, fallback }]) => {
      const given = value[name];
      if (given === undefined && fallback !== undefined) return [name, fallback];
      return [name, kind.check(given, `${prefix}${name}`, code)];
    }),
  );
}

/** What is given, completed by the recipe where that is for the same optimizer. */
export function overrideOptimizer(value: unknown, recipe: OptimizerRecipe, what: string, code: string): Optimizer {
  const given = typeof value === "string" ? { type: value } : value;
  checkKeys(given, ["type", ...SETTINGS], what, code);
  const defined = Object.fromEntries(Object.entries(given).filter(([, setting]) => setting !== undefined));
  const isSame = defined.type === undefined || defined.type === (recipe.type ?? "sgd");
  return checkOptimizer(isSame ? { ...recipe, ...defined } : defined, what, code);
}

/** One flag for each setting: the first optimizer that has it says its help. */
export const OPTIMIZER_FLAGS: Readonly<Record<string, Flag>> = {
  optimizer: { type: "string", value: "NAME", help: `${OPTIMIZER_NAMES.join(", ")} (default: the model's recipe)` },
  ...Object.fromEntries(
    SETTINGS.map((name) => {
      const { kind, help } = kinds.find(({ settings }) => name in settings)!.settings[name]!;
      return [kebab(name), { type: kind.flag, help }];
    }),
  ),
};

/** The option's value, from those of the flags. */
export const optimizerFromFlags = (values: Readonly<Record<string, unknown>>): object => ({
  type: values.optimizer,
  ...Object.fromEntries(SETTINGS.map((name) => [name, values[name]])),
});

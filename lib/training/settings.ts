/** From the options that are given to a run's settings, and what is made of these. */
import type { AnyDataset } from "../data/dataset.js";
import { RevNetError } from "../errors.js";
import { type Model, resolveModel } from "../network/models.js";
import type { Recipe } from "../network/recipe.js";
import type { NetworkSpec } from "../network/spec.js";
import { checkKeys } from "../validation.js";
import { CODE, type Option } from "./option.js";
import { OPTION_NAMES, OPTIONS, type OptionName, type Settings, SHORT_RUN, scaledOptimizer, type TrainOptions } from "./options.js";

/** For models that bring none: the paper's for CIFAR. */
const DEFAULT_RECIPE: Recipe = {
  batchSize: 100,
  steps: 80_000,
  optimizer: { learningRate: 0.1, momentum: 0.9, weightDecay: 2e-4 },
  schedule: { type: "step", milestones: [0.5, 0.75], gamma: 0.1 },
  augment: { padding: 2, flip: true },
};

/**
 * @throws RevNetError ERR_INVALID_ARGUMENT naming the option, what it was and what was expected; what resolveModel throws;
 *   ERR_INVALID_DATA for a data set object that is none
 */
export function resolveOptions(options: TrainOptions, cwd = process.cwd()): Settings {
  checkKeys(options, OPTION_NAMES, "trainRevNet options", CODE);
  const given = options as Readonly<Record<string, unknown>>;
  if (given.model === undefined)
    throw new RevNetError(CODE, "model: is missing; expected a model's name, a path to a JSON file or a spec");
  const recipe = recipeOf(given.model as Model);
  const context = { given, recipe, cwd };
  const resolve = (name: OptionName) => (OPTIONS[name] as Option<unknown, unknown>).resolve(given[name], name, context);
  return Object.fromEntries(OPTION_NAMES.map((name) => [name, resolve(name)])) as unknown as Settings;
}

const recipeOf = (model: Model): Recipe => resolveModel(model).recipe ?? DEFAULT_RECIPE;

/** What the learning rate was scaled from; undefined where it was not. */
export function scaledFrom({
  model,
  batchSize,
  optimizer,
  scaleLearningRate,
}: Settings): { learningRate: number; batchSize: number } | undefined {
  const recipe = recipeOf(model);
  const scaled = scaledOptimizer({ given: { batchSize, scaleLearningRate }, recipe });
  const { learningRate } = recipe.optimizer;
  if (optimizer.type !== "sgd" || scaled.learningRate !== optimizer.learningRate || learningRate === undefined) return undefined;
  return learningRate === optimizer.learningRate ? undefined : { learningRate, batchSize: recipe.batchSize };
}

/** @param steps of the whole run */
export const isPrecise = ({ preciseBatchNorm }: Settings, steps: number): boolean => preciseBatchNorm ?? steps < SHORT_RUN;

/** What the bits of a run depend on, by option. */
export function identityOfSettings(settings: Settings, spec: NetworkSpec, steps: number): Record<string, unknown> {
  const part = (name: OptionName) =>
    (OPTIONS[name] as Option<unknown, unknown>).identity(settings[name], { settings, spec, steps });
  return Object.fromEntries(OPTION_NAMES.map((name) => [name, part(name)] as const).filter(([, value]) => value !== undefined));
}

/** What config.json holds: the options as they were resolved, but for those of this process alone. */
export function configOf(settings: Settings, model: NetworkSpec, steps: number): object {
  const { data } = settings;
  const kept = OPTION_NAMES.filter((name) => OPTIONS[name].inConfig && settings[name] !== undefined);
  const rest = Object.fromEntries(kept.map((name) => [name, settings[name]]));
  return { model, data: typeof data === "string" ? data : data.name, ...rest, steps };
}

/** The spec to train: a named model takes the data's classes, a spec given as an object must have them. */
export function specFor(model: Model, dataset: Pick<AnyDataset, "name" | "shape" | "classes">): NetworkSpec {
  const classes = dataset.classes.length;
  const spec = typeof model === "string" ? resolveModel(model, { classes }) : resolveModel(model);
  if (spec.classes !== classes)
    throw new RevNetError(CODE, `model: has ${spec.classes} classes, but ${dataset.name} has ${classes}`);
  if (spec.input.some((edge, i) => edge !== dataset.shape[i]))
    throw new RevNetError(
      CODE,
      `model: ${spec.name} takes ${spec.input.join("x")} images, but those of ${dataset.name} are ${dataset.shape.join("x")}`,
    );
  return spec;
}

/** revnet memory */
import { trainingShape } from "../data/open.js";
import type { MemoryReport } from "../native/index.js";
import { chooseDevice } from "../network/device.js";
import { largestBatch, type MemoryPlanOptions, memoryPlan } from "../network/memory.js";
import { resolveModel } from "../network/models.js";
import { MAX_BATCH } from "../network/recipe.js";
import { ACTIVATIONS, type Streams } from "../network/recorder.js";
import type { NetworkSpec } from "../network/spec.js";
import { OPTIMIZER_NAMES, type OptimizerName } from "../optimizers/index.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { deviceOptions, TRAINING_DEVICE_FLAGS } from "./flags.js";
import { bytes, print, printJson, stackedBars, table } from "./output.js";

const CATEGORIES = ["parameters", "gradients", "optimizer", "activations", "workspace", "data", "total"] as const;
const UNITS = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };

type Options = Omit<MemoryPlanOptions, "batchSize" | "activations">;

export const memory = defineCommand({
  name: "memory",
  summary:
    "Memory of training a model, by category, with reversible and with stored activations. Nothing is allocated. With --data (and " +
    "--train-count, --verify, as for train) the bytes are those that train counts; otherwise, and for image-folder, the data is one batch.",
  positionals: "MODEL",
  arity: [1, 1],
  flags: {
    "batch-size": { type: "integer", help: "images of a step (default: the model's recipe, or 100)" },
    data: { type: "string", value: "NAME", help: "count this data set, which lies in memory: shapes, cifar-10 or cifar-100" },
    "train-count": { type: "integer", help: "training images of it (default: all)" },
    classes: { type: "integer", help: "number of classes (default: the data set's, or the model's)" },
    budget: { type: "string", value: "BYTES", help: "find the largest batch that fits, such as 8GiB or 500MB" },
    verify: { type: "boolean", help: "with what train --verify-every takes" },
    optimizer: {
      type: "string",
      value: "NAME",
      help: `${OPTIMIZER_NAMES.join(", ")}: how much it keeps for each parameter (default sgd)`,
    },
    streams: { type: "string", value: "KIND", help: "fixed (default) or float32" },
    ...TRAINING_DEVICE_FLAGS,
    ...JSON_FLAG,
  },
  async run(values, [model]) {
    const { data, trainCount, device, threads, precision, streamGradients, streams, optimizer, verify, json } = values;
    if (data === undefined && trainCount !== undefined) throw new UsageError("--train-count needs --data");
    const shape = data === undefined ? undefined : trainingShape(data, trainCount);
    const classes = values.classes ?? shape?.classes;
    const spec = resolveModel(model!, classes === undefined ? {} : { classes });
    const budget = values.budget === undefined ? undefined : readBytes(values.budget);
    const batchSize = values.batchSize ?? spec.recipe?.batchSize ?? 100;
    // memoryPlan checks the values.
    const on = deviceOptions({ device, threads, precision, streamGradients });
    const options: Options = {
      ...on,
      streams: streams as Streams | undefined,
      optimizer: optimizer as OptimizerName | undefined,
      verify,
      images: shape?.images,
    };
    const plan = (activations: (typeof ACTIVATIONS)[number]) => memoryPlan(spec, { ...options, batchSize, activations });
    const plans = { reversible: plan("reversible"), stored: plan("stored") };
    const largest =
      budget === undefined
        ? undefined
        : Object.fromEntries(ACTIVATIONS.map((mode) => [mode, largestBatch(spec, { ...options, activations: mode }, budget)]));
    if (json)
      printJson({
        model: spec.name,
        batchSize,
        device: chooseDevice(on).options.device,
        ...plans,
        ...(largest && { budget: { bytes: budget, ...largest } }),
      });
    else print(describe(spec, batchSize, plans, values.budget, largest));
    return 0;
  },
});

function describe(
  spec: NetworkSpec,
  batchSize: number,
  plans: Record<(typeof ACTIVATIONS)[number], MemoryReport>,
  budget: string | undefined,
  largest: Record<string, number> | undefined,
): string[] {
  const kind = spec.kind === "resnet" ? " (a ResNet stores its activations either way)" : "";
  const rows = CATEGORIES.map((category) => [category, ...ACTIVATIONS.map((mode) => bytes(plans[mode][category]))]);
  const bars = ACTIVATIONS.map((mode) => {
    const { activations, workspace, parameters, gradients, optimizer, data, total } = plans[mode];
    return { name: mode, parts: [activations, workspace, parameters + gradients + optimizer, data], after: bytes(total) };
  });
  const fits = Object.entries(largest ?? {}).map(
    ([mode, n]) =>
      `largest batch within ${budget}, ${mode}: ${n === 0 ? "not even one image" : n === MAX_BATCH ? `${n}, the most that is possible` : n}`,
  );
  return [
    `${spec.name}, batch size ${batchSize}${kind}`,
    "",
    ...table([["", ...ACTIVATIONS], ...rows]),
    "",
    ...stackedBars(bars, ["activations", "workspace", "parameters, gradients, optimizer", "data"], process.stdout.columns),
    ...(fits.length > 0 ? ["", ...fits] : []),
  ];
}

/** "8GiB", "1.5 GB"; a number alone would be bytes to some and GiB to others. */
function readBytes(text: string): number {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)\s*([A-Za-z]+)?$/.exec(text.trim()) ?? [];
  const name = Object.keys(UNITS).find((known) => known.toLowerCase() === unit.toLowerCase());
  if (number === undefined || name === undefined)
    throw new UsageError(`--budget expects bytes with their unit, such as 8GiB or 500MB, got '${text}'`);
  return Math.floor(Number(number) * UNITS[name as keyof typeof UNITS]);
}

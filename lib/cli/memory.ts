/** revnet memory */
import { resolveModel } from "../network/models.js";
import { memoryPlan } from "../network/network.js";
import type { Streams } from "../network/recorder.js";
import { defineCommand, JSON_FLAG } from "./command.js";
import { DEVICE_FLAGS, deviceOptions } from "./flags.js";
import { bytes, print, printJson, table } from "./output.js";

const CATEGORIES = ["parameters", "gradients", "optimizer", "activations", "workspace", "data", "total"] as const;

export const memory = defineCommand({
  name: "memory",
  summary: "Memory of training a model, by category, with reversible and with stored activations. Nothing is allocated.",
  positionals: "MODEL",
  arity: [1, 1],
  flags: {
    "batch-size": { type: "integer", help: "images of a step (default: the model's recipe, or 100)" },
    classes: { type: "integer", help: "number of classes (default: the model's)" },
    streams: { type: "string", value: "KIND", help: "fixed (default) or float32" },
    ...DEVICE_FLAGS,
    ...JSON_FLAG,
  },
  async run({ batchSize: given, classes, streams, json, ...flags }, [model]) {
    const spec = resolveModel(model!, classes === undefined ? {} : { classes });
    const batchSize = given ?? spec.recipe?.batchSize ?? 100;
    // memoryPlan checks the values.
    const common = { batchSize, streams: streams as Streams | undefined, ...deviceOptions(flags) };
    const reversible = memoryPlan(spec, { ...common, activations: "reversible" });
    const stored = memoryPlan(spec, { ...common, activations: "stored" });
    if (json) {
      printJson({ model: spec.name, batchSize, device: common.device, reversible, stored });
      return 0;
    }
    print(
      `${spec.name}, batch size ${batchSize}${spec.kind === "resnet" ? " (a ResNet stores its activations either way)" : ""}\n`,
    );
    print(
      table([
        ["", "reversible", "stored"],
        ...CATEGORIES.map((category) => [category, bytes(reversible[category]), bytes(stored[category])]),
      ]),
    );
    return 0;
  },
});

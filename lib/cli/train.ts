/** revnet train */
import { RevNetError } from "../errors.js";
import { memoryPlan } from "../network/memory.js";
import { SCHEDULE_NAMES } from "../schedules/index.js";
import { cosineText, shortNumber } from "../text.js";
import type { VerificationEvent } from "../training/events.js";
import type { TrainOptions } from "../training/options.js";
import type { Summary } from "../training/summary.js";
import { trainRevNet } from "../training/train.js";
import { defineCommand, type FlagValues, JSON_FLAG, UsageError } from "./command.js";
import { DATA_FLAGS, TRAINING_DEVICE_FLAGS } from "./flags.js";
import { bytes, percent, print, printError, printJson, throughput } from "./output.js";
import { Progress } from "./progress.js";

const FLAGS = {
  model: { type: "string", value: "MODEL", help: "a published model (default revnet-38) or a path to a JSON file" },
  ...DATA_FLAGS,
  epochs: { type: "integer", help: "passes over the training images; or" },
  steps: { type: "integer", help: "batches to train on (default: the model's recipe)" },
  "batch-size": { type: "integer", help: "images of a step (default: the model's recipe)" },
  "learning-rate": { type: "number", help: "base learning rate (default: the model's recipe)" },
  momentum: { type: "number", help: "of SGD (default: the model's recipe)" },
  "weight-decay": { type: "number", help: "of conv and linear weights (default: the model's recipe)" },
  schedule: { type: "string", value: "NAME", help: `${SCHEDULE_NAMES.join(", ")} (default: the model's recipe)` },
  "no-augment": { type: "boolean", help: "no random shifts, crops and flips" },
  activations: { type: "string", value: "MODE", help: "reversible (default) or stored; the weights are the same" },
  streams: { type: "string", value: "KIND", help: "fixed (default, exact) or float32 (drifts)" },
  seed: { type: "integer", help: "the same seed gives the same bits (default 0)" },
  ...TRAINING_DEVICE_FLAGS,
  "validate-every": { type: "integer", help: "steps between evaluations on the test images (default: an epoch's)" },
  "verify-every": {
    type: "integer",
    help: "steps between checks that the blocks invert and the gradients are those of stored activations (default: none)",
  },
  patience: { type: "integer", help: "end after so many validations without a better one, and keep the best weights" },
  out: {
    type: "string",
    value: "DIR",
    help: "write config.json, metrics.jsonl, checkpoints/, summary.json, model.safetensors and report.html here",
  },
  "checkpoint-every": { type: "integer", help: "steps between checkpoints in DIR (default: an epoch's)" },
  "keep-checkpoints": { type: "integer", help: "how many are kept, besides the best one (default 3)" },
  resume: { type: "boolean", help: "go on from the last checkpoint in DIR, from the start if there is none" },
  "accept-changed-data": {
    type: "boolean",
    help: "with --resume: go on although images have changed; summary.json then says which",
  },
  ui: { type: "boolean", help: "a live page in the browser while training, for this machine alone; its address is printed" },
  "ui-port": { type: "integer", help: "port of the live page (default: one that is free)" },
  ...JSON_FLAG,
} as const;

export const train = defineCommand({
  name: "train",
  summary: "Trains a network. Ctrl-C ends it after the running step and writes what it has; --resume goes on from there.",
  positionals: "",
  arity: [0, 0],
  flags: FLAGS,
  interruptible: true,
  async run(values, _positionals, { signal }) {
    const progress = new Progress(values.json ? process.stderr : process.stdout);
    const options = toOptions(values, signal);
    const run = trainRevNet(options);
    let started = false; // before that, the data is read and there is no folder yet
    try {
      for await (const event of run) {
        started ||= event.type === "start";
        progress.show(event);
        if (event.type === "start" && values.out === undefined)
          progress.note("nothing of this run will be kept: --out DIR writes its model, checkpoints and report");
      }
    } catch (error) {
      progress.end();
      if (started && error instanceof RevNetError && error.code === "ERR_ABORTED" && values.out !== undefined)
        throw new RevNetError(
          error.code,
          `${error.message}; what was trained is in ${values.out}, and the same command with --resume goes on`,
          { cause: error },
        );
      throw error;
    }
    progress.end();
    const { network, summary, history, fileError } = await run;
    if (values.json) printJson(summary);
    else printSummary(summary, storedActivations(summary, network.spec, options), history.verifications, values.out);
    network.dispose();
    if (fileError) printError(`revnet: the run is complete, but ${values.out} is not: ${fileError.message}`);
    return fileError ? 1 : 0;
  },
});

function toOptions(values: FlagValues<typeof FLAGS>, signal: AbortSignal): TrainOptions {
  if (values.data === undefined) throw new UsageError("--data is missing: shapes, cifar-10, cifar-100 or image-folder");
  if (values.uiPort !== undefined && !values.ui) throw new UsageError("--ui-port needs --ui");
  const {
    json: _,
    out,
    noAugment,
    ui: asked,
    uiPort: port,
    learningRate,
    momentum,
    weightDecay,
    model = "revnet-38",
    ...same
  } = values;
  const optimizer = Object.fromEntries(
    Object.entries({ learningRate, momentum, weightDecay }).filter(([, value]) => value !== undefined),
  );
  // The remaining flags are options by the same names; trainRevNet checks their values.
  const ui = asked && (port === undefined ? true : { port });
  return { ...same, model, optimizer, ui, augment: !noAugment, outDir: out, signal } as TrainOptions;
}

/** Bytes of activations that the same steps take when all are kept. */
function storedActivations(summary: Summary, spec: Parameters<typeof memoryPlan>[0], { device }: TrainOptions): number {
  const { batchSize, streams, precision, streamGradients, threads } = summary;
  const on = { precision, streamGradients, threads, device: device ?? "auto" };
  return memoryPlan(spec, { batchSize, activations: "stored", streams, ...on }).activations;
}

function printSummary(
  summary: Summary,
  stored: number,
  verifications: readonly VerificationEvent[],
  out: string | undefined,
): void {
  const { activations } = summary.memory;
  // What verifying stores is in it; then there is nothing to compare.
  const ratio =
    verifications.length === 0 && activations < stored
      ? ` (stored: ${bytes(stored)}, ${(stored / activations).toFixed(1)} times as much)`
      : "";
  const lines = [
    `test error          ${percent(summary.testError ?? Number.NaN)}`,
    `step                ${summary.stepMilliseconds.median.toFixed(1)} ms (${throughput(summary.imagesPerSecond)})`,
    `activation memory   ${bytes(activations)}${ratio}`,
    `memory in all       ${bytes(summary.memory.total)}`,
    ...(summary.reconstruction.exact === null
      ? []
      : [`reconstruction      ${summary.reconstruction.exact ? "exact, bit for bit" : "not exact"}`]),
    ...(verifications.length > 0 ? [`verified            ${verified(verifications)}`] : []),
    ...(summary.reconstruction.outOfRange > 0
      ? [`out of range        ${shortNumber(summary.reconstruction.outOfRange)} stream values, so the result is not to be trusted`]
      : []),
    ...(summary.brokenImages.length === 0
      ? []
      : [`broken images       ${summary.brokenImages.length}, named ${out === undefined ? "above" : "in summary.json"}`]),
    // Within 80 columns.
    `weights sha256  ${summary.weightsSha256}`,
    ...(out === undefined ? [] : [`files               ${out}`]),
  ];
  print(lines);
}

function verified(verifications: readonly VerificationEvent[]): string {
  const error = verifications.reduce((largest, { maxError }) => Math.max(largest, maxError), 0);
  const cosine = verifications.reduce((smallest, event) => Math.min(smallest, event.cosine), 1);
  if (error === 0 && cosine === 1) return `${verifications.length} times, exact each time`;
  return `${verifications.length} times: reconstruction error up to ${shortNumber(error)}, cosine of the gradients at least ${cosineText(cosine)}`;
}

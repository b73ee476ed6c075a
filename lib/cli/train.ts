/** revnet train */
import { RevNetError } from "../errors.js";
import { memoryPlan } from "../network/memory.js";
import { cosineText, shortNumber } from "../text.js";
import type { VerificationEvent } from "../training/events.js";
import { OPTION_NAMES, OPTIONS, type TrainOptions } from "../training/options.js";
import type { Summary } from "../training/summary.js";
import { trainRevNet } from "../training/train.js";
import { defineCommand, type Flags, type FlagValues, JSON_FLAG, UsageError } from "./command.js";
import { bytes, percent, print, printError, printJson, throughput } from "./output.js";
import { Progress } from "./progress.js";

const FLAGS: Flags = {
  ...Object.assign({}, ...OPTION_NAMES.map((name) => OPTIONS[name].flags(name))),
  ...JSON_FLAG,
};

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
    const { outDir: out } = options;
    const run = trainRevNet(options);
    let started = false; // before that, the data is read and there is no folder yet
    try {
      for await (const event of run) {
        started ||= event.type === "start";
        progress.show(event);
        if (event.type === "start" && out === undefined)
          progress.note("nothing of this run will be kept: --out DIR writes its model, checkpoints and report");
      }
    } catch (error) {
      progress.end();
      if (started && error instanceof RevNetError && error.code === "ERR_ABORTED" && out !== undefined)
        throw new RevNetError(
          error.code,
          `${error.message}; what was trained is in ${out}, and the same command with --resume goes on`,
          { cause: error },
        );
      throw error;
    }
    progress.end();
    const { network, summary, history, fileError } = await run;
    if (values.json) printJson(summary);
    else printSummary(summary, storedActivations(summary, network.spec, options), history.verifications, out);
    network.dispose();
    if (fileError) printError(`revnet: the run is complete, but ${out} is not: ${fileError.message}`);
    return fileError ? 1 : 0;
  },
});

function toOptions(values: FlagValues<Flags>, signal: AbortSignal): TrainOptions {
  if (values.data === undefined) throw new UsageError("--data is missing: shapes, cifar-10, cifar-100 or image-folder");
  if (values.uiPort !== undefined && !values.ui) throw new UsageError("--ui-port needs --ui");
  const given = Object.fromEntries(OPTION_NAMES.map((name) => [name, OPTIONS[name].fromFlags(values, name)]));
  // trainRevNet checks the values.
  return { ...given, model: given.model ?? "revnet-38", signal } as TrainOptions;
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
    ...(summary.validationError === null ? [] : [`validation error    ${percent(summary.validationError)}`]),
    `test error          ${percent(summary.testError ?? Number.NaN)}`,
    `step                ${summary.stepMilliseconds.median.toFixed(1)} ms (${throughput(summary.imagesPerSecond)})`,
    `activation memory   ${bytes(activations)}${ratio}`,
    `memory in all       ${bytes(summary.memory.total)}`,
    ...(summary.statisticsBatches === null
      ? []
      : [`batch norm          running statistics over ${summary.statisticsBatches} training batches, by the final weights`]),
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

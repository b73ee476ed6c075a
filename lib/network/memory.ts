/** What training will take, before anything is allocated. */
import type { MemoryReport } from "../../binding.js";
import { RevNetError } from "../errors.js";
import { native } from "../native/index.js";
import { OPTIMIZER_NAMES, type OptimizerName } from "../optimizers/index.js";
import { bytes } from "../text.js";
import { checkBoolean, checkChoice, checkInteger, checkOptions } from "../validation.js";
import { NetworkBuffers } from "./buffers.js";
import { chooseDevice, DEVICE_KEYS, type DeviceOptions } from "./device.js";
import { imageElements } from "./images.js";
import { type Model, resolveModel } from "./models.js";
import { trainingProgram } from "./program.js";
import { MAX_BATCH } from "./recipe.js";
import { ACTIVATIONS, type Activations, type Program, STREAMS, type Streams } from "./recorder.js";
import type { NetworkSpec } from "./spec.js";
import { buildTopology } from "./topology.js";
import { larger, requireReversible, verificationPrograms } from "./verification.js";

/** What memoryPlan takes. */
export interface MemoryPlanOptions extends DeviceOptions {
  /** Images of a step. */
  readonly batchSize: number;
  /** Default "reversible". */
  readonly activations?: Activations | undefined;
  /** Default "fixed". */
  readonly streams?: Streams | undefined;
  /** Images of the training split, which lies on the device; default: one batch. */
  readonly images?: number | undefined;
  /** Default "sgd", which keeps one value for each parameter. */
  readonly optimizer?: OptimizerName | undefined;
  /** With what `verifyEvery` takes; default false. */
  readonly verify?: boolean | undefined;
}

/**
 * Bytes by category of a network while it trains: what `network.memory()` counts once a step has run.
 * @throws RevNetError ERR_INVALID_SPEC, ERR_UNKNOWN_MODEL, ERR_INVALID_ARGUMENT, ERR_NOT_REVERSIBLE (`verify`)
 */
export function memoryPlan(model: Model, options: MemoryPlanOptions): MemoryReport {
  const code = "ERR_INVALID_ARGUMENT";
  checkOptions(options, ["batchSize", "activations", "streams", "images", "optimizer", "verify", ...DEVICE_KEYS]);
  const spec = resolveModel(model);
  const n = checkInteger(options.batchSize, 1, MAX_BATCH, "batchSize", code);
  const count = checkInteger(options.images ?? n, 1, 2 ** 31 - 1, "images", code);
  const activations = checkChoice(options.activations ?? "reversible", ACTIVATIONS, "activations", code);
  const streams = checkChoice(options.streams ?? "fixed", STREAMS, "streams", code);

  const optimizer = checkChoice(options.optimizer ?? "sgd", OPTIMIZER_NAMES, "optimizer", code);

  const topology = buildTopology(spec);
  const buffers = new NetworkBuffers(topology);
  const images = buffers.add({ name: "dataset.images", type: "byte", elements: count * imageElements(spec), category: "data" });
  const labels = buffers.add({ name: "dataset.labels", type: "index", elements: count, category: "data" });
  const source = { type: "dataset" as const, images, labels, count, padding: 0, flip: false, scale: 1 / 255 };
  const training = trainingProgram(topology, buffers, { n, activations, streams, source, optimizer });
  const programs: Program[] = [training];
  if (options.verify !== undefined && checkBoolean(options.verify, "verify", code)) {
    requireReversible(topology);
    for (const record of Object.values(verificationPrograms(topology, n, streams, source))) programs.push(record(buffers));
  }
  const device = chooseDevice(options).options;
  return programs
    .map(({ locals, ops }): MemoryReport => {
      const { live: _, ...report } = native.plan(device, buffers.records, { locals, ops });
      return report;
    })
    .reduce(larger);
}

/**
 * Sees whether the device has the memory that is planned and yet to be allocated. `options`: what was planned.
 * @throws RevNetError ERR_OUT_OF_MEMORY that says which batch would fit
 */
export function requireMemory(spec: NetworkSpec, options: MemoryPlanOptions, planned: MemoryReport, allocated: MemoryReport): void {
  const available = native.availableMemory(options.device ?? "cpu");
  if (planned.total - allocated.total <= available) return;
  throw new RevNetError(
    "ERR_OUT_OF_MEMORY",
    `training ${spec.name} with batchSize ${options.batchSize} takes ${bytes(planned.total)} of memory, ${bytes(planned.activations)} of ` +
      `it for activations, and ${bytes(available)} are available; ${whatFits(spec, options, available + allocated.total)}`,
  );
}

function whatFits(model: Model, options: MemoryPlanOptions, budget: number): string {
  const fitting = largestBatch(model, options, budget);
  return fitting > 0 ? `a batch of ${fitting} would fit` : "no batch would fit";
}

/** The largest batch whose plan is within the budget; 0 where there is none. Bytes are nearly linear in it, so few plans tell. */
export function largestBatch(model: Model, options: Omit<MemoryPlanOptions, "batchSize">, budget: number): number {
  const total = (n: number) => memoryPlan(model, { ...options, batchSize: n, images: options.images ?? n }).total;
  let [fits, bytesOf] = [1, total(1)];
  if (bytesOf > budget) return 0;
  let [tooMany, bytesAbove] = [MAX_BATCH, total(MAX_BATCH)];
  if (bytesAbove <= budget) return MAX_BATCH;
  while (tooMany - fits > 1) {
    const guess = fits + Math.floor(((tooMany - fits) * (budget - bytesOf)) / (bytesAbove - bytesOf));
    const n = Math.min(tooMany - 1, Math.max(fits + 1, guess));
    const planned = total(n);
    if (planned <= budget) [fits, bytesOf] = [n, planned];
    else [tooMany, bytesAbove] = [n, planned];
  }
  return fits;
}

/**
 * What `work` gives. Where it runs out of memory, the error says what training was planned to take and which batch would fit.
 * @param held bytes that the network has on the device, as of now
 */
export async function explainMemory<T>(
  model: Model,
  options: MemoryPlanOptions,
  held: () => number,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof RevNetError) || error.code !== "ERR_OUT_OF_MEMORY") throw error;
    const { batchSize, device = "cpu" } = options;
    const planned = memoryPlan(model, options).total;
    const advice = whatFits(model, options, native.availableMemory(device) + held());
    const message = `${error.message}; training on batches of ${batchSize} takes ${bytes(planned)} in all, and ${advice}`;
    throw new RevNetError("ERR_OUT_OF_MEMORY", message, { cause: error });
  }
}

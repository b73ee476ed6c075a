/** What training will take, before anything is allocated. */
import type { MemoryReport } from "../../binding.js";
import { RevNetError } from "../errors.js";
import { native } from "../native/index.js";
import { bytes } from "../text.js";
import { checkChoice, checkInteger, checkOptions } from "../validation.js";
import { NetworkBuffers } from "./buffers.js";
import { chooseDevice, DEVICE_KEYS, type DeviceOptions } from "./device.js";
import { imageElements } from "./images.js";
import { type Model, resolveModel } from "./models.js";
import { trainingProgram } from "./program.js";
import { MAX_BATCH } from "./recipe.js";
import type { Activations, Streams } from "./recorder.js";
import { buildTopology } from "./topology.js";

export interface MemoryPlanOptions extends DeviceOptions {
  readonly batchSize: number;
  readonly activations?: Activations | undefined;
  readonly streams?: Streams | undefined;
  /** Images of the training split, which lies on the device; default: one batch. */
  readonly images?: number | undefined;
}

/**
 * Bytes by category of a network while it trains: what `network.memory()` counts once a step has run.
 * @throws RevNetError ERR_INVALID_SPEC, ERR_UNKNOWN_MODEL, ERR_INVALID_ARGUMENT
 */
export function memoryPlan(model: Model, options: MemoryPlanOptions): MemoryReport {
  const code = "ERR_INVALID_ARGUMENT";
  checkOptions(options, ["batchSize", "activations", "streams", "images", ...DEVICE_KEYS]);
  const spec = resolveModel(model);
  const n = checkInteger(options.batchSize, 1, MAX_BATCH, "batchSize", code);
  const count = checkInteger(options.images ?? n, 1, 2 ** 31 - 1, "images", code);
  const activations = checkChoice(options.activations ?? "reversible", ["reversible", "stored"], "activations", code);
  const streams = checkChoice(options.streams ?? "fixed", ["fixed", "float32"], "streams", code);

  const topology = buildTopology(spec);
  const buffers = new NetworkBuffers(topology);
  const images = buffers.add({ name: "dataset.images", type: "byte", elements: count * imageElements(spec), category: "data" });
  const labels = buffers.add({ name: "dataset.labels", type: "index", elements: count, category: "data" });
  const source = { type: "dataset" as const, images, labels, count, padding: 0, flip: false, scale: 1 / 255 };
  const { locals, ops } = trainingProgram(topology, buffers, { n, activations, streams, source });
  const { live: _, ...report } = native.plan(chooseDevice(options).options, buffers.records, { locals, ops });
  return report;
}

/** The largest batch whose plan is within the budget; 0 where there is none. */
export function largestBatch(model: Model, options: Omit<MemoryPlanOptions, "batchSize">, budget: number): number {
  const fits = (n: number) => memoryPlan(model, { ...options, batchSize: n, images: options.images ?? n }).total <= budget;
  let [largest, tooMany] = [0, MAX_BATCH + 1];
  while (tooMany - largest > 1) {
    const n = Math.floor((largest + tooMany) / 2);
    if (fits(n)) largest = n;
    else tooMany = n;
  }
  return largest;
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
    const fitting = largestBatch(model, options, native.availableMemory(device) + held());
    const advice = fitting > 0 ? `a batch of ${fitting} would fit` : "no batch would fit";
    const message = `${error.message}; training on batches of ${batchSize} takes ${bytes(planned)} in all, and ${advice}`;
    throw new RevNetError("ERR_OUT_OF_MEMORY", message, { cause: error });
  }
}

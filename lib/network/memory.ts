/** What training will take, before anything is allocated. */
import type { MemoryReport } from "../../binding.js";
import { native } from "../native/index.js";
import { checkChoice, checkInteger, checkOptions } from "../validation.js";
import { NetworkBuffers } from "./buffers.js";
import { chooseDevice, DEVICE_KEYS, type DeviceOptions } from "./device.js";
import { imageElements } from "./images.js";
import { type Model, resolveModel } from "./models.js";
import { trainingProgram } from "./program.js";
import { MAX_BATCH } from "./recipe.js";
import type { Activations, Streams } from "./recorder.js";
import { buildTopology } from "./topology.js";

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

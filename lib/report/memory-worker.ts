/** A worker thread that plans the memory of a network at several depths; analysis.ts starts it. */
import { parentPort, workerData } from "node:worker_threads";
import { RevNetError } from "../errors.js";
import type { MemoryReport } from "../native/index.js";
import { type MemoryPlanOptions, memoryPlan } from "../network/memory.js";
import { ACTIVATIONS } from "../network/recorder.js";
import type { NetworkSpec } from "../network/spec.js";

/** Memory of the same network with `factor` times as many units in each stage. */
export interface DepthPlan {
  factor: number;
  blocks: number;
  reversible: MemoryReport;
  stored: MemoryReport;
}

export interface Task {
  spec: NetworkSpec;
  /** Each multiplies the units of every stage. */
  factors: readonly number[];
  options: Omit<MemoryPlanOptions, "activations" | "images">;
}

/** Depths that no network may have, or whose bytes cannot be counted, are left out. */
function planDepth({ spec, options }: Task, factor: number): DepthPlan[] {
  const { recipe: _, ...deeper } = { ...spec, units: spec.units.map((units) => units * factor) };
  try {
    const [reversible, stored] = ACTIVATIONS.map((activations) => memoryPlan(deeper, { ...options, activations }));
    return [{ factor, blocks: deeper.units.reduce((sum, units) => sum + units), reversible: reversible!, stored: stored! }];
  } catch (error) {
    if (error instanceof RevNetError) return [];
    throw error;
  }
}

const task = workerData as Task;
parentPort!.postMessage(task.factors.flatMap((factor) => planDepth(task, factor)));

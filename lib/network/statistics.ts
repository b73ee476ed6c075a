/**
 * Precise batch norm: running statistics estimated anew, as the mean over batches of the statistics that the present weights give. Those that
 * training keeps trail behind the weights: with a decay of 0.99 they remember some hundred steps (Wu and Johnson, "Rethinking 'Batch' in
 * BatchNorm", 2021).
 */
import type { MemoryReport } from "../../binding.js";
import { RevNetError } from "../errors.js";
import { areFinite } from "../validation.js";
import type { Executor, Recorded } from "./executor.js";
import { optional, zeroed } from "./inference.js";
import type { StatisticsProgram } from "./program.js";
import type { BatchGiver, StepImages } from "./training-step.js";

export class StatisticsEstimation {
  constructor(
    private readonly executor: Executor,
    private readonly recorded: Recorded<StatisticsProgram>,
    private readonly batch: BatchGiver,
  ) {}

  /** Bytes that the session will hold once it has run. */
  planned(): MemoryReport {
    return this.executor.session.planned(this.recorded.id);
  }

  /**
   * Estimates the network's running statistics from these batches, at least one. Where that fails they stay as they were.
   * @returns stream elements that left the fixed-point range
   * @throws RevNetError ERR_NOT_FINITE
   */
  async run(batches: AsyncIterable<StepImages>): Promise<number> {
    const { executor, recorded } = this;
    const { running, layout } = executor.buffers;
    const { outOfRange } = recorded.program;
    const before = await executor.host.read(running);
    const sum = new Float64Array(layout.runningElements);
    let [count, left] = [0, 0];
    executor.host.markTrained();
    try {
      for await (const images of batches) {
        const inputs = [...this.batch.inputs(images), ...zeroed(outOfRange)];
        // A batch's statistics alone, with the unbiased variance.
        const [results, statistics] = await executor.runAndRead(recorded, inputs, optional(outOfRange), running);
        for (let i = 0; i < sum.length; ++i) sum[i]! += statistics[i]!;
        left += results[0]?.[0] ?? 0;
        ++count;
      }
      const mean = sum.map((total) => total / count);
      if (!areFinite(mean)) throw new RevNetError("ERR_NOT_FINITE", "the batch statistics of the trained network are not finite");
      executor.host.later(running, mean);
      return left;
    } catch (error) {
      executor.host.later(running, before);
      throw error;
    }
  }
}

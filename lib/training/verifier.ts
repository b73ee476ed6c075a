/** With `verifyEvery`: verifies a training step on the images that it was made on. */
import type { MemoryReport } from "../../binding.js";
import { type AnyDataset, isStreamed } from "../data/dataset.js";
import { type ByteBatch, everyRow } from "../network/training-step.js";
import type { Verification, VerificationResult } from "../network/verification.js";
import type { Batches } from "./batches.js";
import { feedOf } from "./feed.js";
import type { Journal } from "./journal.js";
import type { Settings } from "./options.js";

export class Verifier {
  constructor(
    /** Of the training step's images. */
    private readonly verification: Verification,
    private readonly settings: Settings,
    private readonly dataset: AnyDataset,
    private readonly batches: Batches,
    private readonly journal: Journal,
  ) {}

  /** Bytes that the session will hold once it has run. */
  planned(): MemoryReport {
    return this.verification.planned();
  }

  /**
   * @param step of those done, the last, from 1
   * @param here whether this process did it: then the images of a stream are still on the device
   */
  async verify(step: number, epoch: number, here: boolean): Promise<void> {
    const start = performance.now();
    const { blocks, maxError, cosine } = await this.#run(step - 1, here);
    const milliseconds = performance.now() - start;
    await this.journal.report({ type: "verification", step, epoch, maxError, cosine, blocks: [...blocks], milliseconds });
  }

  /** @param step counted from 0 */
  async #run(step: number, here: boolean): Promise<VerificationResult> {
    const { seed, batchSize } = this.settings;
    const { train } = this.dataset;
    if (!isStreamed(train)) return this.verification.run({ seed, step, indices: this.batches.at(step) });
    const key = { seed, step, indices: everyRow(batchSize) };
    if (here) return this.verification.run(key);
    const feed = feedOf(train, this.batches, this.settings, [step, step + 1]);
    try {
      const { batch, broken } = await feed.next();
      await this.journal.reportBroken(step + 1, broken);
      return await this.verification.run(key, batch as ByteBatch);
    } finally {
      await feed.close();
    }
  }
}

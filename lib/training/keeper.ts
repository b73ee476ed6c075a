/**
 * Keeps a run in its folder. The disk may fail (full, read-only, gone) without ending the run: it warns, the run goes on in
 * memory, and the next checkpoint tries again. No checkpoint is written before what it refers to is on the disk.
 */
import { RevNetError } from "../errors.js";
import type { Network } from "../network/network.js";
import type { Findings } from "../report/analysis.js";
import { writeRunReport } from "../report/index.js";
import { type Checkpoint, type Progress, readCheckpoint, type Snapshot, takeSnapshot, writeCheckpoint } from "./checkpoint.js";
import { DATA_KEYS } from "./data-record.js";
import type { Divergence } from "./divergence.js";
import type { CheckpointEvent, WarningEvent } from "./events.js";
import { RunFolder } from "./folder.js";
import { checkIdentity, type Identity } from "./identity.js";
import type { MetricsRecord } from "./metrics.js";
import type { Summary } from "./summary.js";

type Send = (event: CheckpointEvent | WarningEvent) => Promise<void>;

export class Keeper {
  /** The step of the last checkpoint that was written or read. */
  #keptStep = 0;
  #keptFile: string | undefined;
  /** The best validation's, while it could not be written. */
  #unwrittenBest: Snapshot | undefined;

  private constructor(
    private readonly folder: RunFolder,
    readonly identity: Identity,
    private readonly keep: number,
    private readonly send: Send,
  ) {}

  /** @throws RevNetError ERR_FILE, ERR_RUN_LOCKED */
  static async open(outDir: string, identity: Identity, keep: number, send: Send, signal?: AbortSignal): Promise<Keeper> {
    return new Keeper(await RunFolder.open(outDir, signal), identity, keep, send);
  }

  /** The checkpoint to go on from; undefined if there is none. Its data is DataRecord's to compare. @throws RevNetError ERR_RESUME_MISMATCH */
  async find(): Promise<Checkpoint | undefined> {
    const checkpoint = await this.folder.lastCheckpoint((error) => this.warn(0, error));
    if (!checkpoint) return undefined;
    checkIdentity(checkpoint.file, checkpoint.identity, this.identity, DATA_KEYS);
    [this.#keptStep, this.#keptFile] = [checkpoint.progress.step, checkpoint.file];
    return checkpoint;
  }

  /** @throws RevNetError ERR_RUN_EXISTS where a run would begin in the place of another one's checkpoints, or of files of no run */
  async refuseExisting(resume: boolean): Promise<void> {
    const [last] = resume ? [] : await this.folder.checkpointFiles();
    if (last !== undefined)
      throw new RevNetError(
        "ERR_RUN_EXISTS",
        `'${this.folder.folder}' holds checkpoints of a run, the last one '${last}': resume it (resume: true), ` +
          "or give a new run another outDir",
      );
    const foreign = await this.folder.foreignFile();
    if (foreign !== undefined)
      throw new RevNetError(
        "ERR_RUN_EXISTS",
        `'${foreign}' is there and not a run's: a run would overwrite it, so give the run another outDir`,
      );
  }

  /** Begins the files, metrics.jsonl after those of its records that belong to the checkpoint, which are returned. @throws RevNetError ERR_FILE */
  async begin(config: object, progress: Progress | undefined): Promise<MetricsRecord[]> {
    const records = await this.folder.begin(config, progress?.metricsBytes ?? 0);
    const last = records.findLast(({ type }) => type === "step")?.step ?? 0;
    if (progress && last < progress.step)
      await this.warn(
        progress.step,
        new RevNetError(
          "ERR_INVALID_FILE",
          `metrics.jsonl has only ${last} of the ${progress.step} steps before; the weights are not touched by that, but figures lack the others`,
        ),
      );
    return records;
  }

  async log(record: MetricsRecord): Promise<void> {
    await this.#attempt(record.step, () => this.folder.log(record));
  }

  /** Writes the checkpoint of `progress.step`, unless it is there. The network's parameters must be fresh. */
  async checkpoint(network: Network, progress: Omit<Progress, "metricsBytes">): Promise<RevNetError | undefined> {
    const { step } = progress;
    if (step === this.#keptStep) return undefined;
    const file = this.folder.checkpointFile(step);
    const failure = await this.#attempt(step, async () => {
      if (this.#unwrittenBest) await this.#writeBest(this.#unwrittenBest);
      await this.#write(file, false, await this.#snapshot(network, progress));
    });
    if (!failure) {
      [this.#keptStep, this.#keptFile] = [step, file];
      await this.folder.prune(step, this.keep);
    }
    return failure;
  }

  /** Writes the same as the best checkpoint so far. */
  async best(network: Network, progress: Omit<Progress, "metricsBytes">): Promise<void> {
    await this.#attempt(progress.step, async () => this.#writeBest(await this.#snapshot(network, progress)));
  }

  /** The best checkpoint, if it is the one of `step`. */
  async readBest(step: number): Promise<Checkpoint | undefined> {
    let best: Checkpoint | undefined;
    const failure = await this.#attempt(step, async () => {
      best = await readCheckpoint(this.folder.bestFile);
    });
    return failure || best?.progress.step !== step ? undefined : best;
  }

  /** What a run ends with, the model first: no failure behind it costs it. Returns what could not be written first, if so. */
  async finish(network: Network, summary: Summary, findings: Findings): Promise<RevNetError | undefined> {
    const { steps } = summary;
    const lost = await this.#attempt(steps, () => this.folder.confirmLock());
    if (lost) return lost;
    const failures = [
      await this.#attempt(steps, () => network.save(this.folder.modelFile)),
      await this.#attempt(steps, async () => {
        await this.folder.flush();
        await this.folder.writeSummary(summary);
      }),
      await this.#report(steps, findings),
    ];
    return failures.find((failure) => failure !== undefined);
  }

  /** What is made of the other files can be made again; whatever goes wrong is told, and loses nothing. */
  async #report(step: number, findings: Findings): Promise<RevNetError | undefined> {
    try {
      await writeRunReport(this.folder.folder, findings);
      return undefined;
    } catch (cause) {
      const message = `the report cannot be made: ${(cause as Error).message}`;
      const failure = cause instanceof RevNetError ? cause : new RevNetError("ERR_FILE", message, { cause });
      await this.warn(step, failure);
      return failure;
    }
  }

  /** The error that ends the run, with what can be gone back to. */
  diverged({ code, message }: Divergence): RevNetError {
    const kept =
      this.#keptFile === undefined ? "there is no checkpoint before it" : `the last good checkpoint is '${this.#keptFile}'`;
    return new RevNetError(code, `${message}; ${kept}`);
  }

  async warn(step: number, { code, message }: RevNetError): Promise<void> {
    await this.send({ type: "warning", step, code, message });
  }

  async close(): Promise<void> {
    await this.folder.close();
  }

  #snapshot(network: Network, progress: Omit<Progress, "metricsBytes">): Promise<Snapshot> {
    return takeSnapshot(network, this.identity, { ...progress, metricsBytes: this.folder.metricsBytes });
  }

  async #writeBest(snapshot: Snapshot): Promise<void> {
    // Kept until it is on the disk, since later checkpoints refer to it.
    this.#unwrittenBest = snapshot;
    await this.#write(this.folder.bestFile, true, snapshot);
    this.#unwrittenBest = undefined;
  }

  async #write(file: string, best: boolean, snapshot: Snapshot): Promise<void> {
    const start = performance.now();
    await this.folder.confirmLock();
    // The metrics first: a checkpoint says how much of them is its own.
    await this.folder.flush();
    await this.folder.makeCheckpointFolder();
    await writeCheckpoint(file, snapshot);
    const { step } = snapshot.progress;
    await this.send({ type: "checkpoint", step, file, best, milliseconds: performance.now() - start });
  }

  /** Whatever is wrong with files becomes a warning, and is returned. */
  async #attempt(step: number, action: () => Promise<void>): Promise<RevNetError | undefined> {
    try {
      await action();
      return undefined;
    } catch (error) {
      if (!(error instanceof RevNetError)) throw error;
      if (error.code === "ERR_NOT_FINITE") throw this.diverged({ code: error.code, message: error.message });
      if (error.code !== "ERR_FILE" && error.code !== "ERR_INVALID_FILE") throw error;
      await this.warn(step, error);
      return error;
    }
  }
}

/**
 * The files of a run: config.json, metrics.jsonl, checkpoints/, summary.json, model.safetensors. Whoever has a RunFolder has its
 * lock.
 */
import * as fs from "node:fs/promises";
import path from "node:path";
import { RevNetError } from "../errors.js";
import { isTemporary, makeFolder, removeTemporaryFiles, writeFileAtomically } from "../files/atomic.js";
import { readJson } from "../files/json.js";
import { printableJson } from "../text.js";
import { type Checkpoint, readCheckpoint } from "./checkpoint.js";
import { FolderLock } from "./lock.js";
import { MetricsLog, type MetricsRecord, readMetrics } from "./metrics.js";

const json = (value: object): Buffer[] => [Buffer.from(`${printableJson(value, 2)}\n`)];
const OVERWRITTEN = ["config.json", "metrics.jsonl", "summary.json", "model.safetensors", "analysis.json", "report.html"];
const MAX_JSON_BYTES = 2 ** 26;
const STEP_FILE = /^step-(\d{8,16})\.safetensors$/;

export class RunFolder {
  #metrics: MetricsLog | undefined;
  readonly #damaged: string[] = [];

  private constructor(
    readonly folder: string,
    private readonly lock: FolderLock,
  ) {}

  /**
   * Makes the folder and takes its lock. Nothing else in it is changed until `begin`: it may be no run's.
   * @throws RevNetError ERR_FILE, ERR_RUN_LOCKED, ERR_ABORTED
   */
  static async open(folder: string, signal?: AbortSignal): Promise<RunFolder> {
    await makeFolder(folder);
    return new RunFolder(folder, await FolderLock.take(folder, { signal }));
  }

  /** Before a write that another run would miss. @throws RevNetError ERR_RUN_LOCKED where the lock was lost; ERR_FILE */
  async confirmLock(): Promise<void> {
    await this.lock.confirm();
  }

  get modelFile(): string {
    return path.join(this.folder, "model.safetensors");
  }

  get bestFile(): string {
    return path.join(this.#checkpoints, "best.safetensors");
  }

  get #checkpoints(): string {
    return path.join(this.folder, "checkpoints");
  }

  get #metricsFile(): string {
    return path.join(this.folder, "metrics.jsonl");
  }

  checkpointFile(step: number): string {
    return path.join(this.#checkpoints, `step-${String(step).padStart(8, "0")}.safetensors`);
  }

  /** Files of checkpoints, the last step's first, then the best one. */
  async checkpointFiles(): Promise<string[]> {
    const steps = (await this.#steps()).map((step) => this.checkpointFile(step)).reverse();
    const best = await fs.stat(this.bestFile).catch(() => undefined);
    return [...steps, ...(best ? [this.bestFile] : [])];
  }

  /**
   * The last checkpoint that is whole. Damaged ones are told to `refused`; `begin` renames them, so that they are in nobody's way.
   * Undefined where there is none. @throws RevNetError ERR_RESUME_MISMATCH for another version's
   */
  async lastCheckpoint(refused: (error: RevNetError) => Promise<void>): Promise<Checkpoint | undefined> {
    for (const file of await this.checkpointFiles())
      try {
        return await readCheckpoint(file);
      } catch (error) {
        if (!(error instanceof RevNetError) || !["ERR_INVALID_FILE", "ERR_FILE"].includes(error.code)) throw error;
        await refused(error);
        if (error.code === "ERR_INVALID_FILE") this.#damaged.push(file);
      }
    return undefined;
  }

  /** Whether there is a run in the folder. */
  static async isRun(folder: string): Promise<boolean> {
    return isConfig(path.join(folder, "config.json"));
  }

  /** Step checkpoints but the last one, damaged ones and files that were not written to their end: nothing that a run goes on from. */
  async superfluousFiles(): Promise<string[]> {
    const steps = (await this.#steps()).slice(0, -1).map((step) => this.checkpointFile(step));
    const names = await fs.readdir(this.#checkpoints).catch(() => []);
    const left = names.filter((name) => name.endsWith(".safetensors.damaged") || isTemporary(name));
    return [...steps, ...left.map((name) => path.join(this.#checkpoints, name))];
  }

  /** A file that a run would overwrite and that is of no run, if there is one: then the folder is for something else. */
  async foreignFile(): Promise<string | undefined> {
    if (await isConfig(path.join(this.folder, "config.json"))) return undefined;
    for (const name of OVERWRITTEN) {
      const file = path.join(this.folder, name);
      if (await fs.lstat(file).catch(() => undefined)) return file;
    }
    return undefined;
  }

  /** Begins writing: config.json, and metrics.jsonl from its first `metricsBytes` on, whose records are returned. @throws RevNetError ERR_FILE */
  async begin(config: object, metricsBytes: number): Promise<MetricsRecord[]> {
    for (const folder of [this.folder, this.#checkpoints]) await removeTemporaryFiles(folder);
    for (const file of this.#damaged) await fs.rename(file, `${file}.damaged`).catch(() => {});
    await writeFileAtomically(path.join(this.folder, "config.json"), json(config));
    try {
      // An earlier end's summary would not be true of what comes.
      await fs.rm(path.join(this.folder, "summary.json"), { force: true });
      const { records, bytes } = await readMetrics(this.#metricsFile, metricsBytes);
      this.#metrics = await MetricsLog.open(this.#metricsFile, bytes);
      return records;
    } catch (error) {
      throw cannotWrite(this.#metricsFile, error);
    }
  }

  /** Appends one line to metrics.jsonl. @throws RevNetError ERR_FILE; the line is then written with a later one */
  async log(record: MetricsRecord): Promise<void> {
    await this.#metrics!.append(record).catch((error) => {
      throw cannotWrite(this.#metricsFile, error);
    });
  }

  /** Bytes of all that was logged. */
  get metricsBytes(): number {
    return this.#metrics!.appendedBytes;
  }

  /** Everything logged is on the disk. @throws RevNetError ERR_FILE */
  async flush(): Promise<void> {
    await this.#metrics!.flush().catch((error) => {
      throw cannotWrite(this.#metricsFile, error);
    });
  }

  /** @throws RevNetError ERR_FILE */
  async makeCheckpointFolder(): Promise<void> {
    await makeFolder(this.#checkpoints);
  }

  /** Removes all but the last `keep` checkpoints up to `step`. What cannot be removed stays. */
  async prune(step: number, keep: number): Promise<void> {
    const older = (await this.#steps()).filter((other) => other <= step).slice(0, -keep);
    for (const other of older) await fs.rm(this.checkpointFile(other), { force: true }).catch(() => {});
  }

  /** @throws RevNetError ERR_FILE */
  async writeSummary(summary: object): Promise<void> {
    await writeFileAtomically(path.join(this.folder, "summary.json"), json(summary));
  }

  /** Closes metrics.jsonl and gives back the lock. Never throws. */
  async close(): Promise<void> {
    await this.#metrics?.close().catch(() => {});
    await this.lock.release();
  }

  /** Steps of the checkpoints that are there, ascending. */
  async #steps(): Promise<number[]> {
    // Absent, or not a folder: then there are none.
    const names = await fs.readdir(this.#checkpoints).catch(() => []);
    return names
      .flatMap((name) => STEP_FILE.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b);
  }
}

/** Whether it is what `begin` writes. */
async function isConfig(file: string): Promise<boolean> {
  try {
    const config = await readJson(file, "ERR_INVALID_FILE", { limit: MAX_JSON_BYTES });
    const { model } = config as { model?: unknown };
    return typeof model === "object" && "batchSize" in (config as object) && "seed" in (config as object);
  } catch {
    return false;
  }
}

function cannotWrite(file: string, cause: unknown): RevNetError {
  if (cause instanceof RevNetError) return cause;
  return new RevNetError("ERR_FILE", `cannot write '${file}': ${(cause as Error).message}`, { cause });
}

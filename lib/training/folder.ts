/** The files of a run: config.json, metrics.jsonl, summary.json, model.safetensors. */
import { once } from "node:events";
import { createWriteStream, type WriteStream } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { finished } from "node:stream/promises";
import { RevNetError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomic.js";

function cannotWrite(file: string, cause: unknown): RevNetError {
  if (cause instanceof RevNetError) return cause;
  return new RevNetError("ERR_FILE", `cannot write ${file}: ${(cause as Error).message}`, { cause });
}

const json = (value: object): Buffer[] => [Buffer.from(`${JSON.stringify(value, null, 2)}\n`)];

export class RunFolder {
  readonly #folder: string;
  readonly #metrics: WriteStream;
  #failure: Error | undefined;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#metrics = createWriteStream(path.join(folder, "metrics.jsonl"));
    this.#metrics.on("error", (error) => {
      this.#failure = error;
    });
  }

  /** Makes the folder and begins its files. Files of an earlier run there are replaced. Rejects with ERR_FILE. */
  static async create(folder: string, config: object): Promise<RunFolder> {
    try {
      await mkdir(folder, { recursive: true });
      await writeFileAtomically(path.join(folder, "config.json"), json(config));
      const run = new RunFolder(folder);
      await once(run.#metrics, "open");
      return run;
    } catch (cause) {
      throw cannotWrite(folder, cause);
    }
  }

  get modelFile(): string {
    return path.join(this.#folder, "model.safetensors");
  }

  /** Appends one line to metrics.jsonl; waits where the disk does not keep up. */
  async log(record: object): Promise<void> {
    this.#check();
    if (!this.#metrics.write(`${JSON.stringify(record)}\n`)) await once(this.#metrics, "drain").catch(() => this.#check());
  }

  async writeSummary(summary: object): Promise<void> {
    await writeFileAtomically(path.join(this.#folder, "summary.json"), json(summary));
  }

  /** Flushes and closes metrics.jsonl. */
  async close(): Promise<void> {
    this.#metrics.end();
    await finished(this.#metrics).catch(() => {});
    this.#check();
  }

  #check(): void {
    if (this.#failure) throw cannotWrite(path.join(this.#folder, "metrics.jsonl"), this.#failure);
  }
}

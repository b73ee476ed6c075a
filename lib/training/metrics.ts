/** metrics.jsonl: one line for each step, validation, verification, epoch and broken image, in order. */
import * as fs from "node:fs/promises";
import { Pacer } from "../data/pacer.js";
import { flush } from "../formats/atomic.js";
import { printableJson } from "../text.js";
import type { BrokenImageEvent, EpochEvent, OutOfRangeEvent, StepEvent, ValidationEvent, VerificationEvent } from "./events.js";

export type MetricsRecord = BrokenImageEvent | StepEvent | OutOfRangeEvent | ValidationEvent | VerificationEvent | EpochEvent;

/** The numbers of each record; what is not finite is null in JSON. */
const FIELDS: Readonly<Record<MetricsRecord["type"], readonly string[]>> = {
  brokenImage: ["step"],
  step: ["step", "epoch", "loss", "error", "learningRate", "milliseconds"],
  outOfRange: ["step", "count"],
  validation: ["step", "epoch", "loss", "error", "milliseconds"],
  verification: ["step", "epoch", "maxError", "cosine", "milliseconds"],
  epoch: ["step", "epoch", "loss", "error", "milliseconds"],
};
const BLOCK_FIELDS = ["stage", "block", "error"];

/**
 * Appends to the file. Lines that cannot be written (the disk is full) wait in memory for the next `flush`; since each write
 * says where it goes, what a failed one left behind is overwritten.
 */
export class MetricsLog {
  #pending: string[] = [];
  #failed = false;

  private constructor(
    private readonly handle: fs.FileHandle,
    /** Length of the file's good part. */
    private length: number,
  ) {}

  /** Cuts the file back to `length` bytes, and goes on from there. Rejects with the system's error. */
  static async open(file: string, length: number): Promise<MetricsLog> {
    const handle = await fs.open(file, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o666);
    try {
      await handle.truncate(length);
    } catch (error) {
      await handle.close();
      throw error;
    }
    return new MetricsLog(handle, length);
  }

  /** Bytes in the file: after a flush, of all that was appended. */
  get bytes(): number {
    return this.length;
  }

  /** Rejects with the system's error once; until a flush has succeeded, lines are then kept without trying. */
  async append(record: MetricsRecord): Promise<void> {
    this.#pending.push(`${printableJson(record)}\n`);
    if (!this.#failed) await this.#write();
  }

  /** Everything appended is in the file, and on the disk. Rejects with the system's error. */
  async flush(): Promise<void> {
    await this.#write();
    await flush(this.handle);
  }

  async close(): Promise<void> {
    await this.handle.close();
  }

  async #write(): Promise<void> {
    const bytes = Buffer.from(this.#pending.join(""));
    this.#failed = true;
    for (let done = 0; done < bytes.length; )
      done += (await this.handle.write(bytes, done, bytes.length - done, this.length + done)).bytesWritten;
    this.length += bytes.length;
    this.#pending = [];
    this.#failed = false;
  }
}

export interface MetricsFile {
  readonly records: MetricsRecord[];
  /** Of the part that was read. */
  readonly bytes: number;
}

/**
 * The records in the first `length` bytes, as far as they are whole lines of the expected form: a line that was torn when the
 * process ended is normal. A file that is absent has none. Rejects with the system's error.
 */
export async function readMetrics(file: string, length: number): Promise<MetricsFile> {
  let content: Buffer;
  try {
    content = (await fs.readFile(file)).subarray(0, length);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return { records: [], bytes: 0 };
    throw error;
  }
  const records: MetricsRecord[] = [];
  const pacer = new Pacer();
  let bytes = 0;
  for (let end = content.indexOf("\n"); end >= 0; end = content.indexOf("\n", bytes)) {
    const record = parseRecord(content.toString("utf8", bytes, end));
    if (!record) break;
    records.push(record);
    bytes = end + 1;
    await pacer.breathe();
  }
  return { records, bytes };
}

function parseRecord(line: string): MetricsRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const record = value as Record<string, unknown>;
  const { type, blocks } = record;
  if (typeof type !== "string" || !Object.hasOwn(FIELDS, type)) return undefined;
  if (!readNumbers(record, FIELDS[type as MetricsRecord["type"]])) return undefined;
  if (type === "brokenImage" && (typeof record.file !== "string" || typeof record.reason !== "string")) return undefined;
  if (type === "verification" && !(Array.isArray(blocks) && blocks.every((block) => readNumbers(block, BLOCK_FIELDS))))
    return undefined;
  return record as unknown as MetricsRecord;
}

/** Whether all of these fields are numbers; null becomes NaN. */
function readNumbers(value: unknown, fields: readonly string[]): boolean {
  if (typeof value !== "object" || value === null) return false;
  const record = value as Record<string, unknown>;
  for (const field of fields) {
    if (record[field] === null) record[field] = Number.NaN;
    if (typeof record[field] !== "number") return false;
  }
  return true;
}

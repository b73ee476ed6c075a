/** metrics.jsonl: one line for each step, validation, verification, epoch and broken image, in order. */
import * as fs from "node:fs/promises";
import { Pacer } from "../data/pacer.js";
import { flush } from "../files/atomic.js";
import { isAbsent, OpenFile } from "../files/open.js";
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
const VALIDATED: readonly unknown[] = ["validation", "test"];
const BLOCK_FIELDS = ["stage", "block", "error"];

/**
 * Appends to the file. Lines that cannot be written (the disk is full) wait in memory for the next `flush`; since each write
 * says where it goes, what a failed one left behind is overwritten.
 */
export class MetricsLog {
  #pending: string[] = [];
  #pendingBytes = 0;
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

  /** Bytes in the file. */
  get bytes(): number {
    return this.length;
  }

  /** Bytes of all that was appended: those in the file after a flush. */
  get appendedBytes(): number {
    return this.length + this.#pendingBytes;
  }

  /** Rejects with the system's error once; until a flush has succeeded, lines are then kept without trying. */
  async append(record: MetricsRecord): Promise<void> {
    const line = `${printableJson(record)}\n`;
    this.#pending.push(line);
    this.#pendingBytes += Buffer.byteLength(line);
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
    this.#pendingBytes = 0;
    this.#failed = false;
  }
}

export interface MetricsFile {
  /** Of the part that was kept in memory, and before them all broken images. */
  readonly records: MetricsRecord[];
  /** Of the part that was read. */
  readonly bytes: number;
}

/** What is read of the end of a file: some 60,000 lines. */
const WINDOW_BYTES = 2 ** 23;
/** What is searched at once of all that is before. */
const PIECE_BYTES = 2 ** 22;
const NEWLINE = 0x0a;
const BROKEN_IMAGE = '"type":"brokenImage"';

/**
 * The last records in the first `length` bytes, as many as are in a window of limited size, so that a long run is gone on with as
 * soon as a short one; of what was before, images that could not be decoded. They are read up to the first line that is not whole or
 * of another form: a line that was torn when the process ended is normal. A file that is absent has none.
 * @throws RevNetError ERR_FILE
 */
export async function readMetrics(file: string, length: number, windowBytes = WINDOW_BYTES): Promise<MetricsFile> {
  let opened: OpenFile;
  try {
    opened = await OpenFile.open(file);
  } catch (error) {
    if (isAbsent(error)) return { records: [], bytes: 0 };
    throw error;
  }
  try {
    const end = Math.min(length, opened.size);
    // From the byte before, which is a newline where the window begins with a line.
    const from = Math.max(0, end - windowBytes - 1);
    const window = Buffer.from((await opened.read(from, end - from)).buffer);
    const begin = from === 0 ? 0 : window.indexOf(NEWLINE) + 1;
    const records = await brokenImagesIn(opened, from + begin);
    const pacer = new Pacer();
    let bytes = begin;
    for (let newline = window.indexOf(NEWLINE, bytes); newline >= 0; newline = window.indexOf(NEWLINE, bytes)) {
      const record = parseRecord(window.toString("utf8", bytes, newline));
      if (!record) break;
      records.push(record);
      bytes = newline + 1;
      await pacer.breathe();
    }
    return { records, bytes: from + bytes };
  } finally {
    await opened.close();
  }
}

/** Records of images that could not be decoded in the first `length` bytes, which are whole lines. */
async function brokenImagesIn(opened: OpenFile, length: number): Promise<MetricsRecord[]> {
  const records: MetricsRecord[] = [];
  let rest = Buffer.alloc(0);
  for (let from = 0; from < length; from += PIECE_BYTES) {
    const piece = await opened.read(from, Math.min(PIECE_BYTES, length - from));
    const text = rest.length === 0 ? Buffer.from(piece.buffer) : Buffer.concat([rest, piece]);
    for (let at = text.indexOf(BROKEN_IMAGE); at >= 0; at = text.indexOf(BROKEN_IMAGE, at + 1)) {
      const end = text.indexOf(NEWLINE, at);
      if (end < 0) break;
      const record = parseRecord(text.toString("utf8", text.lastIndexOf(NEWLINE, at) + 1, end));
      if (record) records.push(record);
    }
    // A line that goes on in the next piece; no line of ours is longer than a piece.
    rest = text.subarray(Math.max(text.lastIndexOf(NEWLINE) + 1, text.length - piece.length));
  }
  return records;
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
  // Files of earlier builds do not say which.
  if (type === "validation") record.split ??= "test";
  if (type === "validation" && !VALIDATED.includes(record.split)) return undefined;
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

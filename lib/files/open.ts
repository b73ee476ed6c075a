/**
 * The one way to open a file that a user or a network gave. Only regular files are opened: reading a named pipe or a terminal may never
 * end, and a device may be endless. Nothing is read beyond a limit that the caller states. A test keeps the rest of lib/ from opening
 * files in any other way.
 */
import * as fs from "node:fs";
import { RevNetError } from "../errors.js";
import { bytes as inBytes } from "../text.js";

/** What the caller expects of a file. */
export interface Expected {
  /** What messages call it, such as "model file"; default: the path alone. */
  readonly what?: string;
  /** The most bytes it may have; default: any number, for files that are read in parts. */
  readonly limit?: number;
  /** Of the error where it cannot be read or is too large; default ERR_FILE. */
  readonly code?: string;
}

// O_NONBLOCK: opening a named pipe would wait for a writer. Windows has neither of the two.
const FLAGS = fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0) | (fs.constants.O_NOCTTY ?? 0);
/** What is read at first of a file that does not tell its size, as those in /proc. */
const CHUNK_BYTES = 1 << 16;
/** Systems refuse to read 2 GiB or more at once. */
const READ_BYTES = 1 << 30;

/** A regular file that is open for reading. */
export class OpenFile {
  private constructor(
    readonly file: string,
    /** As of the opening. */
    readonly stats: fs.Stats,
    private readonly handle: fs.promises.FileHandle,
    private readonly expected: Expected,
  ) {}

  /** @throws RevNetError `expected.code`; isAbsent tells where there is no such file */
  static async open(file: string, expected: Expected = {}): Promise<OpenFile> {
    let handle: fs.promises.FileHandle | undefined;
    try {
      // Before it is opened too: opening some devices has an effect.
      refuse(await fs.promises.stat(file), expected);
      handle = await fs.promises.open(file, FLAGS);
      const stats = await handle.stat();
      refuse(stats, expected);
      return new OpenFile(file, stats, handle, expected);
    } catch (error) {
      await handle?.close();
      throw unreadable(file, expected, error);
    }
  }

  get size(): number {
    return this.stats.size;
  }

  /** Bytes [position, position + count), in a buffer of their own. @throws RevNetError also where the file ends before */
  async read(position: number, count: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count; ) {
      const read = await this.#read(bytes, done, Math.min(count - done, READ_BYTES), position + done);
      if (read === 0) throw unreadable(this.file, this.expected, new Error("it ended while it was read"));
      done += read;
    }
    return bytes;
  }

  /** All bytes, however many there are by now, within the limit. */
  async readAll(): Promise<Buffer<ArrayBuffer>> {
    const whole = new Growing(this.size, this.expected);
    try {
      for (;;) {
        const room = whole.room();
        const read = await this.#read(room, 0, Math.min(room.length, READ_BYTES), whole.length);
        if (whole.took(read)) return whole.bytes();
      }
    } catch (error) {
      throw unreadable(this.file, this.expected, error);
    }
  }

  /** Bytes [from, to) in pieces; the same memory each time, so a piece is to be used before the next one is asked for. */
  async *pieces(from = 0, to = this.size): AsyncGenerator<Uint8Array> {
    const memory = new Uint8Array(CHUNK_BYTES);
    for (let at = from; at < to; ) {
      const read = await this.#read(memory, 0, Math.min(memory.length, to - at), at);
      if (read === 0) return;
      yield memory.subarray(0, read);
      at += read;
    }
  }

  async close(): Promise<void> {
    await this.handle.close();
  }

  async #read(into: Uint8Array, offset: number, count: number, position: number): Promise<number> {
    try {
      return (await this.handle.read(into, offset, count, position)).bytesRead;
    } catch (error) {
      throw unreadable(this.file, this.expected, error);
    }
  }
}

/** @throws RevNetError as OpenFile.open */
export async function readFile(file: string, expected: Expected & { readonly limit: number }): Promise<Buffer<ArrayBuffer>> {
  const opened = await OpenFile.open(file, expected);
  try {
    return await opened.readAll();
  } finally {
    await opened.close();
  }
}

/** As readFile, where nothing can be awaited. */
export function readFileSync(file: string, expected: Expected & { readonly limit: number }): Buffer<ArrayBuffer> {
  const { descriptor, size } = openFileSync(file, expected);
  try {
    const whole = new Growing(size, expected);
    for (;;) {
      const room = whole.room();
      const read = fs.readSync(descriptor, room, 0, Math.min(room.length, READ_BYTES), whole.length);
      if (whole.took(read)) return whole.bytes();
    }
  } catch (error) {
    throw unreadable(file, expected, error);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** A descriptor, which the caller closes. @throws RevNetError as OpenFile.open */
export function openFileSync(file: string, expected: Expected = {}): { descriptor: number; size: number } {
  let descriptor: number | undefined;
  try {
    refuse(fs.statSync(file), expected);
    descriptor = fs.openSync(file, FLAGS);
    const stats = fs.fstatSync(descriptor);
    refuse(stats, expected);
    return { descriptor, size: stats.size };
  } catch (error) {
    if (descriptor !== undefined) fs.closeSync(descriptor);
    throw unreadable(file, expected, error);
  }
}

/** UTF-8, without a byte order mark. */
export const decodeText = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** Whether an error of this module says that there is no such file. */
export function isAbsent(error: unknown): boolean {
  const { cause } = error as { cause?: NodeJS.ErrnoException };
  return cause?.code === "ENOENT" || cause?.code === "ENOTDIR";
}

/** What something is that is no regular file: "a folder", "a named pipe". */
export function kindOf(stats: fs.Stats | fs.Dirent): string {
  if (stats.isFile()) return "a file";
  if (stats.isDirectory()) return "a folder";
  if (stats.isFIFO()) return "a named pipe";
  if (stats.isSocket()) return "a socket";
  if (stats.isSymbolicLink()) return "a link";
  return "a device";
}

function refuse(stats: fs.Stats, expected: Expected): void {
  if (!stats.isFile()) throw new Error(`it is ${kindOf(stats)}, expected a regular file`);
  if (stats.size > limitOf(expected)) throw tooLarge(stats.size, expected);
}

const limitOf = ({ limit = Number.POSITIVE_INFINITY }: Expected) => limit;
const tooLarge = (size: number, expected: Expected) =>
  new Error(`it has ${inBytes(size)} (${size} bytes), expected at most ${inBytes(limitOf(expected))}`);

function unreadable(file: string, { what, code = "ERR_FILE" }: Expected, cause: unknown): RevNetError {
  if (cause instanceof RevNetError) return cause;
  const { code: system, message } = cause as NodeJS.ErrnoException;
  const reason = system === "ENOENT" ? `there is no such file (${message})` : message;
  return new RevNetError(code, `${what === undefined ? "" : `${what} `}'${file}' cannot be read: ${reason}`, { cause });
}

/** Memory for a file that may have more bytes than it said: it may grow meanwhile, and those in /proc say 0. */
class Growing {
  #memory: Buffer<ArrayBuffer>;
  #length = 0;

  constructor(
    size: number,
    private readonly expected: Expected,
  ) {
    // One more, so that the end is seen without growing.
    this.#memory = Buffer.alloc(size === 0 ? CHUNK_BYTES : size + 1);
  }

  get length(): number {
    return this.#length;
  }

  room(): Buffer<ArrayBuffer> {
    if (this.#length === this.#memory.length) {
      const larger = Buffer.alloc(2 * this.#memory.length);
      this.#memory.copy(larger);
      this.#memory = larger;
    }
    return this.#memory.subarray(this.#length);
  }

  /** Counts what was read into the room; whether that was the end. */
  took(count: number): boolean {
    this.#length += count;
    if (this.#length > limitOf(this.expected)) throw tooLarge(this.#length, this.expected);
    return count === 0;
  }

  bytes(): Buffer<ArrayBuffer> {
    return this.#memory.subarray(0, this.#length);
  }
}

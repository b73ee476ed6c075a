/**
 * A pack: the pictures (picture.ts) of a folder in one file, so that training copies bytes instead of decoding images.
 *
 *   8 bytes   magic
 *   pictures  one after another
 *   index     JSON: the input's shape, and of each image file its name, size and time, and where its picture is (or why there is none)
 *   48 bytes  where the index begins and how long it is (two 64-bit numbers), and its SHA-256
 *
 * A pack is used where each image file of the folder still has the size and the time that the index says. Each picture has a
 * CRC-32, checked whenever it is read.
 */
import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import path from "node:path";
import { crc32 } from "node:zlib";
import { RevNetError } from "../errors.js";
import { flush, temporaryName } from "../files/atomic.js";
import { parseJson } from "../files/json.js";
import { isAbsent, OpenFile } from "../files/open.js";
import type { ImageFile } from "./folder.js";
import type { Shape } from "./picture.js";

const MAGIC = Buffer.from("rvnpack2");
const TRAILER = 48;
const MAX_INDEX_BYTES = 2 ** 29 - 1024; // of one string

/** Where a picture is. */
export interface Packed {
  readonly offset: number;
  readonly height: number;
  readonly width: number;
  readonly crc: number;
}
export interface PackEntry {
  readonly size: number;
  readonly mtimeMs: number;
  readonly picture: Packed | undefined;
  /** Why the file has no picture. */
  readonly broken: string | undefined;
}
export interface Pack {
  readonly file: string;
  /** By the image's name. */
  readonly entries: ReadonlyMap<string, PackEntry>;
}

type Row = [
  name: string,
  size: number,
  mtimeMs: number,
  ...rest: [offset: number, height: number, width: number, crc: number] | [broken: string],
];

/** Where the pack of a folder is, for an input's shape. */
export const packFile = (folder: string, shape: Shape): string => path.join(folder, `revnet-${shape.join("x")}.pack`);

/** Writes a pack beside its place, picture by picture; `finish` puts it there. */
export class PackWriter {
  readonly #rows: Row[] = [];
  #length = MAGIC.length;

  private constructor(
    private readonly file: string,
    private readonly temporary: string,
    private readonly handle: fs.FileHandle,
    private readonly shape: Shape,
  ) {}

  /** @throws RevNetError ERR_FILE, as all of its functions */
  static async create(file: string, shape: Shape): Promise<PackWriter> {
    const temporary = temporaryName(file);
    return attempt(file, async () => {
      const handle = await fs.open(temporary, "wx");
      await handle.write(MAGIC);
      return new PackWriter(file, temporary, handle, shape);
    });
  }

  async add({ name, size, mtimeMs }: ImageFile, height: number, width: number, pixels: Uint8Array): Promise<void> {
    await attempt(this.file, () => this.handle.writeFile(pixels));
    this.#rows.push([name, size, mtimeMs, this.#length, height, width, crc32(pixels)]);
    this.#length += pixels.length;
  }

  addBroken({ name, size, mtimeMs }: ImageFile, reason: string): void {
    this.#rows.push([name, size, mtimeMs, reason]);
  }

  async finish(): Promise<void> {
    const index = Buffer.from(JSON.stringify({ shape: this.shape, rows: this.#rows }));
    const trailer = Buffer.alloc(TRAILER);
    trailer.writeBigUInt64LE(BigInt(this.#length), 0);
    trailer.writeBigUInt64LE(BigInt(index.length), 8);
    createHash("sha256").update(index).digest().copy(trailer, 16);
    await attempt(this.file, async () => {
      await this.handle.writeFile(index);
      await this.handle.writeFile(trailer);
      await flush(this.handle);
      await this.handle.close();
      await fs.rename(this.temporary, this.file);
    });
  }

  /** Leaves nothing behind. */
  async abandon(): Promise<void> {
    await this.handle.close().catch(() => {});
    await fs.rm(this.temporary, { force: true }).catch(() => {});
  }
}

async function attempt<T>(file: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    throw new RevNetError("ERR_FILE", `cannot write '${file}': ${(cause as Error).message}`, { cause });
  }
}

/** undefined where there is no such file. @throws RevNetError ERR_FILE, ERR_INVALID_FILE */
export async function readPack(file: string, shape: Shape): Promise<Pack | undefined> {
  let opened: OpenFile;
  try {
    opened = await OpenFile.open(file);
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
  try {
    return { file, entries: await readIndex(opened, shape) };
  } finally {
    await opened.close();
  }
}

async function readIndex(opened: OpenFile, shape: Shape): Promise<Map<string, PackEntry>> {
  const { file, size } = opened;
  const invalid = (what: string) => new RevNetError("ERR_INVALID_FILE", `'${file}' is not a whole pack: ${what}`);
  const read = async (length: number, position: number) => Buffer.from((await opened.read(position, length)).buffer);
  if (size < MAGIC.length + TRAILER) throw invalid(`it has ${size} bytes`);
  if (!(await read(MAGIC.length, 0)).equals(MAGIC)) throw invalid("it does not begin as one");
  const trailer = await read(TRAILER, size - TRAILER);
  const [start, length] = [trailer.readBigUInt64LE(0), trailer.readBigUInt64LE(8)];
  if (length > MAX_INDEX_BYTES || start + length !== BigInt(size - TRAILER)) throw invalid("its index is not where it should be");
  const bytes = await read(Number(length), Number(start));
  if (!createHash("sha256").update(bytes).digest().equals(trailer.subarray(16))) throw invalid("its index is damaged");
  // The checksum vouches for what this package wrote, not for what a pack made by others says.
  const index = parseJson(bytes.toString(), `the index of '${file}'`, "ERR_INVALID_FILE") as { shape?: unknown; rows?: unknown };
  if (!Array.isArray(index?.shape) || !Array.isArray(index.rows)) throw invalid("its index has no shape and rows");
  const made = index.shape.slice(0, 4).map(Number).join("x");
  if (made !== shape.join("x")) throw invalid(`it is for inputs of ${made}, expected ${shape.join("x")}`);
  const entries = new Map<string, PackEntry>();
  for (const row of index.rows as unknown[]) {
    if (!isRow(row)) throw invalid("a row of its index is not what it should be");
    const [name, fileSize, mtimeMs, ...rest] = row;
    const [first, height = 0, width = 0, crc = 0] = rest;
    const known = { size: fileSize, mtimeMs };
    if (typeof first === "string") {
      entries.set(name, { ...known, picture: undefined, broken: first });
      continue;
    }
    const inside = first >= MAGIC.length && height >= shape[0] && width >= shape[1] && first + height * width * shape[2] <= start;
    if (![first, height, width].every(Number.isSafeInteger) || !inside) throw invalid(`the place of ${name} is not in it`);
    entries.set(name, { ...known, picture: { offset: first, height, width, crc }, broken: undefined });
  }
  return entries;
}

const isRow = (row: unknown): row is Row =>
  Array.isArray(row) &&
  typeof row[0] === "string" &&
  row.slice(1, 3).every((value) => typeof value === "number") &&
  (typeof row[3] === "string" || (row.length === 7 && row.slice(3).every((value) => typeof value === "number")));

/** The first of the files that the pack does not know as it is now. */
export function firstChanged({ entries }: Pack, files: readonly ImageFile[]): ImageFile | undefined {
  return files.find(({ name, size, mtimeMs }) => {
    const entry = entries.get(name);
    return entry === undefined || entry.size !== size || entry.mtimeMs !== mtimeMs;
  });
}

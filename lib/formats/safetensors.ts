/**
 * The safetensors format: eight bytes of header length (little-endian), a JSON header
 *   { "__metadata__": { key: string }, name: { "dtype": "F32", "shape": [...], "data_offsets": [begin, end] } }
 * and the tensors' bytes, without holes. Files are not trusted: nothing is allocated before it is known to be in the file.
 * Typed arrays and the format are both little-endian on every platform that Node runs on.
 */

import { createHash } from "node:crypto";
import { types } from "node:util";
import { Pacer } from "../data/pacer.js";
import { RevNetError } from "../errors.js";
import { writeFileAtomically } from "../files/atomic.js";
import { parseJson } from "../files/json.js";
import { OpenFile } from "../files/open.js";

export type TensorData = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array;

export interface Tensor {
  readonly shape: readonly number[];
  readonly data: TensorData;
}

export interface SafetensorsFile {
  readonly metadata: ReadonlyMap<string, string>;
  /** In the order of the header. */
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/**
 * With `digest`, the metadata's `sha256` is that of the whole file, with its own 64 digits taken as zeros: whatever byte is
 * damaged, it is noticed.
 */
export interface SafetensorsOptions {
  readonly digest?: boolean;
}
export interface ReadOptions {
  /** Whether a file of this metadata must carry a digest, and match it; default: none need. */
  readonly digest?: (metadata: ReadonlyMap<string, string>) => boolean;
}

const NO_DIGEST = "0".repeat(64);
const MAX_HEADER_BYTES = 100e6; // the format's own limit
const MAX_DIMENSIONS = 16;

interface Type {
  readonly bytes: number;
  /** `buffer` is the tensor's own. */
  view(buffer: ArrayBuffer): TensorData;
}

const TYPES: ReadonlyMap<string, Type> = new Map<string, Type>([
  ["F64", { bytes: 8, view: (buffer) => new Float64Array(buffer) }],
  ["F32", { bytes: 4, view: (buffer) => new Float32Array(buffer) }],
  ["F16", { bytes: 2, view: (buffer) => Float32Array.from(new Uint16Array(buffer), fromFloat16) }],
  ["BF16", { bytes: 2, view: (buffer) => fromBfloat16(new Uint16Array(buffer)) }],
  ["I64", { bytes: 8, view: (buffer) => new BigInt64Array(buffer) }],
  ["I32", { bytes: 4, view: (buffer) => new Int32Array(buffer) }],
  ["U8", { bytes: 1, view: (buffer) => new Uint8Array(buffer) }],
]);

interface Entry {
  readonly name: string;
  readonly type: Type;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/**
 * Reads a whole file. F16 and BF16 come as float32.
 * @throws RevNetError ERR_FILE (cannot be read) or ERR_INVALID_FILE (is not such a file), naming the path and the reason
 */
export async function readSafetensors(file: string, { digest = () => false }: ReadOptions = {}): Promise<SafetensorsFile> {
  const opened = await OpenFile.open(file);
  try {
    const headerBytes = await readHeaderLength(opened);
    const start = 8 + headerBytes;
    const header = await opened.read(8, headerBytes);
    const { metadata, entries } = parseHeader(header, opened.size - start);
    const bytes = new Map<Entry, Uint8Array<ArrayBuffer>>();
    for (const entry of entries) bytes.set(entry, await opened.read(start + entry.begin, entry.end - entry.begin));
    if (digest(metadata))
      await checkDigest(
        metadata,
        header,
        [...bytes].sort(([a], [b]) => a.begin - b.begin).map(([, data]) => data),
      );
    const tensors = new Map<string, Tensor>();
    for (const [{ name, type, shape }, { buffer }] of bytes) tensors.set(name, { shape, data: type.view(buffer) });
    return { metadata, tensors };
  } catch (error) {
    const { message } = error as Error;
    if (error instanceof InvalidFile)
      throw new RevNetError("ERR_INVALID_FILE", `'${file}' is not a valid safetensors file: ${message}`);
    if (error instanceof RevNetError) throw error;
    throw new RevNetError("ERR_FILE", `'${file}' cannot be read: ${message}`, { cause: error });
  } finally {
    await opened.close();
  }
}

/**
 * Writes tensors atomically: float32 as F32, float64 as F64, and so on.
 * @throws RevNetError ERR_FILE
 */
export async function writeSafetensors(
  file: string,
  tensors: ReadonlyMap<string, Tensor>,
  metadata: Readonly<Record<string, string>> = {},
  { digest = false }: SafetensorsOptions = {},
): Promise<void> {
  // Widest elements first, so that each tensor starts at a multiple of its element's size.
  const ordered = [...tensors].sort(([, a], [, b]) => b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT);
  const carried = digest ? { ...metadata, sha256: NO_DIGEST } : metadata;
  const header: Record<string, unknown> = Object.keys(carried).length > 0 ? { __metadata__: carried } : {};
  const chunks: Uint8Array[] = [];
  let offset = 0;
  for (const [name, { shape, data }] of ordered) {
    if (name === "__metadata__") throw new RevNetError("ERR_INVALID_ARGUMENT", "a tensor cannot be called '__metadata__'");
    header[name] = { dtype: typeOf(data), shape, data_offsets: [offset, offset + data.byteLength] };
    chunks.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    offset += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.alloc(Math.ceil(json.length / 8) * 8, " ");
  json.copy(padded);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  if (digest) padded.write(await digestOf([length, padded, ...chunks]), digestPosition(padded, NO_DIGEST));
  await writeFileAtomically(file, [length, padded, ...chunks]);
}

async function digestOf(chunks: readonly Uint8Array[]): Promise<string> {
  const hash = createHash("sha256");
  const pacer = new Pacer();
  for (const chunk of chunks) {
    hash.update(chunk);
    await pacer.breathe();
  }
  return hash.digest("hex");
}

/** Where in a header the digits of its digest begin. Other strings have their quotes escaped, so this is found nowhere else. */
function digestPosition(header: Buffer, digits: string): number {
  const key = '"sha256":"';
  return header.indexOf(`${key}${digits}"`) + key.length;
}

async function checkDigest(
  metadata: ReadonlyMap<string, string>,
  header: Uint8Array<ArrayBuffer>,
  data: readonly Uint8Array[],
): Promise<void> {
  const digits = metadata.get("sha256");
  if (digits === undefined || !/^[0-9a-f]{64}$/.test(digits)) throw new InvalidFile("it carries no SHA-256 of its bytes");
  const zeroed = Buffer.from(header);
  zeroed.write(NO_DIGEST, digestPosition(zeroed, digits));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const found = await digestOf([length, zeroed, ...data]);
  if (found !== digits) throw new InvalidFile(`its bytes are damaged: their SHA-256 is ${found}, expected ${digits}`);
}

class InvalidFile extends Error {}

async function readHeaderLength(opened: OpenFile): Promise<number> {
  const { size } = opened;
  if (size < 8) throw new InvalidFile(`its ${size} bytes are fewer than the 8 of a header length`);
  const length = Buffer.from((await opened.read(0, 8)).buffer).readBigUInt64LE();
  if (length > BigInt(MAX_HEADER_BYTES))
    throw new InvalidFile(`a header of ${length} bytes is longer than the ${MAX_HEADER_BYTES} allowed`);
  if (length > BigInt(size - 8))
    throw new InvalidFile(`a header of ${length} bytes does not fit a file of ${size}; is it truncated?`);
  return Number(length);
}

function parseHeader(bytes: Uint8Array, dataBytes: number): { metadata: Map<string, string>; entries: Entry[] } {
  let header: unknown;
  try {
    header = parseJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes), "its header", "ERR_INVALID_FILE");
  } catch (error) {
    throw new InvalidFile(error instanceof RevNetError ? error.message : "its header is not UTF-8");
  }
  if (!isObject(header)) throw new InvalidFile("its header is not a JSON object");
  const entries: Entry[] = [];
  let metadata = new Map<string, string>();
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") metadata = parseMetadata(value);
    else entries.push(parseEntry(name, value));
  }
  checkOffsets(entries, dataBytes);
  return { metadata, entries };
}

function parseMetadata(value: unknown): Map<string, string> {
  if (!isObject(value)) throw new InvalidFile("__metadata__ is not an object");
  for (const [key, text] of Object.entries(value))
    if (typeof text !== "string") throw new InvalidFile(`__metadata__ '${key}' is not a string`);
  return new Map(Object.entries(value as Record<string, string>));
}

function parseEntry(name: string, value: unknown): Entry {
  const tensor = `tensor '${name.slice(0, 200)}'`;
  if (!isObject(value)) throw new InvalidFile(`${tensor} is not described by an object`);
  const { dtype, shape, data_offsets: offsets } = value;
  const type = typeof dtype === "string" ? TYPES.get(dtype) : undefined;
  if (!type)
    throw new InvalidFile(`${tensor}: dtype ${JSON.stringify(dtype)?.slice(0, 50)} is not one of ${[...TYPES.keys()].join(", ")}`);
  if (!isSizes(shape) || shape.length > MAX_DIMENSIONS)
    throw new InvalidFile(`${tensor}: shape is not a list of up to ${MAX_DIMENSIONS} sizes`);
  if (!isSizes(offsets) || offsets.length !== 2) throw new InvalidFile(`${tensor}: data_offsets are not two positions`);
  const [begin, end] = offsets as [number, number];
  const bytes = shape.reduce((product, size) => product * size, type.bytes);
  if (end - begin !== bytes)
    throw new InvalidFile(`${tensor}: ${end - begin} bytes from ${begin} to ${end}, but its shape takes ${bytes}`);
  return { name, type, shape, begin, end };
}

/**
 * Tensors must fill the data part exactly, side by side: none overlap, and none is hidden. (A name given twice leaves the
 * place of the first one empty, so it is found here as well.)
 */
function checkOffsets(entries: readonly Entry[], dataBytes: number): void {
  let at = 0;
  for (const { name, begin, end } of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== at)
      throw new InvalidFile(
        `tensor '${name}' begins at byte ${begin} of the data, expected ${at}: tensors overlap or leave a hole`,
      );
    at = end;
  }
  if (at !== dataBytes) throw new InvalidFile(`its tensors take ${at} bytes, but ${dataBytes} follow the header; is it truncated?`);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);

function typeOf(data: TensorData): string {
  if (types.isFloat32Array(data)) return "F32";
  if (types.isFloat64Array(data)) return "F64";
  if (types.isInt32Array(data)) return "I32";
  if (types.isBigInt64Array(data)) return "I64";
  return "U8";
}

/** One sign, five exponent and ten fraction bits. */
function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

/** The upper half of a float32. */
function fromBfloat16(halves: Uint16Array): Float32Array {
  return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
}

/**
 * The binary versions of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009; https://www.cs.toronto.edu/~kriz/cifar.html). A record is
 * one label byte (CIFAR-100: a coarse, then a fine label) and 3072 bytes of a 32x32 image in planes R, G, B.
 */
import path from "node:path";
import { RevNetError } from "../errors.js";
import { decodeText, isAbsent, readFile } from "../files/open.js";
import type { Dataset, Split } from "./dataset.js";
import { Pacer } from "./pacer.js";

const EDGE = 32;
const CHANNELS = 3;
const PLANE = EDGE * EDGE;
const IMAGE = PLANE * CHANNELS;
const MAX_NAMES_BYTES = 2 ** 16;

interface Format {
  readonly name: string;
  readonly trainFiles: readonly string[];
  readonly testFile: string;
  readonly labelBytes: number;
  /** Which of the label bytes is used. */
  readonly labelByte: number;
  readonly classes: number;
  /** The most that a file has: a larger one is something else, and is not read. */
  readonly fileRecords: number;
  /** Text file with a class name on each line; the data set can be read without it. */
  readonly namesFile: string;
}

export const CIFAR_10: Format = {
  name: "cifar-10",
  trainFiles: [1, 2, 3, 4, 5].map((i) => `data_batch_${i}.bin`),
  testFile: "test_batch.bin",
  labelBytes: 1,
  labelByte: 0,
  classes: 10,
  fileRecords: 10_000,
  namesFile: "batches.meta.txt",
};
export const CIFAR_100: Format = {
  name: "cifar-100",
  trainFiles: ["train.bin"],
  testFile: "test.bin",
  labelBytes: 2,
  labelByte: 1,
  classes: 100,
  fileRecords: 50_000,
  namesFile: "fine_label_names.txt",
};
export const CIFAR_100_COARSE: Format = { ...CIFAR_100, labelByte: 0, classes: 20, namesFile: "coarse_label_names.txt" };

function invalid(file: string, what: string, cause?: unknown): RevNetError {
  return new RevNetError("ERR_INVALID_DATA", `${file}: ${what}`, { cause });
}

async function readRecords(file: string, format: Format): Promise<Buffer> {
  const record = format.labelBytes + IMAGE;
  const limit = format.fileRecords * record;
  const bytes = await readFile(file, { what: `file of ${format.name}`, limit, code: "ERR_INVALID_DATA" }).catch(
    (cause: unknown) => {
      if (!isAbsent(cause)) throw cause;
      const where = `"dataDir" must be the folder of the binary version of ${format.name}`;
      throw invalid(file, `not found; ${where}, which \`revnet data download ${format.name} --data-dir DIR\` fetches`, cause);
    },
  );
  if (bytes.length === 0) throw invalid(file, "is empty");
  if (bytes.length % record !== 0)
    throw invalid(
      file,
      `${bytes.length} bytes are not whole records of ${record} bytes; the file is truncated or not ${format.name}`,
    );
  return bytes;
}

/** Appends a file's records to `split` from image `first` on, planes turned into interleaved pixels. */
async function unpack(bytes: Buffer, file: string, format: Format, split: Split, first: number, pacer: Pacer): Promise<void> {
  const record = format.labelBytes + IMAGE;
  for (let i = 0; i < bytes.length / record; i++) {
    const label = bytes[i * record + format.labelByte]!;
    if (label >= format.classes) throw invalid(file, `record ${i} has label ${label}; expected 0 to ${format.classes - 1}`);
    split.labels[first + i] = label;
    const from = i * record + format.labelBytes;
    const to = (first + i) * IMAGE;
    for (let channel = 0; channel < CHANNELS; channel++)
      for (let pixel = 0; pixel < PLANE; pixel++)
        split.images[to + pixel * CHANNELS + channel] = bytes[from + channel * PLANE + pixel]!;
    await pacer.breathe();
  }
}

async function readSplit(folder: string, names: readonly string[], format: Format, pacer: Pacer): Promise<Split> {
  const files = names.map((name) => path.join(folder, name));
  const contents: Buffer[] = []; // One after the other, so that of several bad files it is always the first that is named.
  for (const file of files) contents.push(await readRecords(file, format));
  // Every batch file of one split holds the same number of images: a file cut at a record's end would pass unseen otherwise.
  const odd = contents.findIndex((bytes) => bytes.length !== contents[0]!.length);
  if (odd > 0)
    throw invalid(
      files[odd]!,
      `${contents[odd]!.length} bytes, but ${names[0]} has ${contents[0]!.length}; one of them is truncated`,
    );
  const perFile = contents[0]!.length / (format.labelBytes + IMAGE);
  const count = perFile * files.length;
  const split: Split = { count, images: new Uint8Array(count * IMAGE), labels: new Int32Array(count) };
  for (const [i, bytes] of contents.entries()) await unpack(bytes, files[i]!, format, split, i * perFile, pacer);
  return split;
}

async function readNames(folder: string, format: Format): Promise<string[]> {
  const file = path.join(folder, format.namesFile);
  const numbered = Array.from({ length: format.classes }, (_, i) => `class ${i}`);
  const expected = { what: "list of class names", limit: MAX_NAMES_BYTES, code: "ERR_INVALID_DATA" };
  const bytes = await readFile(file, expected).catch((cause: unknown) => {
    if (isAbsent(cause)) return undefined;
    throw cause;
  });
  if (bytes === undefined) return numbered;
  const names = decodeText(bytes)
    .split(/\r?\n/)
    .map((line) => line.trim());
  const filled = names.filter((name) => name !== "");
  if (filled.length !== format.classes) throw invalid(file, `${filled.length} class names; expected ${format.classes}`);
  return filled;
}

async function read(folder: string, format: Format): Promise<Dataset> {
  const pacer = new Pacer();
  const classes = await readNames(folder, format);
  const train = await readSplit(folder, format.trainFiles, format, pacer);
  const test = await readSplit(folder, [format.testFile], format, pacer);
  return { name: format.name, shape: [EDGE, EDGE, CHANNELS], classes, train, test };
}

/** CIFAR-10 from the folder with data_batch_1.bin to data_batch_5.bin and test_batch.bin. Rejects with ERR_INVALID_DATA. */
export const readCifar10 = (folder: string): Promise<Dataset> => read(folder, CIFAR_10);

/** CIFAR-100 from the folder with train.bin and test.bin; `coarse`: the 20 superclasses. Rejects with ERR_INVALID_DATA. */
export const readCifar100 = (folder: string, coarse = false): Promise<Dataset> =>
  read(folder, coarse ? CIFAR_100_COARSE : CIFAR_100);

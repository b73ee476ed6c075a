/** Fetches the CIFAR data sets: the archive (fetch.ts), its checksum, and the files that are read. */
import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import path from "node:path";
import type { ReadEntry } from "tar";
import { RevNetError } from "../errors.js";
import { makeFolder } from "../files/atomic.js";
import { OpenFile } from "../files/open.js";
import { checkChoice, checkInteger, checkOptions, describe } from "../validation.js";
import { CIFAR_10, CIFAR_100, CIFAR_100_COARSE } from "./cifar.js";
import { onDisk, receive } from "./fetch.js";

interface Archive {
  readonly url: string;
  readonly md5: string;
  readonly files: readonly string[];
}

/** URLs and checksums as https://www.cs.toronto.edu/~kriz/cifar.html gives them, of the binary versions. */
const ARCHIVES: Readonly<Record<"cifar-10" | "cifar-100", Archive>> = {
  "cifar-10": {
    url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5: "c32a1d4ab5d03f1284b67883e8d87530",
    files: [...CIFAR_10.trainFiles, CIFAR_10.testFile, CIFAR_10.namesFile],
  },
  "cifar-100": {
    url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5: "03b5dce01913d631647c71ecec9e9cb8",
    files: [...CIFAR_100.trainFiles, CIFAR_100.testFile, CIFAR_100.namesFile, CIFAR_100_COARSE.namesFile],
  },
};
export const DOWNLOADS = ["cifar-10", "cifar-100"] as const;
export type DownloadName = (typeof DOWNLOADS)[number];

/** What downloadDataset takes. */
export interface DownloadOptions {
  /** Where the files go; it is made where it is missing. */
  readonly dataDir: string;
  /** Another place that has the archive. */
  readonly url?: string | undefined;
  /** Of the archive, where it is another one. */
  readonly md5?: string | undefined;
  /** Called with bytes; `total` is undefined where the server does not say. */
  readonly onProgress?: ((received: number, total: number | undefined) => void) | undefined;
  /** Ends the download with ERR_ABORTED; the next call goes on from what was received. */
  readonly signal?: AbortSignal | undefined;
  /**
   * After which silence counts as a failure, in milliseconds; default 30,000. Ten times as long without 200 bytes a second is one too: a
   * slow line is waited for, a server that sends a byte now and then is not.
   */
  readonly timeout?: number | undefined;
  /** What the whole download may take, in milliseconds; default a day. */
  readonly totalTimeout?: number | undefined;
}

/** What downloadDataset gives. */
export interface Download {
  /** As given. */
  readonly dataDir: string;
  /** The data set's files in it. */
  readonly files: readonly string[];
  /** Bytes received now; 0 where all files were there. */
  readonly bytes: number;
  /** Bytes that were there from a download that was broken off. */
  readonly resumedFrom: number;
}

const CODE = "ERR_INVALID_ARGUMENT";
const TIMEOUT = 30_000;
const TOTAL_TIMEOUT = 24 * 3_600_000;
const LONGEST = 2 ** 31 - 1;
/** Of a folder that archives are unpacked in. One that is older than an hour was left behind. */
const UNPACKING = ".revnet-unpack-";
const STALE_MILLISECONDS = 3_600_000;

/**
 * Downloads `cifar-10` or `cifar-100`. What was received stays when it is broken off, and the next call goes on from there. Files that
 * are there are not fetched again.
 * @throws RevNetError ERR_INVALID_ARGUMENT, ERR_NETWORK, ERR_INVALID_DATA (checksum, contents), ERR_FILE, ERR_ABORTED
 */
export async function downloadDataset(name: DownloadName, options: DownloadOptions): Promise<Download> {
  checkOptions(options, ["dataDir", "url", "md5", "onProgress", "signal", "timeout", "totalTimeout"]);
  const archive = ARCHIVES[checkChoice(name, DOWNLOADS, "data set", CODE)];
  const { dataDir, md5 = archive.md5 } = options;
  if (typeof dataDir !== "string" || dataDir === "") throw new RevNetError(CODE, "dataDir: expected a folder for the files");
  const url = checkUrl(options.url ?? archive.url);
  const timeout = checkInteger(options.timeout ?? TIMEOUT, 1, LONGEST / 10, "timeout", CODE);
  const totalTimeout = checkInteger(options.totalTimeout ?? TOTAL_TIMEOUT, 1, LONGEST, "totalTimeout", CODE);
  if (typeof md5 !== "string" || !/^[0-9a-f]{32}$/.test(md5))
    throw new RevNetError(CODE, `md5: expected 32 hexadecimal digits in lower case, got ${describe(md5)}`);
  const files = archive.files.map((file) => path.join(dataDir, file));
  if (await allThere(files)) return { dataDir, files, bytes: 0, resumedFrom: 0 };

  await makeFolder(dataDir);
  const part = path.join(dataDir, `${path.basename(archive.url)}.part`);
  const { bytes, resumedFrom } = await receive(url, part, { ...options, timeout, totalTimeout });
  const sum = await md5Of(part);
  if (sum !== md5) {
    await fs.rm(part, { force: true });
    throw new RevNetError(
      "ERR_INVALID_DATA",
      `${url.href}: the MD5 of what was received is ${sum}, expected ${md5}; it was removed, and the next download begins anew`,
    );
  }
  await extract(part, dataDir, archive.files);
  await fs.rm(part, { force: true });
  return { dataDir, files, bytes, resumedFrom };
}

function checkUrl(text: string): URL {
  const url = typeof text === "string" && URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === "http:" || url?.protocol === "https:") return url;
  // What looks like a password is one, also where the rest is no URL.
  throw new RevNetError(
    CODE,
    `url: expected an http or https URL, got ${describe(String(text).replace(/^([^@]*\/\/)?.*@/s, "$1***@"))}`,
  );
}

async function allThere(files: readonly string[]): Promise<boolean> {
  const there = (file: string) =>
    fs.stat(file).then(
      (found) => found.isFile() && found.size > 0,
      () => false,
    );
  return (await Promise.all(files.map(there))).every(Boolean);
}

async function md5Of(file: string): Promise<string> {
  const hash = createHash("md5");
  const opened = await OpenFile.open(file);
  try {
    for await (const piece of opened.pieces()) hash.update(piece);
  } finally {
    await opened.close();
  }
  return hash.digest("hex");
}

/** Takes the wanted files out of the archive, whatever folder they are in there, and nothing else. */
async function extract(archive: string, dataDir: string, wanted: readonly string[]): Promise<void> {
  await removeLeftovers(dataDir);
  const folder = await onDisk(dataDir, () => fs.mkdtemp(path.join(dataDir, UNPACKING)));
  try {
    const filter = (name: string, entry: unknown) =>
      wanted.includes(path.posix.basename(name)) && name.split("/").length <= 2 && (entry as ReadEntry).type === "File";
    const tar = await import("tar");
    await tar.x({ file: archive, cwd: folder, strip: 1, filter, strict: true }).catch((cause: NodeJS.ErrnoException) => {
      // The system's errors have a number; the archive's have none.
      if (cause.errno !== undefined && cause.syscall)
        throw new RevNetError("ERR_FILE", `cannot unpack into '${dataDir}': ${cause.message}`, { cause });
      throw new RevNetError("ERR_INVALID_DATA", `'${archive}' cannot be unpacked: ${cause.message}`, { cause });
    });
    const found = await fs.readdir(folder);
    const missing = wanted.find((name) => !found.includes(name));
    if (missing !== undefined) throw new RevNetError("ERR_INVALID_DATA", `'${archive}' has no ${missing}`);
    for (const name of wanted) await onDisk(name, () => fs.rename(path.join(folder, name), path.join(dataDir, name)));
  } finally {
    await remove(folder);
  }
}

/** After a failure other files of the archive may still be on their way into the folder; what cannot be removed is no failure of its own. */
const remove = (folder: string) => fs.rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 }).catch(() => {});

/** What downloads that were killed while they unpacked have left. */
async function removeLeftovers(dataDir: string): Promise<void> {
  for (const name of await fs.readdir(dataDir).catch(() => [])) {
    if (!name.startsWith(UNPACKING)) continue;
    const file = path.join(dataDir, name);
    const found = await fs.lstat(file).catch(() => undefined);
    if (found?.isDirectory() && Date.now() - found.mtimeMs > STALE_MILLISECONDS) await remove(file);
  }
}

/** Fetches the CIFAR data sets: the archive, whose download can be broken off and go on, its checksum, and the files that are read. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import * as fs from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ReadEntry } from "tar";
import { RevNetError } from "../errors.js";
import { makeFolder } from "../formats/atomic.js";
import { checkChoice, checkOptions } from "../validation.js";
import { CIFAR_10, CIFAR_100, CIFAR_100_COARSE } from "./cifar.js";

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
  /** After which silence counts as a failure, in milliseconds; default 30,000. */
  readonly timeout?: number | undefined;
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
const ATTEMPTS = 3;
const PAUSE = 1000;
const TIMEOUT = 30_000;
/** Between readings of the progress. */
const REPORT_BYTES = 2 ** 18;

/** A failure that another attempt may get over. */
class Interrupted extends Error {}

/**
 * Downloads `cifar-10` or `cifar-100`. What was received stays when it is broken off, and the next call goes on from there. Files that
 * are there are not fetched again.
 * @throws RevNetError ERR_INVALID_ARGUMENT, ERR_NETWORK, ERR_INVALID_DATA (checksum, contents), ERR_FILE, ERR_ABORTED
 */
export async function downloadDataset(name: DownloadName, options: DownloadOptions): Promise<Download> {
  checkOptions(options, ["dataDir", "url", "md5", "onProgress", "signal", "timeout"]);
  const archive = ARCHIVES[checkChoice(name, DOWNLOADS, "data set", CODE)];
  const { dataDir, md5 = archive.md5 } = options;
  if (typeof dataDir !== "string" || dataDir === "") throw new RevNetError(CODE, "dataDir: expected a folder for the files");
  const url = checkUrl(options.url ?? archive.url);
  if (!/^[0-9a-f]{32}$/.test(md5)) throw new RevNetError(CODE, `md5: expected 32 hexadecimal digits in lower case, got '${md5}'`);
  const files = archive.files.map((file) => path.join(dataDir, file));
  if (await allThere(files)) return { dataDir, files, bytes: 0, resumedFrom: 0 };

  await makeFolder(dataDir);
  const part = path.join(dataDir, `${path.basename(archive.url)}.part`);
  const { bytes, resumedFrom } = await receive(url, part, options);
  const sum = await md5Of(part);
  if (sum !== md5) {
    await fs.rm(part, { force: true });
    throw new RevNetError(
      "ERR_INVALID_DATA",
      `${url}: the MD5 of what was received is ${sum}, expected ${md5}; it was removed, and the next download begins anew`,
    );
  }
  await extract(part, dataDir, archive.files);
  await fs.rm(part, { force: true });
  return { dataDir, files, bytes, resumedFrom };
}

function checkUrl(url: string): string {
  const { protocol } = URL.canParse(url) ? new URL(url) : { protocol: "" };
  if (protocol === "http:" || protocol === "https:") return url;
  throw new RevNetError(CODE, `url: expected an http or https URL, got '${String(url).slice(0, 200)}'`);
}

async function allThere(files: readonly string[]): Promise<boolean> {
  const sizes = await Promise.all(
    files.map((file) =>
      fs.stat(file).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  return sizes.every((size) => size > 0);
}

async function receive(url: string, part: string, options: DownloadOptions): Promise<{ bytes: number; resumedFrom: number }> {
  const sizeOf = () =>
    fs.stat(part).then(
      ({ size }) => size,
      () => 0,
    );
  const resumedFrom = await sizeOf();
  let bytes = 0;
  for (let attempt = 1; ; attempt++)
    try {
      await fetchRest(url, part, await sizeOf(), options, (count) => {
        bytes += count;
      });
      return { bytes, resumedFrom };
    } catch (error) {
      if (options.signal?.aborted)
        throw new RevNetError("ERR_ABORTED", "the download was aborted; the next one goes on from there", { cause: error });
      if (!(error instanceof Interrupted)) throw error;
      if (attempt === ATTEMPTS) {
        const have = await sizeOf();
        const rest = have > 0 ? `; the next download goes on from the ${have} bytes that are there` : "";
        throw new RevNetError("ERR_NETWORK", `${url}: ${error.message}, ${ATTEMPTS} times${rest}`, { cause: error.cause });
      }
      await sleep(PAUSE * attempt, undefined, { signal: options.signal }).catch(() => {});
    }
}

/** Appends what is missing after the first `have` bytes. */
async function fetchRest(
  url: string,
  part: string,
  have: number,
  { signal, timeout = TIMEOUT, onProgress }: DownloadOptions,
  count: (bytes: number) => void,
): Promise<void> {
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(), timeout);
  try {
    const response = await fetch(url, {
      headers: have > 0 ? { range: `bytes=${have}-` } : {},
      signal: signal ? AbortSignal.any([signal, silence.signal]) : silence.signal,
    });
    const start = startOf(response, have, url);
    if (start === undefined) {
      await response.body?.cancel();
      return;
    }
    const length = Number(response.headers.get("content-length") ?? Number.NaN);
    const total = Number.isFinite(length) ? start + length : undefined;
    const received = await save(response, part, start, (at) => {
      timer.refresh();
      onProgress?.(at, total);
    });
    count(received - start);
    if (total !== undefined && received !== total)
      throw new Interrupted(`the connection ended after ${received} of ${total} bytes`);
    onProgress?.(received, total);
  } catch (error) {
    if (error instanceof RevNetError || error instanceof Interrupted) throw error;
    const { cause } = error as { cause?: Error & { code?: string } };
    const reason = silence.signal.aborted
      ? `nothing came for ${timeout / 1000} s`
      : cause?.message || cause?.code || (error as Error).message;
    throw new Interrupted(reason, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

/** The byte that the response begins with; undefined: there is nothing more to come. */
function startOf({ status, statusText, headers }: Response, have: number, url: string): number | undefined {
  if (status === 200) return 0;
  if (status === 206 && headers.get("content-range")?.startsWith(`bytes ${have}-`)) return have;
  // All of it is there, or too much; the checksum tells.
  if (status === 416 && have > 0) return undefined;
  const said = `the server answered ${status} ${statusText}`.trim();
  if (status >= 500 || status === 429) throw new Interrupted(said);
  throw new RevNetError("ERR_NETWORK", `${url}: ${said}`);
}

/** @returns the file's length then */
async function save(response: Response, part: string, start: number, report: (at: number) => void): Promise<number> {
  const handle = await onDisk(part, () => fs.open(part, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o666));
  let [at, reported] = [start, start];
  try {
    await onDisk(part, () => handle.truncate(start));
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      for (let done = 0; done < chunk.length; )
        done += (await onDisk(part, () => handle.write(chunk, done, chunk.length - done, at + done))).bytesWritten;
      at += chunk.length;
      if (at - reported < REPORT_BYTES) continue;
      reported = at;
      report(at);
    }
    return at;
  } finally {
    await handle.close();
  }
}

async function onDisk<T>(file: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    throw new RevNetError("ERR_FILE", `cannot write '${file}': ${(cause as Error).message}`, { cause });
  }
}

async function md5Of(file: string): Promise<string> {
  const hash = createHash("md5");
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** Takes the wanted files out of the archive, whatever folder they are in there, and nothing else. */
async function extract(archive: string, dataDir: string, wanted: readonly string[]): Promise<void> {
  const folder = await onDisk(dataDir, () => fs.mkdtemp(path.join(dataDir, ".extract-")));
  try {
    const filter = (name: string, entry: unknown) =>
      wanted.includes(path.posix.basename(name)) && name.split("/").length <= 2 && (entry as ReadEntry).type === "File";
    const tar = await import("tar");
    await tar.x({ file: archive, cwd: folder, strip: 1, filter, strict: true }).catch((cause: Error) => {
      throw new RevNetError("ERR_INVALID_DATA", `'${archive}' cannot be unpacked: ${cause.message}`, { cause });
    });
    const found = await fs.readdir(folder);
    const missing = wanted.find((name) => !found.includes(name));
    if (missing !== undefined) throw new RevNetError("ERR_INVALID_DATA", `'${archive}' has no ${missing}`);
    for (const name of wanted) await onDisk(name, () => fs.rename(path.join(folder, name), path.join(dataDir, name)));
  } finally {
    await fs.rm(folder, { recursive: true, force: true });
  }
}

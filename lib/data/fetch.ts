/**
 * Fetches a file over HTTP into a part of it that is on the disk, so that a download that is broken off goes on where it was. The other
 * side is not trusted with more than the file's bytes: time, redirects, encodings and the place on the disk are checked here, and the
 * contents by the caller's checksum.
 */
import * as fs from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { RevNetError } from "../errors.js";

export interface Limits {
  /** Milliseconds without a byte; in ten times as many, SLOWEST bytes a second have to come. */
  readonly timeout: number;
  /** Milliseconds in all. */
  readonly totalTimeout: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((received: number, total: number | undefined) => void) | undefined;
}

const ATTEMPTS = 3;
const PAUSE = 1000;
const MAX_REDIRECTS = 5;
/** Bytes a second, on average over ten timeouts. */
const SLOWEST = 200;
/** Between readings of the progress. */
const REPORT_BYTES = 2 ** 18;

/** A failure that another attempt may get over. */
class Interrupted extends Error {}

/** @throws RevNetError ERR_NETWORK, ERR_FILE, ERR_ABORTED */
export async function receive(url: URL, part: string, limits: Limits): Promise<{ bytes: number; resumedFrom: number }> {
  const resumedFrom = await sizeOf(part);
  const end = performance.now() + limits.totalTimeout;
  let bytes = 0;
  for (let attempt = 1; ; attempt++)
    try {
      await fetchRest(url, part, await sizeOf(part), limits, end, (count) => {
        bytes += count;
      });
      return { bytes, resumedFrom };
    } catch (error) {
      if (limits.signal?.aborted)
        throw new RevNetError("ERR_ABORTED", "the download was aborted; the next one goes on from there", { cause: error });
      if (!(error instanceof Interrupted)) throw error;
      const late = performance.now() >= end;
      if (attempt === ATTEMPTS || late) {
        const have = await sizeOf(part);
        const rest = have > 0 ? `; the next download goes on from the ${have} bytes that are there` : "";
        const reason = late ? `it takes longer than ${limits.totalTimeout / 1000} s` : `${error.message}, ${attempt} times`;
        throw new RevNetError("ERR_NETWORK", `${url.href}: ${reason}${rest}`, { cause: error.cause });
      }
      await sleep(PAUSE * attempt, undefined, { signal: limits.signal }).catch(() => {});
    }
}

/** Ends a request that gets nothing, too little, or takes too long; `reason` says which. */
class Patience {
  readonly #controller = new AbortController();
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #silence: NodeJS.Timeout;
  #windowBytes = 0;
  reason: string | undefined;

  constructor({ timeout, signal }: Limits, end: number) {
    const window = 10 * timeout;
    this.#silence = setTimeout(() => this.#end(`nothing came for ${timeout / 1000} s`), timeout);
    this.#timers.push(this.#silence);
    this.#timers.push(
      setInterval(() => {
        if (this.#windowBytes < (SLOWEST * window) / 1000) this.#end(`only ${this.#windowBytes} bytes came in ${window / 1000} s`);
        this.#windowBytes = 0;
      }, window),
    );
    this.#timers.push(setTimeout(() => this.#end("its time was over"), Math.max(0, end - performance.now())));
    this.signal = signal ? AbortSignal.any([signal, this.#controller.signal]) : this.#controller.signal;
  }

  readonly signal: AbortSignal;

  #end(reason: string): void {
    this.reason ??= reason;
    this.#controller.abort();
  }

  came(bytes: number): void {
    this.#silence.refresh();
    this.#windowBytes += bytes;
  }

  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }
}

/** Appends what is missing after the first `have` bytes. */
async function fetchRest(
  url: URL,
  part: string,
  have: number,
  limits: Limits,
  end: number,
  count: (bytes: number) => void,
): Promise<void> {
  const patience = new Patience(limits, end);
  try {
    const response = await request(url, have, patience.signal);
    const start = startOf(response, have, url);
    if (start === undefined) {
      await response.body?.cancel();
      return;
    }
    const length = Number(response.headers.get("content-length") ?? Number.NaN);
    const total = Number.isFinite(length) ? start + length : undefined;
    let reported = start;
    const received = await save(response, part, start, (at, bytes) => {
      patience.came(bytes);
      count(bytes);
      if (at - reported < REPORT_BYTES) return;
      reported = at;
      limits.onProgress?.(at, total);
    });
    if (total !== undefined && received !== total)
      throw new Interrupted(`the connection ended after ${received} of ${total} bytes`);
    limits.onProgress?.(received, total);
  } catch (error) {
    if (error instanceof RevNetError || error instanceof Interrupted) throw error;
    const { cause } = error as { cause?: Error & { code?: string } };
    throw new Interrupted(patience.reason ?? (cause?.message || cause?.code || (error as Error).message), { cause: error });
  } finally {
    patience.stop();
  }
}

/** Follows redirects, from https to https alone. A name and a password in the URL are for its own host. */
async function request(url: URL, have: number, signal: AbortSignal): Promise<Response> {
  const credentials = url.username || url.password ? [url.username, url.password].map(decodeURIComponent).join(":") : undefined;
  let at = url;
  for (let redirects = 0; ; redirects++) {
    const bare = new URL(at);
    [bare.username, bare.password] = ["", ""];
    const response = await fetch(bare, {
      headers: {
        // The archive as it is: what is decoded on the way has another length, and cannot be gone on with.
        "accept-encoding": "identity",
        ...(have > 0 && { range: `bytes=${have}-` }),
        ...(credentials !== undefined &&
          at.origin === url.origin && { authorization: `Basic ${Buffer.from(credentials).toString("base64")}` }),
      },
      redirect: "manual",
      signal,
    });
    const location = response.headers.get("location");
    if (![301, 302, 303, 307, 308].includes(response.status) || location === null) {
      checkEncoding(response, at);
      return response;
    }
    await response.body?.cancel();
    const refuse = (why: string) => new RevNetError("ERR_NETWORK", `${at.href}: it is redirected to '${location}', ${why}`);
    if (redirects === MAX_REDIRECTS) throw refuse(`after ${MAX_REDIRECTS} redirects`);
    const next = URL.canParse(location, at.href) ? new URL(location, at) : undefined;
    if (next?.protocol !== "https:" && (next?.protocol !== "http:" || at.protocol === "https:"))
      throw refuse(at.protocol === "https:" ? "and not to an https URL" : "which is no http or https URL");
    at = next;
  }
}

function checkEncoding({ headers, body }: Response, url: URL): void {
  const encoding = headers.get("content-encoding")?.trim().toLowerCase() || "identity";
  if (encoding === "identity") return;
  body?.cancel().catch(() => {});
  throw new RevNetError(
    "ERR_NETWORK",
    `${url.href}: the server encodes what it sends (Content-Encoding: ${encoding.slice(0, 40)}), although the file was asked for as it is`,
  );
}

/** The byte that the response begins with; undefined: there is nothing more to come. */
function startOf({ status, statusText, headers }: Response, have: number, url: URL): number | undefined {
  if (status === 200) return 0;
  if (status === 206 && headers.get("content-range")?.startsWith(`bytes ${have}-`)) return have;
  // All of it is there, or too much; the checksum tells.
  if (status === 416 && have > 0) return undefined;
  const said = `the server answered ${status} ${statusText}`.trim();
  if (status >= 500 || status === 429) throw new Interrupted(said);
  throw new RevNetError("ERR_NETWORK", `${url.href}: ${said}`);
}

/** Bytes that are there; 0 where nothing is. @throws RevNetError ERR_FILE where something else than a file of its own is */
async function sizeOf(part: string): Promise<number> {
  const found = await fs.lstat(part).catch(() => undefined);
  if (!found) return 0;
  if (!found.isFile() || found.nlink > 1)
    throw new RevNetError("ERR_FILE", `cannot write '${part}': it is a link or no file; remove it`);
  return found.size;
}

/** @param report called after each piece @returns the file's length then */
async function save(response: Response, part: string, start: number, report: (at: number, bytes: number) => void): Promise<number> {
  // Not through a link, and without waiting for a reader where it is a pipe: it may have come there since `sizeOf`.
  const { O_RDWR, O_CREAT, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = fs.constants;
  const handle = await onDisk(part, () => fs.open(part, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o666));
  let at = start;
  try {
    const found = await onDisk(part, () => handle.stat());
    if (!found.isFile() || found.nlink > 1)
      throw new RevNetError("ERR_FILE", `cannot write '${part}': it is a link or no file; remove it`);
    await onDisk(part, () => handle.truncate(start));
    for await (const chunk of (response.body ?? []) as unknown as AsyncIterable<Uint8Array>) {
      for (let done = 0; done < chunk.length; )
        done += (await onDisk(part, () => handle.write(chunk, done, chunk.length - done, at + done))).bytesWritten;
      at += chunk.length;
      report(at, chunk.length);
    }
    return at;
  } finally {
    await handle.close();
  }
}

/** What fails is the disk's failure. @throws RevNetError ERR_FILE */
export async function onDisk<T>(file: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    throw new RevNetError("ERR_FILE", `cannot write '${file}': ${(cause as Error).message}`, { cause });
  }
}

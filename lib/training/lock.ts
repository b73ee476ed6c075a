/**
 * One run at a time in a folder. The lock is run.lock, locked in the kernel for as long as the process lives: in whatever container,
 * and however it ends. A second layer is for storage on which other machines do not see such locks: who has the lock writes it anew
 * every few seconds, and a newcomer watches for that where the lock is another machine's. Who finds another's content in the file
 * has lost it.
 */
import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import * as fs from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { RevNetError } from "../errors.js";
import { isAbsent, kindOf, readFile, readFileSync } from "../files/open.js";
import { native } from "../native/index.js";

interface Owner {
  /** Of this lock alone. */
  readonly token: string;
  readonly pid: number;
  readonly host: string;
  /** Of the kernel, where the system names it: the same in all containers of a machine. */
  readonly boot?: string | undefined;
  /** When the run began, for people. */
  readonly since: string;
}

export interface LockOptions {
  /** Milliseconds between two signs of life. */
  readonly beat?: number;
  /** Milliseconds without a sign of life, after which another machine's lock is taken over. */
  readonly stale?: number;
  /** Ends the watch for signs of life, with ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

interface Times extends LockOptions {
  readonly beat: number;
  readonly stale: number;
}
const TIMES: Times = { beat: 5_000, stale: 30_000 };
const MAX_BYTES = 4096;
/** Each is lost only to another process that takes or releases the lock in the same instant. */
const ATTEMPTS = 10;
const FLAGS = constants.O_RDWR | constants.O_CREAT | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

export class FolderLock {
  #lost = false;
  readonly #timer: NodeJS.Timeout;

  private constructor(
    private readonly folder: string,
    private readonly file: string,
    private readonly handle: fs.FileHandle,
    private readonly content: string,
    beat: number,
  ) {
    this.#timer = setInterval(() => void this.#beat().catch(() => {}), beat);
    this.#timer.unref();
  }

  /** @throws RevNetError ERR_RUN_LOCKED, naming the process that has the folder; ERR_FILE, ERR_ABORTED */
  static async take(folder: string, options: LockOptions = {}): Promise<FolderLock> {
    const times = { ...TIMES, ...options };
    const file = path.join(folder, "run.lock");
    const owner: Owner = {
      token: randomUUID(),
      pid: process.pid,
      host: hostname(),
      boot: bootOf(),
      since: new Date().toISOString(),
    };
    const content = `${JSON.stringify(owner)}\n`;
    try {
      for (let attempt = 0; attempt < ATTEMPTS; ++attempt) {
        const handle = await openLock(file);
        try {
          if (await contend(folder, file, handle, content, times)) return new FolderLock(folder, file, handle, content, times.beat);
        } catch (error) {
          await handle.close();
          throw error;
        }
        await handle.close();
      }
      throw held(folder, (await present(file)) ?? "");
    } catch (error) {
      if (error instanceof RevNetError && error.code !== "ERR_FILE") throw error;
      throw new RevNetError("ERR_FILE", `cannot lock '${folder}': ${(error as Error).message}`, { cause: error });
    }
  }

  /**
   * Before something is written that another run in the folder would miss. @throws RevNetError ERR_RUN_LOCKED where the lock is
   * another's by now, or gone; ERR_FILE where it cannot be read
   */
  async confirm(): Promise<void> {
    const found = this.#lost ? undefined : await present(this.file);
    if (found === this.content) return;
    this.#lost = true;
    const now = found === undefined || found === "" ? "" : `; it is ${ownerOf(found)}'s`;
    throw new RevNetError(
      "ERR_RUN_LOCKED",
      `this run has lost its lock of '${this.folder}' ('${this.file}')${now}; it ends, so that no two runs write there`,
    );
  }

  /** Never throws: a lock that stays behind is nobody's. */
  async release(): Promise<void> {
    clearInterval(this.#timer);
    // Removed while it is locked: who opened it before sees then that it is no longer the file of this name.
    if ((await present(this.file).catch(() => undefined)) === this.content) await fs.rm(this.file, { force: true }).catch(() => {});
    await this.handle.close().catch(() => {});
  }

  /** The same once more: its time of change is the sign of life. */
  async #beat(): Promise<void> {
    if ((await present(this.file)) === this.content) await this.handle.write(this.content, 0);
  }
}

/** A descriptor that can be locked; nothing is changed yet, but that the file is there. */
async function openLock(file: string): Promise<fs.FileHandle> {
  const handle = await fs.open(file, FLAGS, 0o666);
  const stats = await handle.stat();
  if (stats.isFile()) return handle;
  await handle.close();
  throw new Error(`'${file}' is ${kindOf(stats)}, expected a regular file`);
}

/** Whether the file is locked now, says so, and is still the one of this name. @throws RevNetError ERR_RUN_LOCKED */
async function contend(folder: string, file: string, handle: fs.FileHandle, content: string, times: Times): Promise<boolean> {
  const locked = native.tryLock(handle.fd);
  const found = (await present(file)) ?? "";
  if (locked === false) throw held(folder, found);
  // The kernel has spoken for all processes that it runs; of others, only signs of life can tell.
  if (isForeign(found)) throw new Error(`'${file}' is there and not the lock of a run`);
  if (found !== "" && (locked === null || parse(found).boot !== bootOf()) && (await isAlive(file, found, times)))
    throw held(folder, found);
  await handle.truncate(0);
  await handle.write(content, 0);
  // Without locks, one who came at the same time may write a moment later; the last one has it.
  if (locked === null) await pause(Math.min(times.beat, 1000), times.signal);
  return (await present(file)) === content;
}

/** Whether the lock is written again before it counts as left behind. */
async function isAlive(file: string, found: string, { beat, stale, signal }: Times): Promise<boolean> {
  const changed = async () => (await fs.stat(file).catch(() => undefined))?.mtimeMs;
  const first = await changed();
  for (let waited = 0; waited < stale; waited += beat / 5) {
    await pause(beat / 5, signal);
    const [content, time] = [await present(file), await changed()];
    // Released.
    if (content === undefined) return false;
    if (content !== found || time !== first) return true;
  }
  return false;
}

async function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(milliseconds, undefined, signal && { signal }).catch(() => {
    throw new RevNetError("ERR_ABORTED", "training was aborted while it waited for the lock of its folder", {
      cause: signal?.reason,
    });
  });
}

/** Content of the lock; undefined where there is none. @throws RevNetError ERR_FILE */
async function present(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, { limit: MAX_BYTES })).toString("utf8");
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

function parse(content: string): Partial<Owner> {
  try {
    const value: unknown = JSON.parse(content);
    return typeof value === "object" && value !== null ? (value as Partial<Owner>) : {};
  } catch {
    return {};
  }
}

/** With which every lock begins. */
const BEGINNING = '{"token":"';

/** Whether it is neither a lock nor what is left of one: by a power failure no bytes or zeros, by a full disk its beginning. */
const isForeign = (content: string) =>
  /[^\0\s]/.test(content) &&
  typeof parse(content).pid !== "number" &&
  !BEGINNING.startsWith(content) &&
  !content.startsWith(BEGINNING);

let boot: string | null | undefined;

function bootOf(): string | undefined {
  if (boot === undefined)
    try {
      boot = readFileSync("/proc/sys/kernel/random/boot_id", { limit: MAX_BYTES }).toString("utf8").trim();
    } catch {
      boot = null;
    }
  return boot ?? undefined;
}

function ownerOf(content: string): string {
  const { pid, host, since } = parse(content);
  if (pid === undefined) return "another process";
  return `process ${pid}${host === hostname() ? "" : ` on ${host}`}, since ${since}`;
}

function held(folder: string, content: string): RevNetError {
  return new RevNetError("ERR_RUN_LOCKED", `'${folder}' is in use by a run of ${ownerOf(content)}; wait for it, or end it`);
}

/** One run at a time in a folder: a file that names the process, taken over where that process is dead. */
import * as fs from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import { RevNetError } from "../errors.js";

interface Owner {
  readonly pid: number;
  readonly host: string;
  /** When the run began, for people. */
  readonly since: string;
  /** Tells the process from a later one of the same number, where the system can say (Linux). */
  readonly process?: string | undefined;
}

/** Each is lost only to another process that takes, releases or tidies up in the same instant. */
const ATTEMPTS = 10;
let named = 0;

/** As writeFileAtomically names them, so that leftovers are tidied up alike. */
const temporary = (file: string) => `${file}.${process.pid}.${++named}.tmp`;

export class FolderLock {
  private constructor(
    private readonly file: string,
    private readonly content: string,
  ) {}

  /** @throws RevNetError ERR_RUN_LOCKED, naming the process that has the folder; ERR_FILE */
  static async take(folder: string): Promise<FolderLock> {
    const file = path.join(folder, "run.lock");
    const owner: Owner = {
      pid: process.pid,
      host: hostname(),
      since: new Date().toISOString(),
      process: await processIdentity(process.pid),
    };
    const content = `${JSON.stringify(owner)}\n`;
    const own = temporary(file);
    try {
      for (let attempt = 0; ; ++attempt) {
        // Each time anew: one who just took the lock tidies up, and may take this for a leftover.
        await fs.writeFile(own, content);
        // A link appears with its content, or not at all: nobody sees a lock that does not say yet whose it is.
        if (await link(own, file)) return new FolderLock(file, content);
        const present = await fs.readFile(file, "utf8").catch(() => undefined);
        if (present === undefined && attempt < ATTEMPTS) continue; // released in between
        if (present === undefined || attempt >= ATTEMPTS || (await isHeld(present))) throw held(folder, file, present ?? "");
        await removeStale(file, present);
      }
    } catch (error) {
      if (error instanceof RevNetError) throw error;
      throw new RevNetError("ERR_FILE", `cannot lock '${folder}': ${(error as Error).message}`, { cause: error });
    } finally {
      await fs.rm(own, { force: true }).catch(() => {});
    }
  }

  /** Never throws: a lock that stays behind is taken over later. */
  async release(): Promise<void> {
    const present = await fs.readFile(this.file, "utf8").catch(() => undefined);
    if (present === this.content) await fs.rm(this.file, { force: true }).catch(() => {});
  }
}

/** Whether `file` is now a second name of `own`; false where there is a file already. */
async function link(own: string, file: string): Promise<boolean> {
  try {
    await fs.link(own, file);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" || code === "ENOENT") return false;
    if (code !== "EPERM" && code !== "ENOTSUP" && code !== "ENOSYS") throw error;
  }
  // A file system without hard links.
  return fs.copyFile(own, file, fs.constants.COPYFILE_EXCL).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === "EEXIST") return false;
      throw error;
    },
  );
}

/**
 * Removes the lock of a dead process. Others may be about to do the same: whoever renames it has it, and looks once more at
 * what it is, since by then it may be the lock of one who was faster.
 */
async function removeStale(file: string, stale: string): Promise<void> {
  const aside = temporary(file);
  try {
    await fs.rename(file, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  const found = await fs.readFile(aside, "utf8").catch(() => stale);
  if (found !== stale) await fs.link(aside, file).catch(() => {});
  await fs.rm(aside, { force: true });
}

function parse(content: string): Partial<Owner> {
  try {
    const value: unknown = JSON.parse(content);
    return typeof value === "object" && value !== null ? (value as Partial<Owner>) : {};
  } catch {
    return {};
  }
}

async function isHeld(content: string): Promise<boolean> {
  const { pid, host, process: identity } = parse(content);
  // Not a lock of ours, or one that a power failure emptied.
  if (!Number.isSafeInteger(pid) || (pid as number) < 1) return false;
  // Of another machine's processes nothing can be known.
  if (host !== hostname()) return true;
  if (!isAlive(pid as number)) return false;
  const now = await processIdentity(pid as number);
  return now === undefined || identity === undefined || now === identity;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** The boot and the moment in it at which the process began; undefined where the system does not tell, or it is gone. */
async function processIdentity(pid: number): Promise<string | undefined> {
  try {
    const [boot, stat] = await Promise.all([
      fs.readFile("/proc/sys/kernel/random/boot_id", "utf8"),
      fs.readFile(`/proc/${pid}/stat`, "utf8"),
    ]);
    // The name, in parentheses, may hold anything; the fields after it are numbers, and the 20th is the start time.
    return `${boot.trim()} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`;
  } catch {
    return undefined;
  }
}

function held(folder: string, file: string, content: string): RevNetError {
  const { pid, host, since } = parse(content);
  return new RevNetError(
    "ERR_RUN_LOCKED",
    `'${folder}' is in use by a run of process ${pid}${host === hostname() ? "" : ` on ${host}`}, since ${since}; ` +
      `wait for it, or remove '${file}' if there is no such run`,
  );
}

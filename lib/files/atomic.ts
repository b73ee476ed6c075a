/** Files that are either the old one or the whole new one, whatever happens while they are written. */
import { randomBytes } from "node:crypto";
import { fsync } from "node:fs";
import * as fs from "node:fs/promises";
import * as path from "node:path";
import { promisify } from "node:util";
import { RevNetError } from "../errors.js";

/** Nobody else's files end like this, so whatever does was left by a write that was cut short. */
const TEMPORARY = /\.revnet-[0-9a-f]{16}\.tmp$/;
/** What systems answer that cannot flush a folder. */
const CANNOT_FLUSH = ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EPERM", "EACCES", "EISDIR", "EBADF"];

/** A new name beside `file`, which removeTemporaryFiles knows. */
export const temporaryName = (file: string): string => `${file}.revnet-${randomBytes(8).toString("hex")}.tmp`;

export const isTemporary = (name: string): boolean => TEMPORARY.test(name);

/**
 * Writes `chunks` to a temporary file beside `file`, flushes it to the disk and renames it over `file`.
 * @throws RevNetError ERR_FILE naming the path and the reason; the old file is then as it was
 */
export async function writeFileAtomically(file: string, chunks: readonly Uint8Array[]): Promise<void> {
  const temporary = temporaryName(file);
  try {
    const handle = await fs.open(temporary, "wx");
    try {
      for (const chunk of chunks) await handle.writeFile(chunk);
      await flush(handle);
    } finally {
      await handle.close();
    }
    await fs.rename(temporary, file);
    await syncFolder(path.dirname(file));
  } catch (error) {
    await fs.rm(temporary, { force: true }).catch(() => {});
    throw new RevNetError("ERR_FILE", `cannot write '${file}': ${(error as Error).message}`, { cause: error });
  }
}

/**
 * What was written is on the disk, of macOS too, where Node.js asks for more than fsync (F_FULLFSYNC). By the descriptor: the file handles that Yarn's Plug'n'Play puts in place of Node.js's cannot do it.
 * Rejects with the system's error.
 */
export async function flush(handle: fs.FileHandle): Promise<void> {
  await promisify(fsync)(handle.fd);
}

/** Makes a folder that is there after a power failure too. @throws RevNetError ERR_FILE */
export async function makeFolder(folder: string): Promise<void> {
  try {
    if (await makePath(path.resolve(folder))) await syncFolder(path.dirname(path.resolve(folder)));
  } catch (error) {
    throw new RevNetError("ERR_FILE", `cannot make the folder '${folder}': ${(error as Error).message}`, { cause: error });
  }
}

/**
 * As mkdir with `recursive`, which on some file systems never ends: in /proc, a folder cannot be made, and the reason given is that its
 * parent is missing. Whether the folder is a new one.
 */
async function makePath(folder: string): Promise<boolean> {
  const make = () =>
    fs.mkdir(folder).then(
      () => true,
      async (error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST" || !(await fs.stat(folder)).isDirectory()) throw error;
        return false;
      },
    );
  try {
    return await make();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || path.dirname(folder) === folder) throw error;
    await makePath(path.dirname(folder));
    return make();
  }
}

/** Removes what writes that were cut short (by kill -9, by a power failure) left in `folder`, of which nobody else writes now. */
export async function removeTemporaryFiles(folder: string): Promise<void> {
  for (const name of await fs.readdir(folder).catch(() => []))
    if (isTemporary(name)) await fs.rm(path.join(folder, name), { force: true }).catch(() => {});
}

/** Makes the rename itself durable, where the system can flush a folder (Windows cannot). Rejects with the system's error. */
async function syncFolder(folder: string): Promise<void> {
  const excuse = (error: NodeJS.ErrnoException) => {
    if (!CANNOT_FLUSH.includes(error.code ?? "")) throw error;
    return undefined;
  };
  const handle = await fs.open(folder, "r").catch(excuse);
  try {
    if (handle) await flush(handle).catch(excuse);
  } finally {
    await handle?.close();
  }
}

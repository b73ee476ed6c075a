/**
 * Storage that fails, under one folder: while it is installed, every change that is made there by node:fs/promises is counted, may fail,
 * and is followed by a model of what a power failure would leave.
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import path from "node:path";

// The modules' own objects, whose functions lib/ looks up at each call.
const callbacks = require("node:fs") as Record<string, unknown>;
const promises = require("node:fs/promises") as Record<string, unknown>;

/** Which change fails, and how: with this error once, from then on, or after half of what was to be written. */
export interface Fault {
  readonly at: number;
  readonly code: "ENOSPC" | "EIO";
  readonly kind: "once" | "forever" | "short";
}

/** What is in a file for those who come after a power failure: what was there when it was flushed. */
interface Inode {
  flushed: Buffer | undefined;
}

type Handler = (...args: never[]) => unknown;

export class Storage {
  /** Changes so far. */
  changes = 0;
  /** What each change was, for messages. */
  readonly log: string[] = [];
  fault: Fault | undefined;
  /** Called after each change. */
  onChange: (change: number) => void = () => {};
  readonly #originals: [Record<string, unknown>, string, unknown][] = [];
  /** By path: as programs see them, and as they are on the disk. */
  readonly #names = new Map<string, Inode>();
  readonly #durable = new Map<string, Inode>();
  readonly #descriptors = new Map<number, string>();

  constructor(readonly root: string) {}

  install(): void {
    const open = promises.open as (file: string, flags?: string | number, mode?: number) => Promise<FileHandle>;
    this.#replace(promises, "open", async (file: string, flags: string | number = "r", mode?: number) => {
      const writes = typeof flags === "number" ? (flags & 3) !== 0 : flags !== "r";
      if (!this.#isInside(file)) return open(file, flags, mode);
      if (!writes) return this.#opened(await open(file, flags, mode), file);
      return this.#change(`open ${file}`, async () => {
        const handle = await open(file, flags, mode);
        if (!this.#names.has(file)) this.#names.set(file, { flushed: undefined });
        return this.#opened(handle, file);
      });
    });
    const through = (name: string, after: (...files: string[]) => void) => {
      const original = promises[name] as (...args: unknown[]) => Promise<unknown>;
      this.#replace(promises, name, async (...args: unknown[]) => {
        if (!this.#isInside(args[0] as string)) return original(...args);
        return this.#change(`${name} ${args[0]}`, async () => {
          const result = await original(...args);
          after(...(args as string[]));
          return result;
        });
      });
    };
    through("rename", (from, to) => {
      const inode = this.#names.get(from!);
      this.#names.delete(from!);
      if (inode) this.#names.set(to!, inode);
    });
    through("rm", (file) => this.#names.delete(file!));
    through("mkdir", () => {});
    const fsync = callbacks.fsync as (descriptor: number, done: (error: Error | null) => void) => void;
    this.#replace(callbacks, "fsync", (descriptor: number, done: (error: Error | null) => void) => {
      const file = this.#descriptors.get(descriptor);
      if (file === undefined) return fsync(descriptor, done);
      this.#change(`fsync ${file}`, async () => this.#flushed(file)).then(() => done(null), done);
    });
  }

  uninstall(): void {
    for (const [module, name, original] of this.#originals.splice(0)) module[name] = original;
  }

  /** What programs would find after being killed now. */
  copyTo(folder: string): void {
    cpSync(this.root, folder, { recursive: true });
  }

  /**
   * What is left after a power failure now: of each file what was flushed.
   * @param renamed whether names are on the disk at once; else those that were there when their folder was flushed
   */
  restoreTo(folder: string, renamed: boolean): void {
    mkdirSync(folder, { recursive: true });
    for (const [file, inode] of renamed ? this.#names : this.#durable) {
      const target = path.join(folder, path.relative(this.root, file));
      mkdirSync(path.dirname(target), { recursive: true });
      writeFileSync(target, inode.flushed ?? "");
    }
  }

  #replace(module: Record<string, unknown>, name: string, handler: Handler): void {
    this.#originals.push([module, name, module[name]]);
    module[name] = handler;
  }

  #isInside(file: unknown): boolean {
    return typeof file === "string" && (file === this.root || file.startsWith(this.root + path.sep));
  }

  #opened(handle: FileHandle, file: string): FileHandle {
    const { fd } = handle;
    this.#descriptors.set(fd, file);
    const close = handle.close.bind(handle);
    const write = handle.write.bind(handle) as (...args: unknown[]) => Promise<unknown>;
    const writeFile = handle.writeFile.bind(handle);
    const truncate = handle.truncate.bind(handle);
    return Object.assign(handle, {
      close: () => {
        this.#descriptors.delete(fd);
        return close();
      },
      write: (data: string | Buffer, ...rest: number[]) => {
        const half = () =>
          typeof data === "string" ? write(data.slice(0, data.length / 2), ...rest) : write(data, rest[0], rest[1]! >> 1, rest[2]);
        return this.#change(`write ${file}`, () => write(data, ...rest), half);
      },
      writeFile: (data: Uint8Array) =>
        this.#change(
          `writeFile ${file}`,
          () => writeFile(data),
          () => writeFile(data.subarray(0, data.length >> 1)),
        ),
      truncate: (length: number) => this.#change(`truncate ${file}`, () => truncate(length)),
    });
  }

  async #change<T>(what: string, action: () => Promise<T>, half?: () => Promise<unknown>): Promise<T> {
    const change = ++this.changes;
    this.log.push(what);
    const { at, kind, code } = this.fault ?? { at: Infinity };
    if (change === at || (change > at && kind === "forever")) {
      if (kind === "short") await half?.();
      throw Object.assign(new Error(`${code}: injected, ${what}`), { code });
    }
    const result = await action();
    this.onChange(change);
    return result;
  }

  #flushed(file: string): void {
    const inode = this.#names.get(file);
    if (inode) inode.flushed = readFileSync(file);
    // A folder: the names in it.
    else {
      const isIn = (name: string) => path.dirname(name) === file;
      for (const name of this.#durable.keys()) if (isIn(name) && !this.#names.has(name)) this.#durable.delete(name);
      for (const [name, found] of this.#names) if (isIn(name)) this.#durable.set(name, found);
    }
  }
}

/**
 * What the files of a data set held when they were first read: so a run that was stopped can tell whether they still do. Sizes and times
 * come first, which cost nothing; a file is read for its digest only where one of them has changed.
 */
import { createHash } from "node:crypto";
import path from "node:path";
import { readFile } from "../files/open.js";
import type { ImageFile } from "./folder.js";
import { Pacer } from "./pacer.js";
import { MAX_IMAGE_BYTES } from "./picture.js";

/** A file as it was, and what it held; undefined where it was not read yet. */
export interface FileRecord {
  readonly name: string;
  readonly size: number;
  readonly mtimeMs: number;
  readonly ctimeMs: number;
  readonly digest: string | undefined;
}

/** Of a file's bytes. */
export const digestOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex").slice(0, 32)}`;
/** Of a picture in a pack, which is read instead of its file. */
export const digestOfPacked = (crc: number): string => `crc32:${crc}`;
const kindOf = (digest: string) => digest.slice(0, digest.indexOf(":"));

/** Files that are read at the same time. */
const AT_ONCE = 8;

export class Contents {
  readonly #files = new Map<string, ImageFile>();
  readonly #digests = new Map<string, string>();
  #noted = 0;

  constructor(
    private readonly folder: string,
    files: Iterable<ImageFile>,
  ) {
    for (const file of files) this.#files.set(file.name, file);
  }

  /** How many digests were noted: another number means that there is something new to keep. */
  get noted(): number {
    return this.#noted;
  }

  has(name: string): boolean {
    return this.#digests.has(name);
  }

  note(name: string, digest: string): void {
    this.#digests.set(name, digest);
    this.#noted += 1;
  }

  *records(): Generator<FileRecord> {
    for (const { name, size, mtimeMs, ctimeMs } of this.#files.values())
      yield { name, size, mtimeMs, ctimeMs, digest: this.#digests.get(name) };
  }

  /**
   * How the files differ from what they were, by name: each changed, new or gone. Digests of files that did not change are taken over.
   */
  async changesSince(before: Iterable<FileRecord>): Promise<string[]> {
    const changes: string[] = [];
    const doubtful: FileRecord[] = [];
    const known = new Set<string>();
    const pacer = new Pacer();
    for (const record of before) {
      known.add(record.name);
      const now = this.#files.get(record.name);
      if (!now) changes.push(`${record.name} is gone`);
      else if (now.size !== record.size) changes.push(`${record.name} has changed`);
      else if (this.#isSame(record, now)) this.#take(record);
      else doubtful.push(record);
      await pacer.breathe();
    }
    for (const name of this.#files.keys()) if (!known.has(name)) changes.push(`${name} is new`);
    for (let first = 0; first < doubtful.length; first += AT_ONCE) {
      const some = doubtful.slice(first, first + AT_ONCE);
      const same = await Promise.all(some.map((record) => this.#holdsTheSame(record)));
      for (const [i, record] of some.entries())
        if (same[i]) this.#take(record);
        else changes.push(`${record.name} has changed`);
    }
    return changes.sort();
  }

  /** Whether neither times nor a digest that is known already say that it changed. */
  #isSame({ name, mtimeMs, ctimeMs, digest }: FileRecord, now: ImageFile): boolean {
    const own = this.#digests.get(name);
    if (own !== undefined && digest !== undefined && kindOf(own) === kindOf(digest)) return own === digest;
    return mtimeMs === now.mtimeMs && ctimeMs === now.ctimeMs;
  }

  async #holdsTheSame({ name, mtimeMs, digest }: FileRecord): Promise<boolean> {
    const own = this.#digests.get(name);
    if (own !== undefined && digest !== undefined && kindOf(own) === kindOf(digest)) return own === digest;
    // Not read before, or from a pack: the time is all there is.
    const now = this.#files.get(name)!;
    if (digest === undefined || kindOf(digest) !== "sha256") return mtimeMs === now.mtimeMs;
    const bytes = await readFile(path.join(this.folder, now.onDisk), { limit: MAX_IMAGE_BYTES }).catch(() => undefined);
    return bytes !== undefined && digestOf(bytes) === digest;
  }

  #take({ name, digest }: FileRecord): void {
    if (digest !== undefined && !this.#digests.has(name)) this.#digests.set(name, digest);
  }
}

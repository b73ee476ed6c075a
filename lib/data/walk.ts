/**
 * Finds the image files below folders. Links are followed, after everything that is really there, and lead neither into a folder that was
 * read already nor to one above; so each folder is read once and each file counted once. What is not taken is named, with the reason.
 */
import type { Dirent, Stats } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import path from "node:path";
import { types } from "node:util";
import { RevNetError } from "../errors.js";
import { kindOf } from "../files/open.js";
import type { LeftOut } from "./dataset.js";
import { IMAGE_EXTENSIONS } from "./picture.js";

/** Where a search begins: a folder by its name relative to the root, and what its files are for. */
export interface Start<Use> {
  readonly name: string;
  readonly use: Use;
}
export interface Found<Use> extends Start<Use> {
  readonly stats: Stats;
}
/** Something in a folder. */
interface Entry<Use> extends Start<Use> {
  /** Its path without links, but for its own. */
  readonly real: string;
}

/** Files that are looked at at the same time. */
const AT_ONCE = 64;
/** Folders that systems and programs hide in others, besides those that begin with a dot. */
const HIDDEN = [
  "@eadir",
  "@recycle",
  "#recycle",
  "#snapshot",
  "__macosx",
  "$recycle.bin",
  "system volume information",
  "lost+found",
];

/** A name as it is compared: a file system may hand out é as one character or, as older ones of macOS do, as e and an accent. */
export const composed = (name: string): string => name.normalize("NFC");

export const byCode = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
const isHidden = (name: string) => name.startsWith(".") || HIDDEN.includes(name.toLowerCase());
const hasImageName = (name: string) => IMAGE_EXTENSIONS.includes(path.extname(name).toLowerCase());
const joined = (folder: string, name: string) => (folder === "" ? name : `${folder}/${name}`);
/** Whether `inner` is `outer` or in it. */
const isWithin = (inner: string, outer: string) =>
  inner === outer || inner.startsWith(outer.endsWith(path.sep) ? outer : outer + path.sep);

export class Walker {
  readonly leftOut: LeftOut[] = [];
  /** Folders that were read, without links, and the name under which each was. */
  readonly #entered = new Map<string, string>();
  /** Files that links lead to, and files that have several names. */
  readonly #counted = new Map<string, string>();

  private constructor(
    private readonly root: string,
    private readonly realRoot: string,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** @throws RevNetError ERR_INVALID_DATA where there is no such folder; ERR_ABORTED, as its functions */
  static async of(root: string, signal?: AbortSignal): Promise<Walker> {
    return new Walker(root, await realpath(root).catch(unreadable(root)), signal);
  }

  /** Names of the subfolders of a folder, sorted; files beside them are left out, since they are of no class. */
  async subfolders(below: string): Promise<string[]> {
    const real = await realpath(path.join(this.root, below)).catch(unreadable(path.join(this.root, below)));
    const names: string[] = [];
    for (const entry of await this.#read(below, real)) {
      const name = joined(below, entry.name);
      if (isHidden(entry.name)) this.#leaveOut(name, "hidden");
      else if (entry.isDirectory()) names.push(entry.name);
      else if (!entry.isSymbolicLink()) this.#leaveOut(name, "in no class's folder");
      else {
        const to = await this.#target({ name, real: path.join(real, entry.name), use: undefined });
        if (to?.stats.isDirectory()) names.push(entry.name);
        else if (to) this.#leaveOut(name, "in no class's folder");
      }
    }
    return names;
  }

  /** All images below the folders, sorted by name. */
  async images<Use>(starts: readonly Start<Use>[]): Promise<Found<Use>[]> {
    const found: Found<Use>[] = [];
    const links: Entry<Use>[] = [];
    const fileLinks: Entry<Use>[] = [];
    for (const start of starts) {
      const whole = path.join(this.root, start.name);
      const real = await realpath(whole).catch(unreadable(whole));
      // Reached by a link: after what is really there.
      if (real === path.join(this.realRoot, start.name)) await this.#enter({ ...start, real }, found, links);
      else links.push({ ...start, real: path.join(this.realRoot, start.name) });
    }
    for (let i = 0; i < links.length; i++) {
      const link = links[i]!;
      const to = await this.#target(link);
      if (to?.stats.isDirectory()) await this.#enter({ ...link, real: to.real }, found, links);
      else if (to) fileLinks.push({ ...link, real: to.real });
    }
    for (const link of fileLinks) await this.#takeLinked(link, found);
    const keyed = found.map((image) => ({ image, name: composed(image.name) }));
    return keyed.sort((a, b) => byCode(a.name, b.name) || byCode(a.image.name, b.image.name)).map(({ image }) => image);
  }

  /** Reads a folder and those in it; links are put aside. */
  async #enter<Use>(start: Entry<Use>, found: Found<Use>[], links: Entry<Use>[]): Promise<void> {
    // A stack of its own: folders may nest as deep as they like.
    const folders = [start];
    for (let folder = folders.pop(); folder; folder = folders.pop()) {
      const before = this.#entered.get(folder.real);
      if (before !== undefined) {
        this.#leaveOut(folder.name, `the same folder as ${before}`);
        continue;
      }
      this.#entered.set(folder.real, folder.name);
      const files: Entry<Use>[] = [];
      const inner: Entry<Use>[] = [];
      for (const item of await this.#read(folder.name, folder.real)) {
        const entry = { name: joined(folder.name, item.name), real: path.join(folder.real, item.name), use: folder.use };
        if (isHidden(item.name)) this.#leaveOut(entry.name, "hidden");
        else if (item.isSymbolicLink()) links.push(entry);
        else if (item.isDirectory()) inner.push(entry);
        else files.push(entry);
      }
      for (const folder of inner.reverse()) folders.push(folder);
      for (let first = 0; first < files.length; first += AT_ONCE) {
        const some = files.slice(first, first + AT_ONCE).filter((file) => this.#isImage(file));
        const looked = await Promise.all(some.map((file) => stat(file.real).catch((error: Error) => error)));
        for (const [i, file] of some.entries()) this.#take(file, looked[i]!, found);
      }
    }
  }

  /** A file that a link leads to; those of folders that were read are counted there. */
  async #takeLinked<Use>(link: Entry<Use>, found: Found<Use>[]): Promise<void> {
    if (!this.#isImage(link)) return;
    const name = path.basename(link.real);
    const folder = this.#entered.get(path.dirname(link.real));
    const before =
      folder !== undefined && hasImageName(name) && !isHidden(name) ? `${folder}/${name}` : this.#counted.get(link.real);
    if (before !== undefined) {
      this.#leaveOut(link.name, `the same file as ${before}`);
      return;
    }
    this.#counted.set(link.real, link.name);
    this.#take(link, await stat(link.real).catch((error: Error) => error), found);
  }

  #isImage({ name }: { name: string }): boolean {
    if (hasImageName(name)) return true;
    const extension = path.extname(name).toLowerCase();
    this.#leaveOut(name, extension === "" ? "no image's extension" : `not an image that is read (${extension})`);
    return false;
  }

  #take<Use>({ name, use }: Entry<Use>, stats: Stats | Error, found: Found<Use>[]): void {
    if (types.isNativeError(stats)) this.#leaveOut(name, `it cannot be found under its name: ${stats.message}`);
    else if (!stats.isFile()) this.#leaveOut(name, kindOf(stats));
    else if (stats.nlink > 1 && stats.ino > 0) {
      const identity = `${stats.dev}:${stats.ino}`;
      const before = this.#counted.get(identity);
      if (before !== undefined) this.#leaveOut(name, `the same file as ${before}`);
      else found.push({ name, use, stats });
      this.#counted.set(identity, before ?? name);
    } else found.push({ name, use, stats });
  }

  /** What a link leads to; undefined, with the link left out, where that is nothing or a folder above. */
  async #target({ name, real: link }: Entry<unknown>): Promise<{ real: string; stats: Stats } | undefined> {
    let to: { real: string; stats: Stats };
    try {
      const real = await realpath(link);
      to = { real, stats: await stat(real) };
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      this.#leaveOut(name, code === "ENOENT" || code === "ELOOP" ? "a link that leads nowhere" : message);
      return undefined;
    }
    if (to.stats.isDirectory() && [this.realRoot, path.dirname(link)].some((inside) => isWithin(inside, to.real))) {
      this.#leaveOut(name, "a link to a folder above");
      return undefined;
    }
    return to;
  }

  async #read(name: string, real: string): Promise<Dirent[]> {
    if (this.signal?.aborted) throw new RevNetError("ERR_ABORTED", "reading the folder was aborted", { cause: this.signal.reason });
    const entries = await readdir(real, { withFileTypes: true }).catch(unreadable(path.join(this.root, name)));
    return entries.sort((a, b) => byCode(a.name, b.name));
  }

  #leaveOut(name: string, reason: string): void {
    this.leftOut.push({ file: path.join(this.root, name), reason });
  }
}

const unreadable =
  (at: string) =>
  (cause: NodeJS.ErrnoException): never => {
    const reason = cause.code === "ENOENT" ? "there is no such folder" : cause.message;
    throw new RevNetError("ERR_INVALID_DATA", `${at}: ${reason}`, { cause });
  };

/** Paths of all images below a folder, and what else is there. @throws RevNetError as Walker.of */
export async function imagesIn(folder: string): Promise<{ images: string[]; leftOut: readonly LeftOut[] }> {
  const walker = await Walker.of(folder);
  const found = await walker.images([{ name: "", use: undefined }]);
  return { images: found.map(({ name }) => path.join(folder, name)), leftOut: walker.leftOut };
}

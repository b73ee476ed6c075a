/**
 * Finds the images of a folder with a subfolder for each class:
 *   DIR/train/CLASS/...  and  DIR/val/CLASS/... (or validation/, test/), or
 *   DIR/CLASS/...        of which a share is kept for validation; also where there is only DIR/train.
 * Classes are the subfolders' names in the order of their characters' codes, and so are the files within a class.
 */
import { createHash } from "node:crypto";
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { RevNetError } from "../errors.js";

export interface ImageFile {
  /** Relative to the folder, with slashes. */
  readonly name: string;
  readonly label: number;
  readonly size: number;
  readonly mtimeMs: number;
}

export interface FolderListing {
  readonly classes: readonly string[];
  readonly train: readonly ImageFile[];
  readonly test: readonly ImageFile[];
}

export const DEFAULT_SHARE = 0.1;

const EXTENSIONS = [".jpg", ".jpeg", ".png", ".webp"];
const TEST_FOLDERS = ["val", "validation", "test"];
/** Files whose sizes are asked for at the same time. */
const AT_ONCE = 64;

const invalid = (what: string, cause?: unknown) => new RevNetError("ERR_INVALID_DATA", what, { cause });
const byCode = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/**
 * @param share of each class's images, by a hash of their names, for validation; undefined: the default; "none": all are for training
 * @throws RevNetError ERR_INVALID_DATA; ERR_INVALID_ARGUMENT for a share where the folder has its own validation images
 */
export async function listFolder(folder: string, share: number | "none" | undefined): Promise<FolderListing> {
  const top = await subfolders(folder, "");
  const base = top.includes("train") ? "train" : "";
  const own = base && TEST_FOLDERS.find((name) => top.includes(name));
  const classes = base ? await subfolders(folder, base) : top;
  const where = path.join(folder, base);
  if (classes.length < 2)
    throw invalid(`${where}: expected a subfolder of images for each of at least two classes, found ${classes.length}`);
  const train = await listClasses(folder, base, classes);
  if (!own && share === "none") return { classes, train: train.flat(), test: [] };
  if (!own) return { classes, ...divide(train, (share as number | undefined) ?? DEFAULT_SHARE, where) };
  if (typeof share === "number")
    throw new RevNetError("ERR_INVALID_ARGUMENT", `validationShare: ${folder} has its own validation images, in ${own}/`);
  const testClasses = await subfolders(folder, own);
  const stranger = testClasses.find((name) => !classes.includes(name));
  if (stranger !== undefined) throw invalid(`${path.join(folder, own, stranger)}: there is no class '${stranger}' in ${where}`);
  const test = await listClasses(folder, own, classes, testClasses);
  return { classes, train: train.flat(), test: test.flat() };
}

async function subfolders(folder: string, below: string): Promise<string[]> {
  const at = path.join(folder, below);
  const entries = await readdir(at, { withFileTypes: true }).catch((cause: NodeJS.ErrnoException) => {
    throw invalid(cause.code === "ENOENT" ? `${at}: there is no such folder` : `${at}: ${cause.message}`, cause);
  });
  const names: string[] = [];
  for (const entry of entries) {
    if (entry.name.startsWith(".")) continue;
    const linked = entry.isSymbolicLink() ? await stat(path.join(at, entry.name)).catch(() => undefined) : undefined;
    if (entry.isDirectory() || linked?.isDirectory()) names.push(entry.name);
  }
  return names.sort(byCode);
}

/** The images of each class; of those in `present`, if given, there must be some. */
async function listClasses(folder: string, base: string, classes: string[], present = classes): Promise<ImageFile[][]> {
  const lists: ImageFile[][] = [];
  for (const [label, name] of classes.entries()) {
    const below = path.join(base, name);
    const files = present.includes(name) ? await listImages(folder, below, label) : [];
    if (files.length === 0 && present.includes(name))
      throw invalid(`${path.join(folder, below)}: no images; expected ${EXTENSIONS.join(", ")}`);
    lists.push(files);
  }
  return lists;
}

async function listImages(folder: string, below: string, label: number): Promise<ImageFile[]> {
  const at = path.join(folder, below);
  const found = await readdir(at, { recursive: true }).catch((cause: Error) => {
    throw invalid(`${at}: ${cause.message}`, cause);
  });
  const names = found
    .filter((name) => EXTENSIONS.includes(path.extname(name).toLowerCase()) && !path.basename(name).startsWith("."))
    .map((name) => path.join(below, name).split(path.sep).join("/"))
    .sort(byCode);
  const files: ImageFile[] = [];
  for (let first = 0; first < names.length; first += AT_ONCE)
    files.push(...(await Promise.all(names.slice(first, first + AT_ONCE).map((name) => describeFile(folder, name, label)))));
  return files;
}

/** A link that leads nowhere is listed all the same: reading it will tell. */
async function describeFile(folder: string, name: string, label: number): Promise<ImageFile> {
  const { size, mtimeMs } = await stat(path.join(folder, name)).catch(() => ({ size: 0, mtimeMs: 0 }));
  return { name, label, size, mtimeMs };
}

/** Of a class's images: its share, but at least one for either use where there are two. */
const heldOf = (count: number, share: number) => (share === 0 ? 0 : Math.min(count - 1, Math.max(1, Math.round(share * count))));

/** The same images for validation each time, and nearly the same when images are added: those whose names hash lowest. */
function divide(classes: readonly ImageFile[][], share: number, where: string): Pick<FolderListing, "train" | "test"> {
  const held = new Set<ImageFile>();
  for (const files of classes) {
    const hash = (file: ImageFile) => createHash("sha256").update(file.name).digest("hex");
    const ranked = files.map((file) => ({ file, hash: hash(file) })).sort((a, b) => byCode(a.hash, b.hash));
    for (const { file } of ranked.slice(0, heldOf(files.length, share))) held.add(file);
  }
  const all = classes.flat();
  const [train, test] = [all.filter((file) => !held.has(file)), all.filter((file) => held.has(file))];
  if (train.length === 0 || test.length === 0)
    throw invalid(
      `${where}: a validation share of ${share} leaves ${train.length} images to train on and ${test.length} to validate with; ` +
        "expected at least one of each",
    );
  return { train, test };
}

/**
 * Which images of a folder are of which class and split:
 *   DIR/train/CLASS/...  with DIR/val/CLASS/... and DIR/test/CLASS/..., either or both (SPLIT_NAMES has all their names), or
 *   DIR/CLASS/...        of which a share is held out; also of DIR/train, where it is alone.
 * Classes are the subfolders' names in the order of their characters' codes, and so are the files within a class.
 */
import { createHash } from "node:crypto";
import path from "node:path";
import { RevNetError } from "../errors.js";
import type { LeftOut } from "./dataset.js";
import { IMAGE_EXTENSIONS } from "./picture.js";
import { byCode, composed, type Found, type Start, Walker } from "./walk.js";

export interface ImageFile {
  /** Relative to the folder, with slashes, and composed: the same wherever the folder is copied to. */
  readonly name: string;
  /** The same as the file system has it. */
  readonly onDisk: string;
  readonly label: number;
  readonly size: number;
  readonly mtimeMs: number;
  /** When the file's content, name or owner last changed: nobody can set it. */
  readonly ctimeMs: number;
}

export interface FolderListing {
  readonly classes: readonly string[];
  readonly train: readonly ImageFile[];
  /** For validation during training, where there are others for the test; else empty. */
  readonly validation: readonly ImageFile[];
  readonly test: readonly ImageFile[];
  /** All else that is there. */
  readonly leftOut: readonly LeftOut[];
}

export interface ListingOptions {
  /** Of each class's images, by a hash of their names, held out; undefined: the default; "none": all are for training. */
  readonly share?: number | "none" | undefined;
  /** Classes by label, such as a network's: folders are matched to them by name, and some may be absent. */
  readonly classes?: readonly string[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

export const DEFAULT_SHARE = 0.1;

/** Names of the folders of each split, in any case. */
const SPLIT_NAMES = {
  train: ["train", "training"],
  validation: ["val", "valid", "validation"],
  test: ["test", "testing"],
} as const;
type Split = keyof typeof SPLIT_NAMES;
const SPLITS = Object.keys(SPLIT_NAMES) as Split[];

/** Names of folders that are listed in a message. */
const SHOWN = 10;

const invalid = (what: string) => new RevNetError("ERR_INVALID_DATA", what);
const splitOf = (name: string) => SPLITS.find((split) => (SPLIT_NAMES[split] as readonly string[]).includes(name.toLowerCase()));
const listed = (names: readonly string[]) =>
  names.length === 0
    ? "nothing"
    : `${names
        .slice(0, SHOWN)
        .map((name) => `${name}/`)
        .join(", ")}${names.length > SHOWN ? `, and ${names.length - SHOWN} more` : ""}`;

/**
 * @throws RevNetError ERR_INVALID_DATA; ERR_INVALID_ARGUMENT for a share where the folder has its own validation images; ERR_ABORTED
 */
export async function listFolder(folder: string, options: ListingOptions = {}): Promise<FolderListing> {
  const { share, classes: known } = options;
  const walker = await Walker.of(folder, options.signal);
  const top = await walker.subfolders("");
  const { folders, others } = readSplits(folder, top, known !== undefined);
  const own = Object.keys(folders) as Split[];
  if (typeof share === "number" && folders.validation !== undefined)
    throw new RevNetError(
      "ERR_INVALID_ARGUMENT",
      `validationShare: ${folder} has its own validation images, in ${folders.validation}/`,
    );

  // Without splits, all is what training is taken from.
  const bases: [Split, string][] = own.length === 0 ? [["train", ""]] : own.map((split) => [split, folders[split]!]);
  const found = new Map<Split, string[]>();
  for (const [split, base] of bases) found.set(split, base === "" ? top : await walker.subfolders(base));
  const classes = known?.map(composed) ?? [...new Set(found.get("train")!.map(composed))].sort(byCode);
  const where = path.join(folder, bases[0]![1]);
  if (others.length > 0 && found.get(bases[0]![0])!.length === 0) throw mixture(folder, top);
  if (known === undefined && classes.length < 2)
    throw invalid(
      `${where}: expected a subfolder of images for each of at least two classes, found ${classes.length}${classes.length === 1 ? ` (${classes[0]}/)` : ""}`,
    );
  const starts: Start<{ split: Split; label: number } | "other">[] = [];
  for (const [split, base] of bases)
    for (const name of found.get(split)!) {
      const label = classes.indexOf(composed(name));
      if (label < 0)
        throw invalid(
          `${path.join(folder, base, name)}: there is no class '${name}' ${known ? `among those expected: ${known.slice(0, SHOWN).join(", ")}${known.length > SHOWN ? ", ..." : ""}` : `in ${where}`}`,
        );
      starts.push({ name: base === "" ? name : `${base}/${name}`, use: { split, label } });
    }
  const images = await walker.images([...starts, ...others.map((name) => ({ name, use: "other" as const }))]);
  if (own.length === 0) refuseInnerSplits(folder, images);
  const lists = new Map<Split, ImageFile[][]>(bases.map(([split]) => [split, classes.map(() => [])]));
  const names = portable(images.map(({ name }) => name));
  for (const [i, { name: onDisk, use, stats }] of images.entries()) {
    if (use === "other") throw mixture(folder, top);
    const { size, mtimeMs, ctimeMs } = stats;
    lists.get(use.split)![use.label]!.push({ name: names[i]!, onDisk, label: use.label, size, mtimeMs, ctimeMs });
  }
  for (const { name, use } of starts)
    if (use !== "other" && lists.get(use.split)![use.label]!.length === 0) {
      const at = path.join(folder, name);
      const reason = walker.leftOut.find(({ file }) => file === at)?.reason;
      if (use.split === "train" && known === undefined)
        throw invalid(
          `${at}: no images${reason === undefined ? `; expected ${IMAGE_EXTENSIONS.join(", ")}` : `: it is ${reason}`}`,
        );
      if (reason === undefined) walker.leftOut.push({ file: at, reason: "no images" });
    }
  for (const name of others)
    walker.leftOut.push({ file: path.join(folder, name), reason: "no split's folder, and without images" });
  for (const [split, base] of bases)
    if (lists.get(split)!.every((files) => files.length === 0)) throw invalid(`${path.join(folder, base)}: no images of any class`);

  const whole = (split: Split) => lists.get(split)?.flat() ?? [];
  const { leftOut } = walker;
  // What is for the test is never for validation as well, where there are two.
  const [validation, test] = [whole("validation"), whole("test")];
  if (validation.length > 0 || share === "none" || !lists.has("train")) {
    const both = validation.length > 0 && test.length > 0;
    return {
      classes,
      train: whole("train"),
      validation: both ? validation : [],
      test: both || test.length > 0 ? test : validation,
      leftOut,
    };
  }
  if (test.length > 0 && share === undefined) return { classes, train: whole("train"), validation, test, leftOut };
  const { train, held } = divide(lists.get("train")!, share ?? DEFAULT_SHARE, where);
  return test.length > 0
    ? { classes, train, validation: held, test, leftOut }
    : { classes, train, validation, test: held, leftOut };
}

/** Composed names, but for those that are only told apart as they are. @param names sorted as composed */
function portable(names: readonly string[]): string[] {
  const all = names.map(composed);
  return all.map((name, i) => (name === all[i - 1] || name === all[i + 1] ? names[i]! : name));
}

/** The folder of each split, none where all are classes; and what else is beside them. @param alone whether there may be no train/ */
function readSplits(
  folder: string,
  top: readonly string[],
  alone: boolean,
): { folders: Partial<Record<Split, string>>; others: readonly string[] } {
  const folders: Partial<Record<Split, string>> = {};
  for (const name of top) {
    const split = splitOf(name);
    if (split === undefined) continue;
    if (folders[split] !== undefined) throw mixture(folder, top, `${folders[split]}/ and ${name}/ are one split`);
    folders[split] = name;
  }
  const any = Object.keys(folders).length > 0;
  if (any && folders.train === undefined && !alone) throw mixture(folder, top, "there is no train/");
  return { folders, others: any ? top.filter((name) => splitOf(name) === undefined) : [] };
}

const mixture = (folder: string, top: readonly string[], what = "some of them are splits, and others have images as well") =>
  invalid(
    `${folder}: found ${listed(top)}, but ${what}; expected train/ with val/ or test/ or both, if any, or else a subfolder for each class ` +
      "(one with the name of a split goes below train/)",
  );

/** DIR/CLASS/train and DIR/CLASS/val would otherwise be mixed. */
function refuseInnerSplits(folder: string, images: readonly Found<unknown>[]): void {
  const inner = new Map<Split, string>();
  for (const { name } of images) {
    const [, second, ...rest] = name.split("/");
    const split = rest.length > 0 ? splitOf(second!) : undefined;
    if (split) inner.set(split, path.posix.dirname(name).split("/").slice(0, 2).join("/"));
  }
  if (inner.size > 1)
    throw invalid(
      `${folder}: found ${listed([...inner.values()])}, splits in the classes' folders; expected the splits above: train/CLASS`,
    );
}

/** Of a class's images: its share, but at least one for either use where there are two. */
const heldOf = (count: number, share: number) => (share === 0 ? 0 : Math.min(count - 1, Math.max(1, Math.round(share * count))));

/** The same images are held out each time, and nearly the same when images are added: those whose names hash lowest. */
function divide(classes: readonly ImageFile[][], share: number, where: string): { train: ImageFile[]; held: ImageFile[] } {
  const chosen = new Set<ImageFile>();
  for (const files of classes) {
    const hash = (file: ImageFile) => createHash("sha256").update(composed(file.name)).digest("hex");
    const ranked = files.map((file) => ({ file, hash: hash(file) })).sort((a, b) => byCode(a.hash, b.hash));
    for (const { file } of ranked.slice(0, heldOf(files.length, share))) chosen.add(file);
  }
  const all = classes.flat();
  const [train, held] = [all.filter((file) => !chosen.has(file)), all.filter((file) => chosen.has(file))];
  if (train.length === 0 || held.length === 0)
    throw invalid(
      `${where}: a validation share of ${share} leaves ${train.length} images to train on and ${held.length} to validate with; ` +
        "expected at least one of each",
    );
  return { train, held };
}

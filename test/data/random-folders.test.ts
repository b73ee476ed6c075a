/**
 * Folders made at random, by a seed, of layouts, names, links, pipes and damaged files. Whatever is there: listing ends, no file is counted
 * twice, and each is used or named. REVNET_TEST_WHOLE=1 tries a thousand, otherwise a sample.
 */
import { execFileSync } from "node:child_process";
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  type Stats,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { inOrder } from "../../lib/data/dataset.js";
import { type FolderListing, listFolder } from "../../lib/data/folder.js";
import { IMAGE_EXTENSIONS } from "../../lib/data/picture.js";
import { openDataset, RevNetError } from "../../lib/index.js";
import { Chance, seeds } from "../support/chance.js";
import { picture } from "../support/pictures.js";

const SPLITS = ["train", "Train", "training", "val", "VALID", "validation", "test", "Testing"];
const CLASSES = ["a", "b", "c d", "é", "line\nbreak", "train", "val", ".hidden", "@eaDir", "x.png", "-"];
const OTHERS = [".txt", ".json", ".bmp", ".svg", "", ".png.part", ".DS_Store"];
const FORMATS = ["png", "jpeg", "webp", "gif", "tiff", "avif"] as const;
/** Every such case is read as well as listed. */
const READ_EVERY = 10;

interface Making {
  readonly root: string;
  readonly outside: string;
  readonly chance: Chance;
  readonly images: readonly Buffer[];
  /** Whatever was made so far, as targets of links. */
  readonly made: string[];
}

/** What is there, through links; undefined where they lead nowhere or in a circle. */
function lookAt(file: string): Stats | undefined {
  try {
    return statSync(file);
  } catch {
    return undefined;
  }
}

function content({ chance, images }: Making): Buffer {
  const image = chance.of(images);
  switch (chance.below(6)) {
    case 0:
      return image.subarray(0, chance.below(image.length));
    case 1:
      return Buffer.from("a text, not an image");
    case 2:
      return Buffer.concat([image.subarray(0, 40), Buffer.alloc(chance.below(60)), image.subarray(80)]);
    default:
      return image;
  }
}

function addEntry(making: Making, folder: string, index: number): void {
  const { root, outside, chance, made } = making;
  const extension = chance.of(chance.oneIn(4) ? OTHERS : IMAGE_EXTENSIONS);
  const name = `${chance.oneIn(12) ? "." : ""}${index}${chance.oneIn(3) ? extension.toUpperCase() : extension}`;
  const at = path.join(folder, name);
  const target = () =>
    chance.of([...made, ".", "..", "../..", "nowhere", name, root, outside, path.join(outside, "far.png"), "/", "/dev/zero"]);
  switch (chance.below(12)) {
    case 0:
    case 1:
      symlinkSync(target(), at);
      break;
    case 2: {
      const file = chance.of(made);
      if (file !== undefined && lookAt(file)?.isFile() && !realpathSync(file).startsWith("/dev")) linkSync(realpathSync(file), at);
      break;
    }
    case 3:
      if (chance.oneIn(4)) execFileSync("mkfifo", [at]);
      break;
    default:
      writeFileSync(at, content(making));
  }
  made.push(at);
}

function addFolder(making: Making, folder: string, depth: number): void {
  const { chance, made } = making;
  mkdirSync(folder, { recursive: true });
  made.push(folder);
  const entries = chance.below(7);
  for (let i = 0; i < entries; i++) addEntry(making, folder, i);
  if (depth > 0 && chance.oneIn(3))
    addFolder(making, path.join(folder, chance.of(["deep", ".git", "__MACOSX", "test", "1.png"])), depth - 1);
}

function make(making: Making): void {
  const { root, outside, chance, images } = making;
  mkdirSync(outside);
  writeFileSync(path.join(outside, "far.png"), images[0]!);
  mkdirSync(root);
  const bases = chance.oneIn(2) ? [""] : Array.from({ length: 1 + chance.below(3) }, () => chance.of(SPLITS));
  for (const base of bases) {
    const classes = 1 + chance.below(4);
    for (let i = 0; i < classes; i++) {
      const folder = path.join(root, base, i < 2 && !chance.oneIn(6) ? ["a", "b"][i]! : chance.of(CLASSES));
      if (chance.oneIn(8)) {
        mkdirSync(path.dirname(folder), { recursive: true });
        if (!lookAt(folder)) symlinkSync(chance.of([...making.made, outside, "..", root]), folder);
      } else if (!lookAt(folder))
        try {
          addFolder(making, folder, 2);
          writeFileSync(path.join(folder, "whole.png"), images[0]!);
        } catch (error) {
          // A link that leads in a circle cannot be gone through.
          if (!["ELOOP", "EEXIST", "ENOENT", "ENOTDIR", "EACCES", "EPERM"].includes((error as NodeJS.ErrnoException).code!))
            throw error;
        }
    }
  }
  if (chance.oneIn(4)) addFolder(making, path.join(root, "notes"), 1);
}

/** All that is really there but folders, relative to the root. */
function entriesOf(root: string, below = ""): string[] {
  return readdirSync(path.join(root, below), { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(below, entry.name);
    return entry.isDirectory() ? entriesOf(root, name) : [name];
  });
}

function checkListing(root: string, { train, validation, test, leftOut }: FolderListing): void {
  const used = [...train, ...validation, ...test];
  const identities = used.map(({ name }) => {
    const { dev, ino } = statSync(path.join(root, name));
    return `${dev}:${ino}`;
  });
  expect(new Set(identities).size, "a file was counted twice").to.equal(used.length);
  const names = new Set(used.map(({ name }) => path.normalize(name)));
  const left = new Set(leftOut.map(({ file }) => path.relative(root, file)));
  const isNamed = (entry: string): boolean => left.has(entry) || (path.dirname(entry) !== "." && isNamed(path.dirname(entry)));
  // A link to a folder is named, or what is in that folder has its name.
  const isFollowed = (entry: string) => [...names, ...left].some((name) => name.startsWith(entry + path.sep));
  for (const entry of entriesOf(root)) {
    const isFolder = lookAt(path.join(root, entry))?.isDirectory();
    expect(names.has(entry) || isNamed(entry) || (isFolder && isFollowed(entry)), `${entry} is neither used nor named`).to.equal(
      true,
    );
  }
}

describe("folders made at random", function () {
  this.timeout(3_600_000);
  it("are read without hanging, each file counted once, each used or named", async function () {
    if (process.platform === "win32") this.skip();
    const images = await Promise.all(FORMATS.map((format, i) => picture([200, 50 * i, 60], i, 9, 8, format)));
    let [listed, refused] = [0, 0];
    for (const seed of seeds("REVNET_TEST_WHOLE", 1000, 40)) {
      const parent = mkdtempSync(path.join(tmpdir(), "revnet-random-"));
      const root = path.join(parent, "data");
      try {
        make({ root, outside: path.join(parent, "outside"), chance: new Chance(seed), images, made: [] });
        let timer: NodeJS.Timeout | undefined;
        const late = new Promise<never>((_, reject) => {
          timer = setTimeout(() => reject(new Error(`seed ${seed}: 10 s are over`)), 10_000);
        });
        try {
          checkListing(root, await Promise.race([listFolder(root, { share: "none" }), late]));
          listed += 1;
          if (seed % READ_EVERY === 0) await Promise.race([readAll(root), late]);
        } catch (error) {
          if (!(error instanceof RevNetError)) throw error;
          expect(error.code, `seed ${seed}: ${error.message}`).to.equal("ERR_INVALID_DATA");
          refused += 1;
        } finally {
          clearTimeout(timer);
        }
      } catch (error) {
        (error as Error).message = `seed ${seed}: ${(error as Error).message}`;
        throw error;
      } finally {
        rmSync(parent, { recursive: true });
      }
    }
    // A grammar whose folders are all refused would show nothing.
    expect(listed).to.be.greaterThan(10);
    if (process.env.REVNET_TEST_WHOLE !== undefined) console.log(`      ${listed} listed, ${refused} refused`);
  });
});

/** Through the decoder: what cannot be decoded is named. */
async function readAll(root: string): Promise<void> {
  const dataset = await openDataset("image-folder", { dataDir: root, shape: [8, 8, 3], validationShare: 0.3 }).catch(
    (error: RevNetError) => {
      // The share is not for folders with validation images of their own.
      if (error.code === "ERR_INVALID_ARGUMENT") return openDataset("image-folder", { dataDir: root, shape: [8, 8, 3] });
      throw error;
    },
  );
  try {
    for (const split of [dataset.train, dataset.validation, dataset.test]) {
      if (!split) continue;
      let [images, broken] = [0, 0];
      for await (const batch of inOrder(split, 16)) {
        images += batch.labels.filter((label) => label >= 0).length;
        broken += batch.broken.length;
      }
      expect(images + broken).to.equal(split.count);
    }
  } finally {
    await dataset.close();
  }
}

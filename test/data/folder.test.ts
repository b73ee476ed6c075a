/** Which files of a folder are images of which class, and which of them are held out for validation. */
import { execFileSync } from "node:child_process";
import { link, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { type FolderListing, listFolder } from "../../lib/data/folder.js";
import { rejection } from "../support/errors.js";

describe("folders of classes", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-folder-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  /** Files that are empty but for their names: to list them, nothing else is needed. */
  async function write(below: string, names: readonly string[], content = ""): Promise<void> {
    for (const name of names) {
      const file = path.join(folder, below, name);
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, content);
    }
  }
  /** Whether the file system tells the folders apart that were written: not all do by case (macOS's), or by how accents are composed. */
  const areApart = async (count: number) => (await readdir(folder)).length === count;
  const numbered = (count: number) => Array.from({ length: count }, (_, i) => `${i}.png`);
  const byClass = (files: readonly { label: number }[]) =>
    files.reduce<number[]>((counts, { label }) => {
      counts[label] = (counts[label] ?? 0) + 1;
      return counts;
    }, []);

  const shares: [images: number, share: number | undefined, held: number][] = [
    [10, 0.25, 3], // 2.5, rounded up
    [10, 0.24, 2],
    [10, 0.26, 3],
    [16, 0.1, 2], // 1.6
    [14, 0.1, 1], // 1.4
    [10, undefined, 1],
    [26, undefined, 3], // 2.6
    [3, 0.01, 1], // at least one
    [2, 0.5, 1],
    [2, 0.99, 1], // and one to train on
    [9, 0.99, 8],
  ];
  for (const [images, share, held] of shares)
    it(`hold out ${held} of ${images} images of each class for a share of ${share ?? "the default"}`, async () => {
      for (const name of ["a", "b"]) await write(name, numbered(images));
      const { train, test } = await listFolder(folder, { share: share });
      expect(byClass(test)).to.deep.equal([held, held]);
      expect(byClass(train)).to.deep.equal([images - held, images - held]);
      expect(new Set([...train, ...test].map(({ name }) => name)).size).to.equal(2 * images);
    });

  it("hold out by each class's own number of images", async () => {
    await write("a", numbered(1));
    await write("b", numbered(2));
    await write("c", numbered(30));
    const { classes, train, test } = await listFolder(folder, { share: 0.2 });
    expect(classes).to.deep.equal(["a", "b", "c"]);
    const held = byClass(test);
    expect([held[0] ?? 0, held[1], held[2]]).to.deep.equal([0, 1, 6]);
    expect(byClass(train)).to.deep.equal([1, 1, 24]);
  });

  it("hold out the same images again, and nearly the same once there are more", async () => {
    await write("a", numbered(40));
    await write("b", numbered(40));
    const names = async () => (await listFolder(folder, { share: 0.25 })).test.map(({ name }) => name);
    const before = await names();
    expect(await names()).to.deep.equal(before);
    // By a hash of the whole name: other numbers in each class.
    const heldOf = (label: string) => before.filter((name) => name.startsWith(label)).map((name) => path.basename(name));
    expect(heldOf("a")).to.have.length(10).and.not.deep.equal(heldOf("b"));
    await write("a", ["new-1.png", "new-2.png"]);
    const kept = (await names()).filter((name) => before.includes(name));
    expect(kept.length).to.be.at.least(before.length - 2);
  });

  it("hold out none where all are for training, and refuse a share that leaves none", async () => {
    for (const name of ["a", "b"]) await write(name, numbered(4));
    const all = await listFolder(folder, { share: "none" });
    expect([all.train.length, all.test.length]).to.deep.equal([8, 0]);
    expect(await rejection(listFolder(folder, { share: 0 }), "ERR_INVALID_DATA"))
      .to.include("share of 0 leaves 8")
      .and.include("0 to validate");
  });

  const names = (files: readonly { name: string }[]) => files.map(({ name }) => name);
  /** What was left out, with the reason, relative to the folder. */
  const left = ({ leftOut }: FolderListing) =>
    Object.fromEntries(leftOut.map(({ file, reason }) => [path.relative(folder, file), reason]));

  it("are images by their endings, in the order of their characters, at any depth", async () => {
    await write("b/deep/er", ["z.JPG", "B.png"], "12345");
    await write("b", [
      "a.webp",
      "b.jpeg",
      "c.gif",
      "d.jfif",
      "e.jpe",
      "f.TIF",
      "g.tiff",
      "h.avif",
      ".hidden.png",
      "notes.txt",
      "png",
      "x.bmp",
    ]);
    await write("b/.ipynb_checkpoints", ["a-checkpoint.png"]);
    await write("b/deep/@eaDir/x", ["thumb.png"]);
    await write("a", ["1.png"]);
    await write(".c", ["1.png"]);
    await write("", ["stray.png"]);
    const listing = await listFolder(folder, { share: "none" });
    expect(listing.classes).to.deep.equal(["a", "b"]);
    expect(listing.train.map(({ name, label, size }) => [name, label, size])).to.deep.equal([
      ["a/1.png", 0, 0],
      ...["a.webp", "b.jpeg", "c.gif", "d.jfif"].map((name) => [`b/${name}`, 1, 0]),
      ["b/deep/er/B.png", 1, 5],
      ["b/deep/er/z.JPG", 1, 5],
      ...["e.jpe", "f.TIF", "g.tiff", "h.avif"].map((name) => [`b/${name}`, 1, 0]),
    ]);
    expect(left(listing)).to.deep.equal({
      ".c": "hidden",
      "stray.png": "in no class's folder",
      "b/.hidden.png": "hidden",
      "b/.ipynb_checkpoints": "hidden",
      "b/deep/@eaDir": "hidden",
      "b/notes.txt": "not an image that is read (.txt)",
      "b/png": "no image's extension",
      "b/x.bmp": "not an image that is read (.bmp)",
    });
  });

  it("are none in what systems and programs hide, at any depth and in any case", async () => {
    const hidden = [
      ".git",
      "@eaDir",
      "@Recycle",
      "#recycle",
      "#snapshot",
      "__MACOSX",
      "$RECYCLE.BIN",
      "System Volume Information",
      "lost+found",
    ];
    for (const name of ["a", "b"]) await write(name, numbered(4));
    for (const name of hidden) {
      await write(name, ["1.png"]);
      await write(`a/${name}`, ["1.png"]);
      await write(`b/deep/deeper/${name}`, ["1.png"]);
    }
    await write("a", [".x.png"]);
    const listing = await listFolder(folder, { share: "none" });
    expect(listing.classes).to.deep.equal(["a", "b"]);
    expect(byClass(listing.train)).to.deep.equal([4, 4]);
    const where = ["", "a/", "b/deep/deeper/"].flatMap((at) => hidden.map((name) => `${at}${name}`));
    expect(listing.leftOut.map(({ file, reason }) => [path.relative(folder, file), reason]).sort()).to.deep.equal(
      [...where, "a/.x.png"].map((name) => [name, "hidden"]).sort(),
    );
    // Names that merely look like these.
    for (const name of ["@eadirs", "recycle", "lost+found2"]) await write(`a/${name}`, ["1.png"]);
    expect(byClass((await listFolder(folder, { share: "none" })).train)).to.deep.equal([7, 4]);
  });

  it("follow links, and enter no folder twice", async () => {
    const outside = path.join(folder, "../", `${path.basename(folder)}-outside`);
    try {
      await write("data/a/more", ["1.png"]);
      await write("data/b", ["1.png", "2.png"]);
      await write(`../${path.basename(outside)}`, ["far.png", "far.txt"]);
      const lead = (to: string, at: string) => symlink(to, path.join(folder, "data", at));
      await lead("..", "a/above");
      await lead(".", "a/self");
      await lead("../b", "a/other");
      await lead("../b/2.png", "a/again.png");
      await lead("nowhere", "a/nowhere.png");
      await lead("loop.png", "a/loop.png");
      await lead(outside, "a/x");
      await lead(outside, "b/y");
      await lead("/", "b/root");
      const data = path.join(folder, "data");
      const listing = await listFolder(data, { share: "none" });
      expect(listing.classes).to.deep.equal(["a", "b"]);
      expect(names(listing.train)).to.deep.equal(["a/more/1.png", "a/x/far.png", "b/1.png", "b/2.png"]);
      expect(
        Object.fromEntries(Object.entries(left(listing)).map(([name, why]) => [name.replace("data/", ""), why])),
      ).to.deep.equal({
        "a/above": "a link to a folder above",
        "a/self": "a link to a folder above",
        "a/other": "the same folder as b",
        "a/again.png": "the same file as b/2.png",
        "a/nowhere.png": "a link that leads nowhere",
        "a/loop.png": "a link that leads nowhere",
        "a/x/far.txt": "not an image that is read (.txt)",
        "b/y": "the same folder as a/x",
        "b/root": "a link to a folder above",
      });
    } finally {
      await rm(outside, { recursive: true, force: true });
    }
  });

  it("may be links themselves, unless they lead to another class", async () => {
    await write("real/one", ["1.png"]);
    await write("real/two", ["1.png"]);
    await mkdir(path.join(folder, "data"));
    await symlink("../real/one", path.join(folder, "data/a"));
    await symlink("../real/two", path.join(folder, "data/b"));
    const { train } = await listFolder(path.join(folder, "data"), { share: "none" });
    expect(names(train)).to.deep.equal(["a/1.png", "b/1.png"]);
    await symlink("../real/two", path.join(folder, "data/c"));
    expect(await rejection(listFolder(path.join(folder, "data"), { share: "none" }), "ERR_INVALID_DATA"))
      .to.include(path.join(folder, "data/c"))
      .and.include("it is the same folder as b");
  });

  it("are the same whether the file system composes accents or not", async () => {
    // They look alike, and one lies before "f" by its code units, the other after it.
    const listings: unknown[] = [];
    for (const accented of ["\u00e9", "e\u0301"]) {
      await write(accented, [`${accented}.png`, "z.png", "f.png"]);
      await write("f", [`${accented}.png`, "1.png", "f.png"]);
      const { classes, train, test } = await listFolder(folder, { share: 0.4 });
      for (const { name, onDisk } of [...train, ...test]) expect(onDisk).to.equal(name.replaceAll("\u00e9", accented));
      listings.push({ classes, train: names(train), test: names(test) });
      for (const name of [accented, "f"]) await rm(path.join(folder, name), { recursive: true });
    }
    expect(listings[1]).to.deep.equal(listings[0]);
    expect(listings[0]).to.deep.include({ classes: ["f", "\u00e9"] });
  });

  it("are all there where the file system tells composed accents from others", async function () {
    for (const accented of ["\u00e9", "e\u0301"]) await write(accented, ["1.png", `${accented}.png`]);
    if (!(await areApart(2))) return this.skip();
    await write("\u00e9", ["only.png"]);
    // The sign for an ångström comes behind the letter, which is its composed form.
    await write("f", ["\u00c5.png", "\u212b.png"]);
    const { classes, train } = await listFolder(folder, { share: "none" });
    expect(classes).to.deep.equal(["f", "\u00e9"]);
    const here = ["e\u0301/1.png", "\u00e9/1.png", "\u00e9/only.png", "e\u0301/e\u0301.png", "\u00e9/\u00e9.png"];
    expect(train.map(({ label, name, onDisk }) => [label, name, onDisk])).to.deep.equal([
      ...["f/\u00c5.png", "f/\u212b.png"].map((name) => [0, name, name]),
      ...here.map((name) => [1, name, name]),
    ]);
  });

  it("count a file with several names once", async () => {
    await write("a", ["1.png", "2.png"]);
    await write("b", ["1.png"]);
    await link(path.join(folder, "a/1.png"), path.join(folder, "b/hard.png"));
    const listing = await listFolder(folder, { share: "none" });
    expect(names(listing.train)).to.deep.equal(["a/1.png", "a/2.png", "b/1.png"]);
    expect(left(listing)).to.deep.equal({ "b/hard.png": "the same file as a/1.png" });
  });

  it("have nothing but regular files", async function () {
    if (process.platform === "win32") this.skip();
    await write("a", ["1.png"]);
    await write("b", ["1.png"]);
    execFileSync("mkfifo", [path.join(folder, "a/pipe.png")]);
    await symlink("/dev/zero", path.join(folder, "b/zero.png"));
    const listing = await listFolder(folder, { share: "none" });
    expect(names(listing.train)).to.deep.equal(["a/1.png", "b/1.png"]);
    expect(left(listing)).to.deep.equal({ "a/pipe.png": "a named pipe", "b/zero.png": "a device" });
  });

  const layouts: [train: string, validation: string | undefined, test: string | undefined][] = [
    ["train", "valid", undefined],
    ["train", "valid", "test"],
    ["Train", "Val", undefined],
    ["training", undefined, "testing"],
    ["TRAIN", "Validation", "Testing"],
    ["train", undefined, undefined],
  ];
  for (const [train, validation, test] of layouts)
    it(`are read from ${[train, validation, test].filter(Boolean).join(", ")}`, async () => {
      const counts: [string | undefined, number][] = [
        [train, 10],
        [validation, 3],
        [test, 2],
      ];
      for (const [split, count] of counts)
        for (const name of ["a", "b"]) if (split) await write(`${split}/${name}`, numbered(count));
      const listing = await listFolder(folder, {});
      expect(listing.classes).to.deep.equal(["a", "b"]);
      expect(listing.leftOut).to.deep.equal([]);
      const found = [listing.train.length, listing.validation.length, listing.test.length];
      if (validation && test) expect(found).to.deep.equal([20, 6, 4]);
      else if (validation) expect(found).to.deep.equal([20, 0, 6]);
      else if (test) {
        expect(found).to.deep.equal([20, 0, 4]);
        const { train, validation, test } = await listFolder(folder, { share: 0.2 });
        expect([train.length, validation.length, test.length]).to.deep.equal([16, 4, 4]);
        expect(names(validation)).to.satisfy((all: string[]) => all.every((name) => name.startsWith("train")));
      } else expect(found).to.deep.equal([18, 0, 2]);
    });

  const mixtures: [folders: string[], message: string][] = [
    [["train/a", "train/b", "other/c"], "found other/, train/, but some of them are splits"],
    [["bus", "car", "train"], "found bus/, car/, train/, but some of them are splits"],
    [["train/a", "train/b", "Train/a"], "found Train/, train/, but Train/ and train/ are one split"],
    [["train/a", "train/b", "val/a", "valid/a"], "val/ and valid/ are one split"],
    [["val/a", "test/a"], "found test/, val/, but there is no train/"],
    [["a/train", "a/val", "b/train", "b/val"], "splits in the classes' folders"],
  ];
  for (const [folders, message] of mixtures)
    it(`are refused where there are ${folders.join(", ")}`, async function () {
      for (const name of folders) await write(name, numbered(2));
      if (!(await areApart(new Set(folders.map((name) => name.split("/")[0])).size))) return this.skip();
      expect(await rejection(listFolder(folder, {}), "ERR_INVALID_DATA")).to.include(message);
    });

  it("may lie beside folders without images", async () => {
    for (const name of ["train/a", "train/b"]) await write(name, numbered(2));
    await write("annotations", ["a.xml"]);
    const listing = await listFolder(folder, { share: "none" });
    expect(listing.train).to.have.length(4);
    expect(left(listing)).to.deep.equal({
      annotations: "no split's folder, and without images",
      "annotations/a.xml": "not an image that is read (.xml)",
    });
  });

  it("are matched by name to classes that are known, of which some may be absent", async () => {
    for (const name of ["b", "d"]) await write(name, numbered(4));
    const classes = ["d", "c", "b", "a"];
    const { train } = await listFolder(folder, { share: "none", classes });
    expect(byClass(train)).to.deep.equal([4, undefined, 4].map((n) => n as number));
    await write("e", numbered(1));
    expect(await rejection(listFolder(folder, { classes }), "ERR_INVALID_DATA")).to.include(
      "no class 'e' among those expected: d, c, b, a",
    );
    await rm(path.join(folder, "e"), { recursive: true });
    await rm(path.join(folder, "b"), { recursive: true });
    expect((await listFolder(folder, { share: "none", classes })).train).to.have.length(4);
  });

  for (const own of ["val", "validation", "test"])
    it(`are validated on ${own}/ where there is one, whose classes have the labels of train/`, async () => {
      await write("train/a", numbered(3));
      await write("train/b", numbered(4));
      await write(`${own}/b`, numbered(2));
      const { classes, train, test } = await listFolder(folder, { share: undefined });
      expect(classes).to.deep.equal(["a", "b"]);
      expect(train.map(({ label }) => label)).to.deep.equal([0, 0, 0, 1, 1, 1, 1]);
      expect(test.map(({ name, label }) => [name, label])).to.deep.equal([
        [`${own}/b/0.png`, 1],
        [`${own}/b/1.png`, 1],
      ]);
      if (own !== "test")
        expect(await rejection(listFolder(folder, { share: 0.2 }), "ERR_INVALID_ARGUMENT")).to.include(`in ${own}/`);
    });

  it("are refused with what is missing, by its name", async () => {
    const refused = async () => rejection(listFolder(folder, { share: undefined }), "ERR_INVALID_DATA");
    expect(await refused()).to.include("at least two classes, found 0");
    await write("train/a", numbered(2));
    expect(await refused())
      .to.include(path.join(folder, "train"))
      .and.include("found 1");
    await mkdir(path.join(folder, "train/b"));
    expect(await refused())
      .to.include(path.join(folder, "train", "b"))
      .and.include("no images; expected .jpg, .jpeg, .jpe, .jfif, .png");
    await write("train/b", numbered(2));
    await write("val/x", numbered(1));
    expect(await refused()).to.include("there is no class 'x'");
    expect(await rejection(listFolder(path.join(folder, "none"), { share: undefined }), "ERR_INVALID_DATA")).to.include(
      "no such folder",
    );
    expect(await rejection(listFolder(path.join(folder, "train/a/0.png"), { share: undefined }), "ERR_INVALID_DATA")).to.include(
      "0.png",
    );
  });
});

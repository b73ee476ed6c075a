/** Which files of a folder are images of which class, and which of them are held out for validation. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { listFolder } from "../../lib/data/folder.js";
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
      const { train, test } = await listFolder(folder, share);
      expect(byClass(test)).to.deep.equal([held, held]);
      expect(byClass(train)).to.deep.equal([images - held, images - held]);
      expect(new Set([...train, ...test].map(({ name }) => name)).size).to.equal(2 * images);
    });

  it("hold out by each class's own number of images", async () => {
    await write("a", numbered(1));
    await write("b", numbered(2));
    await write("c", numbered(30));
    const { classes, train, test } = await listFolder(folder, 0.2);
    expect(classes).to.deep.equal(["a", "b", "c"]);
    const held = byClass(test);
    expect([held[0] ?? 0, held[1], held[2]]).to.deep.equal([0, 1, 6]);
    expect(byClass(train)).to.deep.equal([1, 1, 24]);
  });

  it("hold out the same images again, and nearly the same once there are more", async () => {
    await write("a", numbered(40));
    await write("b", numbered(40));
    const names = async () => (await listFolder(folder, 0.25)).test.map(({ name }) => name);
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
    const all = await listFolder(folder, "none");
    expect([all.train.length, all.test.length]).to.deep.equal([8, 0]);
    expect(await rejection(listFolder(folder, 0), "ERR_INVALID_DATA"))
      .to.include("share of 0 leaves 8")
      .and.include("0 to validate");
  });

  it("are images by their endings, in the order of their characters, at any depth and through links", async () => {
    await write("b/deep/er", ["z.JPG", "B.png"], "12345");
    await write("b", ["a.webp", "b.jpeg", "c.gif", ".hidden.png", "notes.txt", "png"]);
    await write("a", ["1.png"]);
    await write(".c", ["1.png"]);
    await write("", ["stray.png"]);
    await symlink(path.join(folder, "a"), path.join(folder, "Linked"));
    await symlink(path.join(folder, "nowhere.png"), path.join(folder, "a/0.png"));
    const { classes, train } = await listFolder(folder, "none");
    expect(classes).to.deep.equal(["Linked", "a", "b"]);
    expect(train.filter(({ label }) => label > 0).map(({ name, label, size }) => [name, label, size])).to.deep.equal([
      ["a/0.png", 1, 0],
      ["a/1.png", 1, 0],
      ["b/a.webp", 2, 0],
      ["b/b.jpeg", 2, 0],
      ["b/deep/er/B.png", 2, 5],
      ["b/deep/er/z.JPG", 2, 5],
    ]);
  });

  for (const own of ["val", "validation", "test"])
    it(`are validated on ${own}/ where there is one, whose classes have the labels of train/`, async () => {
      await write("train/a", numbered(3));
      await write("train/b", numbered(4));
      await write(`${own}/b`, numbered(2));
      const { classes, train, test } = await listFolder(folder, undefined);
      expect(classes).to.deep.equal(["a", "b"]);
      expect(train.map(({ label }) => label)).to.deep.equal([0, 0, 0, 1, 1, 1, 1]);
      expect(test.map(({ name, label }) => [name, label])).to.deep.equal([
        [`${own}/b/0.png`, 1],
        [`${own}/b/1.png`, 1],
      ]);
      expect(await rejection(listFolder(folder, 0.2), "ERR_INVALID_ARGUMENT")).to.include(`in ${own}/`);
    });

  it("are refused with what is missing, by its name", async () => {
    const refused = async () => rejection(listFolder(folder, undefined), "ERR_INVALID_DATA");
    expect(await refused()).to.include("at least two classes, found 0");
    await write("train/a", numbered(2));
    expect(await refused())
      .to.include(path.join(folder, "train"))
      .and.include("found 1");
    await mkdir(path.join(folder, "train/b"));
    expect(await refused())
      .to.include(path.join(folder, "train", "b"))
      .and.include("no images; expected .jpg, .jpeg, .png, .webp");
    await write("train/b", numbered(2));
    await write("val/x", numbered(1));
    expect(await refused()).to.include("there is no class 'x'");
    expect(await rejection(listFolder(path.join(folder, "none"), undefined), "ERR_INVALID_DATA")).to.include("no such folder");
    expect(await rejection(listFolder(path.join(folder, "train/a/0.png"), undefined), "ERR_INVALID_DATA")).to.include("0.png");
  });
});

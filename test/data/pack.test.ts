/** A pack's index: what is read of it, and what is refused though its checksum is right. */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { firstChanged, readPack } from "../../lib/data/pack.js";
import { imagesIn } from "../../lib/data/walk.js";
import { packFolder } from "../../lib/index.js";
import { rejection } from "../support/errors.js";
import { writeClasses } from "../support/pictures.js";

const TRAILER = 48;

describe("the index of a pack", () => {
  let folder: string;
  let file: string;
  let whole: Buffer;
  let start: number;
  let index: { shape: unknown; rows: unknown[][] };
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-pack-"));
    await writeClasses(path.join(folder, "data"), 2, 8, 8);
    ({ file } = await packFolder(path.join(folder, "data"), [8, 8, 3]));
    whole = await readFile(file);
    start = Number(whole.readBigUInt64LE(whole.length - TRAILER));
    index = JSON.parse(whole.toString("utf8", start, whole.length - TRAILER));
  });
  afterEach(() => rm(folder, { recursive: true }));

  /** The same pictures under another index, with its right checksum. */
  async function indexed(other: unknown, at = start): Promise<void> {
    const bytes = Buffer.from(JSON.stringify(other));
    const trailer = Buffer.alloc(TRAILER);
    trailer.writeBigUInt64LE(BigInt(at), 0);
    trailer.writeBigUInt64LE(BigInt(bytes.length), 8);
    createHash("sha256").update(bytes).digest().copy(trailer, 16);
    await writeFile(file, Buffer.concat([whole.subarray(0, start), bytes, trailer]));
  }
  const refused = () => rejection(readPack(file, [8, 8, 3]), "ERR_INVALID_FILE");

  it("is read, and is none where there is no file", async () => {
    expect(await readPack(path.join(folder, "none"), [8, 8, 3])).to.equal(undefined);
    const pack = (await readPack(file, [8, 8, 3]))!;
    expect(pack.file).to.equal(file);
    expect([...pack.entries.keys()].sort()).to.deep.equal(index.rows.map(([name]) => name as string).sort());
    for (const { picture, broken } of pack.entries.values()) {
      // Up to 8/7 of the input.
      for (const edge of [picture!.height, picture!.width]) expect(edge).to.be.within(8, 9);
      expect(broken).to.equal(undefined);
    }
    const [name, size, mtime] = index.rows[0]!;
    await indexed({ ...index, rows: [[name, size, mtime, "cut short"]] });
    expect([...(await readPack(file, [8, 8, 3]))!.entries]).to.deep.equal([
      [name, { size, mtimeMs: mtime, picture: undefined, broken: "cut short" }],
    ]);
  });

  it("is refused with what is wrong with it", async () => {
    await writeFile(file, whole.subarray(0, 20));
    expect(await refused()).to.equal(`'${file}' is not a whole pack: it has 20 bytes`);
    await writeFile(file, Buffer.concat([Buffer.from("x"), whole.subarray(1)]));
    expect(await refused()).to.include("it does not begin as one");
    for (const cut of [whole.length - 1, whole.length - TRAILER]) {
      await writeFile(file, whole.subarray(0, cut));
      await refused();
    }
    for (const at of [start + 1, start - 1]) {
      await indexed(index, at);
      expect(await refused()).to.include("its index is not where it should be");
    }
    const damaged = Buffer.from(whole);
    damaged[start] = "[".charCodeAt(0);
    await writeFile(file, damaged);
    expect(await refused()).to.include("its index is damaged");
    for (const other of [
      null,
      3,
      {},
      { shape: index.shape },
      { rows: index.rows },
      { shape: "8x8x3", rows: [] },
      { shape: [8], rows: {} },
    ]) {
      await indexed(other);
      expect(await refused(), JSON.stringify(other)).to.include("its index has no shape and rows");
    }
    await indexed({ ...index, shape: [9, 8, 3] });
    expect(await refused()).to.include("it is for inputs of 9x8x3, expected 8x8x3");
  });

  it("is refused where a row is none, or names what is not in it", async () => {
    const row = index.rows.find(([, , , , height, width]) => height === 8 && width === 8)!;
    expect(row).to.have.length(7);
    const changed = (at: number, value: unknown) => row.map((old, i) => (i === at ? value : old));
    const none: unknown[] = [null, {}, "row", [], row.slice(0, 3), row.slice(0, 6), [...row, 0]];
    for (const [at, value] of [
      [0, 3],
      [1, "1"],
      [2, null],
      [3, null],
      [4, "8"],
      [6, "crc"],
    ] as const)
      none.push(changed(at, value));
    for (const other of none) {
      await indexed({ ...index, rows: [row, other] });
      expect(await refused(), JSON.stringify(other)).to.include("a row of its index is not what it should be");
    }
    for (const [at, value] of [
      [3, 0],
      [3, -1],
      [3, 1e300],
      [3, start],
      [3, start - 8 * 8 * 3 + 1],
      [3, (row[3] as number) + 0.5],
      [4, 7],
      [5, 7],
      [4, 8.5],
      [4, 1e9],
      [5, 2 ** 53],
    ] as const) {
      await indexed({ ...index, rows: [changed(at, value)] });
      expect(await refused(), `${at}: ${value}`).to.include(`the place of ${row[0]} is not in it`);
    }
    // To the last byte before the index.
    await indexed({ ...index, rows: [changed(3, start - 8 * 8 * 3)] });
    expect((await readPack(file, [8, 8, 3]))!.entries.size).to.equal(1);
  });

  it("tells which file has changed", async () => {
    const pack = (await readPack(file, [8, 8, 3]))!;
    const files = [...pack.entries].map(([name, { size, mtimeMs }]) => ({
      name,
      onDisk: name,
      size,
      mtimeMs,
      ctimeMs: 0,
      label: 0,
    }));
    expect(firstChanged(pack, files)).to.equal(undefined);
    for (const change of [{ size: 1 }, { mtimeMs: 1 }, { name: "new.png" }]) {
      const changed = files.map((one, i) => (i === 2 ? { ...one, ...change } : one));
      expect(firstChanged(pack, changed), JSON.stringify(change)).to.equal(changed[2]);
    }
  });
});

describe("images of a folder", () => {
  it("are told with what is beside them, or that there is no such folder", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "revnet-images-"));
    await mkdir(path.join(folder, "deep"));
    for (const name of ["b.png", "a.JPG", "deep/c.webp", "notes.txt", "none"]) await writeFile(path.join(folder, name), "x");
    const { images, leftOut } = await imagesIn(folder);
    expect(images.map((name) => path.relative(folder, name))).to.deep.equal(["a.JPG", "b.png", "deep/c.webp"]);
    expect(leftOut.map(({ file, reason }) => [path.relative(folder, file), reason])).to.deep.equal([
      ["none", "no image's extension"],
      ["notes.txt", "not an image that is read (.txt)"],
    ]);
    await rm(folder, { recursive: true });
    expect(await rejection(imagesIn(folder), "ERR_INVALID_DATA")).to.equal(`${folder}: there is no such folder`);
  });
});

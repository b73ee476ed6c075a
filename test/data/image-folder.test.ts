import { cp, mkdtemp, readFile, rename, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import type { Batch, BatchRequest, StreamedDataset, StreamedSplit } from "../../lib/data/dataset.js";
import { openDataset, packFolder, type RevNetError } from "../../lib/index.js";
import { rejection } from "../support/errors.js";
import { COLOURS, picture, writeClasses } from "../support/pictures.js";

const SHAPE = [16, 16, 3] as const;
const BYTES = 16 * 16 * 3;

/** Steps [from, to) of batches of four, in the order of the split. */
const request = (from: number, to: number, overrides: Partial<BatchRequest> = {}): BatchRequest => ({
  batchSize: 4,
  seed: 3,
  steps: [from, to],
  stepsPerEpoch: 5,
  indices: (step) => Int32Array.from({ length: 4 }, (_, i) => (4 * step + i) % 20),
  resizedCrop: 0.3,
  ...overrides,
});

async function all(batches: AsyncIterable<Batch>): Promise<Batch[]> {
  const list: Batch[] = [];
  for await (const batch of batches) list.push(batch);
  return list;
}

describe("image-folder", () => {
  let folder: string;
  const open: StreamedDataset[] = [];

  async function dataset(options: object = {}, at = folder): Promise<StreamedDataset & Record<"train" | "test", StreamedSplit>> {
    const opened = await openDataset("image-folder", { dataDir: at, shape: SHAPE, ...options });
    open.push(opened);
    return opened as StreamedDataset & Record<"train" | "test", StreamedSplit>;
  }

  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-folder-"));
    await writeClasses(path.join(folder, "train"), 8);
    await writeClasses(path.join(folder, "val"), 2);
  });
  afterEach(async () => {
    await Promise.all(open.splice(0).map((opened) => opened.close()));
    await rm(folder, { recursive: true });
  });

  it("takes classes from the folders' names, sorted, and reads JPEG, PNG and WebP", async () => {
    const { classes, train, test, shape } = await dataset();
    expect(classes).to.deep.equal(["blue", "green", "red"]);
    expect(shape).to.deep.equal(SHAPE);
    expect([train.count, test.count]).to.deep.equal([24, 6]);
    const batches = await all(train.inOrder(10));
    expect(batches.map(({ labels }) => labels.length)).to.deep.equal([10, 10, 4]);
    const labels = batches.flatMap((batch) => [...batch.labels]);
    expect(labels).to.deep.equal([0, 1, 2].flatMap((label) => new Array(8).fill(label)));
    for (const { images, labels } of batches)
      for (const [row, label] of labels.entries()) {
        const colour = Object.values(COLOURS)[label]!;
        // The colour, noise of at most 31, and what JPEG and WebP lose.
        for (let i = 0; i < BYTES; i++)
          expect(images[row * BYTES + i]! - colour[i % 3]!, `image ${row}, byte ${i}`).to.be.within(-40, 71);
      }
  });

  it("keeps a share of each class for validation where there is no such folder, always the same images", async () => {
    const { train, test } = await dataset({ validationShare: 0.25 }, path.join(folder, "train"));
    expect([train.count, test.count]).to.deep.equal([18, 6]);
    expect((await all(test.inOrder(6)))[0]!.labels).to.deep.equal(Int32Array.of(0, 0, 1, 1, 2, 2));
    const again = await dataset({ validationShare: 0.25 }, path.join(folder, "train"));
    expect(again.test.fingerprint).to.equal(test.fingerprint);
    expect(again.train.fingerprint).to.equal(train.fingerprint).and.to.not.equal(test.fingerprint);
    expect(await rejection(dataset({ validationShare: 0.25 }), "ERR_INVALID_ARGUMENT")).to.include("val/");
    await rejection(dataset({ validationShare: 1.5 }, path.join(folder, "train")), "ERR_INVALID_ARGUMENT");
  });

  it("makes a step's crops from the seed and the step alone, so that a later start gives the same bits", async () => {
    const { train } = await dataset();
    const whole = await all(train.batches(request(0, 8)));
    const later = await all((await dataset()).train.batches(request(5, 8)));
    for (const [i, { images, labels }] of later.entries()) {
      expect(Buffer.compare(images, whole[5 + i]!.images), `step ${5 + i}`).to.equal(0);
      expect(labels).to.deep.equal(whole[5 + i]!.labels);
    }
    const [seeded] = await all(train.batches(request(0, 1, { seed: 4 })));
    expect(Buffer.compare(seeded!.images, whole[0]!.images)).to.not.equal(0);
    // Steps 0 and 5 have the same images.
    expect(Buffer.compare(whole[5]!.images, whole[0]!.images)).to.not.equal(0);
    const [plain] = await all(train.batches(request(0, 1, { resizedCrop: 0 })));
    expect(Buffer.compare(plain!.images, await train.read([0, 1, 2, 3]))).to.equal(0);
  });

  it("names broken files, and puts the next image in their place", async () => {
    await truncate(path.join(folder, "train/blue/001.jpg"), 300);
    await writeFile(path.join(folder, "train/blue/002.webp"), "no image");
    await writeFile(path.join(folder, "val/red/000.png"), "");
    const { train, test } = await dataset();
    const [first, second] = await all(train.batches(request(0, 2)));
    expect(first!.broken.map(({ file }) => path.relative(folder, file))).to.deep.equal([
      "train/blue/001.jpg",
      "train/blue/002.webp",
    ]);
    expect(first!.broken[0]!.reason).to.match(/^its (header|image data) cannot be read: damaged or cut short$/);
    expect(first!.broken[1]!.reason).to.equal("it is not a JPEG, PNG, WebP, GIF, TIFF or AVIF file");
    expect(second!.broken).to.deep.equal([]);
    const plain = await all(train.batches(request(0, 1, { resizedCrop: 0 })));
    // Rows 1 and 2 were to be the broken ones; image 3 stands in for both.
    for (const row of [1, 2])
      expect(
        Buffer.compare(plain[0]!.images.subarray(row * BYTES, (row + 1) * BYTES), plain[0]!.images.subarray(3 * BYTES, 4 * BYTES)),
      ).to.equal(0);
    const [validation] = await all(test.inOrder(6));
    expect([...validation!.labels]).to.deep.equal([0, 0, 1, 1, -1, 2]);
    expect(validation!.broken).to.deep.equal([{ file: path.join(folder, "val/red/000.png"), reason: "the file is empty" }]);

    const strict = await dataset({ brokenImages: "fail" });
    expect(await rejection(all(strict.train.batches(request(0, 1))), "ERR_INVALID_DATA")).to.include("001.jpg");
    expect(await rejection(all(strict.test.inOrder(6)), "ERR_INVALID_DATA")).to.include("000.png");
  });

  it("gives up where no image is whole", async () => {
    for (const name of Object.keys(COLOURS))
      for (let i = 0; i < 8; i++)
        await writeFile(path.join(folder, "train", name, `${String(i).padStart(3, "0")}.${["png", "jpg", "webp"][i % 3]}`), "x");
    const { train, mean } = await dataset();
    expect(await rejection(all(train.batches(request(0, 1))), "ERR_INVALID_DATA")).to.include("none can be decoded");
    await rejection(mean(), "ERR_INVALID_DATA");
  });

  it("has the mean of each channel", async () => {
    const { train, mean } = await dataset();
    const images = await train.read(Array.from({ length: 24 }, (_, i) => i));
    const expected = [0, 1, 2].map((channel) => images.filter((_, i) => i % 3 === channel).reduce((a, b) => a + b, 0) / (24 * 256));
    const values = await mean();
    expect(values).to.have.length(BYTES);
    for (let i = 0; i < 6; i++) expect(values[i]).to.be.closeTo(expected[i % 3]!, 1e-3);
  });

  it("reads ahead no further than its ring", async () => {
    const { train } = await dataset();
    const asked: number[] = [];
    const indices = (step: number) => {
      asked.push(step);
      return Int32Array.of(0, 1, 2, 3);
    };
    const batches = train.batches(request(0, 1000, { indices }));
    for (let read = 1; read <= 6; read++) {
      await batches.next();
      // Three at first, and one more for each that was copied out.
      expect(asked).to.deep.equal(Array.from({ length: 3 + read }, (_, step) => step));
    }
    await batches.return!();
  });

  it("takes a sample where fewer images are asked for", async () => {
    const { train, test } = await dataset({ trainCount: 10, testCount: 2 });
    expect([train.count, test.count]).to.deep.equal([10, 2]);
    const [batch] = await all(train.inOrder(10));
    expect(new Set(batch!.labels).size).to.be.greaterThan(1);
  });

  it("refuses folders that hold no such data, by their names", async () => {
    expect(await rejection(dataset({}, path.join(folder, "none")), "ERR_INVALID_DATA")).to.include("no such folder");
    expect(await rejection(dataset({}, path.join(folder, "val/red")), "ERR_INVALID_DATA")).to.include("at least two classes");
    await cp(path.join(folder, "val/red"), path.join(folder, "val/violet"), { recursive: true });
    expect(await rejection(dataset(), "ERR_INVALID_DATA")).to.include("no class 'violet'");
    await rm(path.join(folder, "val/violet"), { recursive: true });
    await rm(path.join(folder, "train/red"), { recursive: true });
    await cp(path.join(folder, "train/blue/000.png"), path.join(folder, "train/red/notes.txt"));
    expect(await rejection(dataset(), "ERR_INVALID_DATA"))
      .to.include(path.join("train", "red"))
      .and.include("no images");
    await rejection(dataset({ shape: [8, 8, 2] }), "ERR_INVALID_ARGUMENT");
    await rejection(dataset({ shape: [8, 8] }), "ERR_INVALID_ARGUMENT");
  });

  it("rejects what is under way when it is closed, and what comes later", async () => {
    const opened = await dataset();
    const reading = rejection(opened.train.read([0, 1, 2, 3, 4, 5, 6, 7]), "ERR_DISPOSED");
    await opened.close();
    await reading;
    await rejection(opened.train.read([0]), "ERR_DISPOSED");
  });

  describe("packs", () => {
    it("give the bits of the files", async () => {
      await truncate(path.join(folder, "train/green/004.jpg"), 200);
      const before = await dataset();
      const decoded = await all(before.train.batches(request(0, 5)));
      const { images, broken, file } = await packFolder(folder, SHAPE);
      expect(images).to.equal(29);
      expect(broken.map((image) => path.basename(image.file))).to.deep.equal(["004.jpg"]);
      const after = await dataset({ onWarning: (error: RevNetError) => expect.fail(error.message) });
      const packed = await all(after.train.batches(request(0, 5)));
      expect(packed.length).to.equal(5);
      for (const [i, batch] of packed.entries()) {
        expect(Buffer.compare(batch.images, decoded[i]!.images), `step ${i}`).to.equal(0);
        expect(batch.broken).to.deep.equal(decoded[i]!.broken);
      }
      expect(after.train.fingerprint).to.equal(before.train.fingerprint);
      expect(file).to.equal(path.join(folder, "revnet-16x16x3.pack"));
    });

    it("are used in the files' stead", async () => {
      const image = path.join(folder, "train/blue/000.png");
      // A whole second, which can be set again to the nanosecond.
      const time = new Date("2020-02-02T02:02:02Z");
      await utimes(image, time, time);
      await packFolder(folder, SHAPE);
      const before = await (await dataset()).train.read([0]);
      const bytes = await readFile(image);
      await writeFile(image, Buffer.alloc(bytes.length));
      await utimes(image, time, time);
      const opened = await dataset({ onWarning: (error: RevNetError) => expect.fail(error.message) });
      expect(Buffer.compare(await opened.train.read([0]), before)).to.equal(0);
      // As it would be without the pack.
      await rm(path.join(folder, "revnet-16x16x3.pack"));
      expect(Buffer.compare(await (await dataset()).train.read([0]), before)).to.not.equal(0);
    });

    it("are used where the folder was copied to a file system that composes accents in another way", async () => {
      const image = (name: string) => path.join(folder, "train/blue", name);
      await rename(image("000.png"), image("e\u0301.png"));
      await packFolder(folder, SHAPE);
      const { fingerprint } = (await dataset()).train;
      await rename(image("e\u0301.png"), image("\u00e9.png"));
      const { train } = await dataset({ onWarning: (error: RevNetError) => expect.fail(error.message) });
      expect(train.fingerprint).to.equal(fingerprint);
      expect((await all(train.inOrder(24)))[0]!.broken).to.deep.equal([]);
    });

    it("are left alone with a warning where an image has changed, or they are damaged", async () => {
      const { file } = await packFolder(folder, SHAPE);
      const warning = async () => {
        const warnings: RevNetError[] = [];
        const { train } = await dataset({ onWarning: (error: RevNetError) => warnings.push(error) });
        expect((await all(train.inOrder(24)))[0]!.broken).to.deep.equal([]);
        return warnings.map(({ message }) => message).join();
      };
      expect(await warning()).to.equal("");
      const good = await readFile(file);
      for (const at of [0, good.length - 60, good.length - 40, good.length - 5]) {
        const bytes = Buffer.from(good);
        bytes[at]! ^= 1;
        await writeFile(file, bytes);
        expect(await warning(), `byte ${at}`).to.include("not a whole pack");
      }
      for (const length of [0, 7, 60, good.length - 1]) {
        await writeFile(file, good.subarray(0, length));
        expect(await warning(), `${length} bytes`).to.include("not a whole pack");
      }
      await writeFile(file, good);
      await writeFile(path.join(folder, "train/blue/000.png"), await picture([1, 2, 3], 9));
      expect(await warning()).to.include("out of date (train/blue/000.png has changed)");
    });

    it("notice a damaged picture", async () => {
      const { file } = await packFolder(folder, SHAPE);
      const bytes = await readFile(file);
      bytes[8 + 100]! ^= 1;
      await writeFile(file, bytes);
      const [batch] = await all((await dataset()).train.inOrder(24));
      expect(batch!.broken.map((image) => path.basename(image.file))).to.deep.equal(["000.png"]);
      expect(batch!.broken[0]!.reason).to.include("damaged");
    });
  });
});

describe("sharp", () => {
  it("is optional: where it is missing, the error says how to get it", () => {
    const file = require.resolve("../../lib/data/sharp.js");
    const cached = require.cache[file];
    delete require.cache[file];
    const { loadSharp } = require(file) as typeof import("../../lib/data/sharp.js");
    require.cache[file] = cached;
    const missing = () => {
      throw new Error("Cannot find module 'sharp'\nRequire stack: ...");
    };
    expect(() => loadSharp(missing))
      .to.throw(/npm install sharp.*Cannot find module 'sharp'\)$/)
      .with.property("code", "ERR_SHARP_MISSING");
  });
});

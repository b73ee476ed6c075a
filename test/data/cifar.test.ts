import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { openDataset } from "../../lib/index.js";
import { rejection } from "../support/errors.js";

const PLANE = 1024;

/** A record whose red, green and blue planes are recognisable: value i % 251, 100 + channel and label. */
function record(labels: number[], salt: number): Buffer {
  const image = Buffer.alloc(3 * PLANE);
  for (let pixel = 0; pixel < PLANE; pixel++) {
    image[pixel] = (pixel + salt) % 251;
    image[PLANE + pixel] = salt;
    image[2 * PLANE + pixel] = 200 - (pixel % 100);
  }
  return Buffer.concat([Buffer.from(labels), image]);
}

describe("CIFAR readers", () => {
  let folder: string;
  const file = (name: string) => path.join(folder, name);

  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-cifar-"));
    for (let batch = 1; batch <= 5; batch++)
      await writeFile(file(`data_batch_${batch}.bin`), Buffer.concat([record([batch], batch), record([9 - batch], 10 + batch)]));
    await writeFile(file("test_batch.bin"), Buffer.concat([0, 1, 2].map((label) => record([label], 20 + label))));
    await writeFile(file("train.bin"), Buffer.concat([record([3, 42], 1), record([19, 99], 2)]));
    await writeFile(file("test.bin"), record([7, 0], 3));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("turns planes into interleaved pixels, in the order of the files", async () => {
    const { train, test, shape, classes } = await openDataset("cifar-10", { dataDir: folder });
    expect([train.count, test.count]).to.deep.equal([10, 3]);
    expect(shape).to.deep.equal([32, 32, 3]);
    expect(classes[3]).to.equal("class 3");
    expect([...train.labels]).to.deep.equal([1, 8, 2, 7, 3, 6, 4, 5, 5, 4]);
    // Image 3 is the second of data_batch_2: salt 12. Pixel 40.
    expect([...train.images.subarray(3 * 3072 + 40 * 3, 3 * 3072 + 41 * 3)]).to.deep.equal([52, 12, 160]);
    expect([...test.images.subarray(3072 + 1023 * 3)].slice(0, 3)).to.deep.equal([(1023 + 21) % 251, 21, 200 - 23]);
  });

  it("takes the class names from the file beside the images", async () => {
    const names = Array.from({ length: 10 }, (_, i) => `kind-${i}`);
    await writeFile(file("batches.meta.txt"), `${names.join("\n")}\n\n`);
    expect((await openDataset("cifar-10", { dataDir: folder })).classes).to.deep.equal(names);
    await writeFile(file("batches.meta.txt"), "only\ntwo\n");
    expect(await rejection(openDataset("cifar-10", { dataDir: folder }), "ERR_INVALID_DATA"))
      .to.include("batches.meta.txt")
      .and.include("2 class names");
  });

  it("reads the fine labels of CIFAR-100, or the coarse ones", async () => {
    const fine = await openDataset("cifar-100", { dataDir: folder });
    expect([...fine.train.labels]).to.deep.equal([42, 99]);
    expect(fine.classes).to.have.length(100);
    expect([...fine.train.images.subarray(0, 3)]).to.deep.equal([1, 1, 200]);
    const coarse = await openDataset("cifar-100", { dataDir: folder, coarse: true });
    expect([...coarse.train.labels]).to.deep.equal([3, 19]);
    expect(coarse.classes).to.have.length(20);
  });

  it("takes the first images where fewer are asked for", async () => {
    const { train, test } = await openDataset("cifar-10", { dataDir: folder, trainCount: 3, testCount: 1 });
    expect([...train.labels]).to.deep.equal([1, 8, 2]);
    expect(train.images).to.have.length(3 * 3072);
    expect(test.count).to.equal(1);
  });

  it("refuses a truncated file, by its name and size", async () => {
    await truncate(file("data_batch_4.bin"), 2 * 3073 - 1);
    expect(await rejection(openDataset("cifar-10", { dataDir: folder }), "ERR_INVALID_DATA"))
      .to.include("data_batch_4.bin")
      .and.include("6145 bytes");
  });

  it("refuses a training file that ends early at a record's end", async () => {
    await truncate(file("data_batch_2.bin"), 3073);
    expect(await rejection(openDataset("cifar-10", { dataDir: folder }), "ERR_INVALID_DATA"))
      .to.include("data_batch_2.bin")
      .and.include("truncated");
  });

  it("refuses an empty file and a missing one", async () => {
    await truncate(file("test_batch.bin"), 0);
    expect(await rejection(openDataset("cifar-10", { dataDir: folder }), "ERR_INVALID_DATA"))
      .to.include("test_batch.bin")
      .and.include("empty");
    await rm(file("test_batch.bin"));
    expect(await rejection(openDataset("cifar-10", { dataDir: folder }), "ERR_INVALID_DATA"))
      .to.include("test_batch.bin")
      .and.include("not found");
  });

  it("refuses a label out of range, by record", async () => {
    await writeFile(file("data_batch_5.bin"), Buffer.concat([record([5], 0), record([10], 0)]));
    expect(await rejection(openDataset("cifar-10", { dataDir: folder }), "ERR_INVALID_DATA"))
      .to.include("data_batch_5.bin")
      .and.include("record 1 has label 10");
  });

  it("refuses a folder in a file's place", async () => {
    await rm(file("train.bin"));
    expect(await rejection(openDataset("cifar-100", { dataDir: file("test.bin") }), "ERR_INVALID_DATA")).to.be.a("string");
  });
});

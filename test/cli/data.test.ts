import { execFile } from "node:child_process";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { expect } from "chai";
import { picture, writeClasses } from "../support/pictures.js";

const MAIN = path.resolve(__dirname, "../../lib/cli/main.js");

function revnet(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { encoding: "utf8" }, (error, stdout, stderr) =>
      resolve({ status: error ? Number(error.code) : 0, stdout, stderr }),
    );
  });
}

describe("revnet data", () => {
  let folder: string;
  let images: string;
  const file = (name: string) => path.join(folder, name);

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-data-"));
    images = file("images");
    await writeClasses(images, 10);
    await truncate(path.join(images, "green/001.jpg"), 100);
    await writeFile(file("red.png"), await picture([200, 50, 60], 77));
  });
  after(() => rm(folder, { recursive: true }));

  it("inspects a folder: counts, means, and broken files by name", async () => {
    const args = ["data", "inspect", "image-folder", "--data-dir", images, "--size", "16"];
    const { status, stdout, stderr } = await revnet(...args);
    expect(stderr).to.equal("");
    expect(status).to.equal(0);
    expect(stdout).to.match(/of 3 classes, 16x16x3/);
    expect(stdout).to.match(/1 broken image:\n.*001\.jpg: /);
    const { classes, train, test } = JSON.parse((await revnet(...args, "--json")).stdout);
    expect(classes).to.deep.equal(["blue", "green", "red"]);
    expect(train.images + test.images).to.equal(29);
    expect(train.perClass[0] + test.perClass[0]).to.equal(10);
    expect(train.mean[0]).to.be.within(90, 125);
    expect(train.deviation[0]).to.be.within(50, 90);
  });

  it("inspects data sets in memory too", async () => {
    const { status, stdout } = await revnet("data", "inspect", "shapes", "--json");
    expect(status).to.equal(0);
    const { train } = JSON.parse(stdout);
    expect(train.images).to.equal(5000);
    expect(train.perClass).to.deep.equal(new Array(10).fill(500));
  });

  it("says what to install where sharp is missing", async () => {
    const hide = file("hide-sharp.cjs");
    await writeFile(
      hide,
      `const Module = require("node:module");
       const resolve = Module._resolveFilename;
       Module._resolveFilename = (name, ...rest) => resolve(name === "sharp" ? "sharp-that-is-not-there" : name, ...rest);`,
    );
    for (const args of [
      ["train", "--model", "revnet-38", "--data", "image-folder", "--data-dir", images, "--batch-size", "4", "--steps", "1"],
      ["data", "inspect", "image-folder", "--data-dir", images],
      ["data", "pack", "image-folder", "--data-dir", images, "--size", "16"],
    ]) {
      const failed = await promisify(execFile)(process.execPath, ["--require", hide, MAIN, ...args]).catch((error) => error);
      expect(failed.stderr, args[0]).to.match(/^revnet: .*`npm install sharp` \(Cannot find module 'sharp-that-is-not-there'\)\n$/);
      expect(failed.code).to.equal(1);
    }
    // What needs no image files works without.
    const inMemory = ["data", "inspect", "shapes", "--json"];
    expect((await promisify(execFile)(process.execPath, ["--require", hide, MAIN, ...inMemory])).stdout).to.include("5000");
  });

  it("packs a folder; trains on it, evaluates and predicts with the classes' names", async () => {
    const packed = JSON.parse(
      (await revnet("data", "pack", "image-folder", "--data-dir", images, "--size", "32", "--json")).stdout,
    );
    expect(packed.images).to.equal(29);
    expect(packed.broken).to.have.length(1);
    const data = ["--data", "image-folder", "--data-dir", images];
    const train = await revnet(
      "train",
      "--model",
      "resnet-32",
      ...data,
      "--batch-size",
      "8",
      "--steps",
      "3",
      "--out",
      file("run"),
      "--json",
    );
    expect(train.status, train.stderr).to.equal(0);
    expect(JSON.parse(train.stdout).brokenImages).to.have.length.at.most(1);
    const model = file("run/model.safetensors");
    const evaluated = await revnet("evaluate", model, ...data, "--json");
    expect(JSON.parse(evaluated.stdout).images).to.be.within(2, 3);
    const predicted = await revnet("predict", model, file("red.png"), "--json");
    expect(predicted.status, predicted.stderr).to.equal(0);
    expect(JSON.parse(predicted.stdout).images[0].class).to.be.oneOf(["blue", "green", "red"]);
    const tested = await revnet("predict", model, ...data, "--count", "2", "--json");
    expect(JSON.parse(tested.stdout).images[1].label).to.be.oneOf(["blue", "green", "red"]);
  });

  const misused: [string[], RegExp][] = [
    [["data"], /argument is missing/],
    [["data", "inpsect", "shapes"], /did you mean 'inspect'/],
    [["data", "inspect", "image-folder"], /--data-dir is missing/],
    [["data", "download", "cifar10", "--data-dir", "x"], /did you mean 'cifar-10'/],
    [["data", "pack", "cifar-10", "--data-dir", "x"], /only image-folder is packed/],
    [["data", "pack", "image-folder", "--data-dir", "x", "--size", "big"], /--size expects/],
    [["data", "inspect", "shape"], /did you mean 'shapes'/],
    [["train", "--data", "shapes", "--broken-images", "fail"], /--broken-images: is for image-folder/],
  ];
  for (const [args, message] of misused)
    it(`exits 2 on \`revnet ${args.join(" ")}\``, async () => {
      const { status, stderr } = await revnet(...args);
      expect(stderr).to.match(message);
      expect(status).to.equal(2);
    });
});

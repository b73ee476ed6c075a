/** revnet evaluate and predict: whose row is whose, and which images count. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { UsageError } from "../../lib/cli/command.js";
import { evaluate } from "../../lib/cli/evaluate.js";
import { predict } from "../../lib/cli/predict.js";
import { createNetwork } from "../../lib/index.js";
import { cells, runCommand } from "../support/command.js";
import { rejection } from "../support/errors.js";
import { picture } from "../support/pictures.js";
import { TINY_REVNET } from "../support/tiny.js";

/** Class i of the data has so many test images. */
const imagesOf = (label: number) => 1 + (label % 3);
/** The network says so of every image. */
const ALWAYS = 2;
const nameOf = (label: number) => `class-${String(label).padStart(2, "0")}`;

describe("evaluating", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-evaluate-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  /** A folder of `classes`, and a network that takes every image for the class ALWAYS. */
  async function prepare(classes: number): Promise<{ model: string; args: string[] }> {
    for (let label = 0; label < classes; label++)
      for (const [split, count] of [
        ["train", 1],
        ["val", imagesOf(label)],
      ] as const) {
        const at = path.join(folder, "data", split, nameOf(label));
        await mkdir(at, { recursive: true });
        for (let i = 0; i < count; i++) await writeFile(path.join(at, `${i}.png`), await picture([10 * label, 100, 50], i, 8, 8));
      }
    const network = createNetwork({ ...TINY_REVNET, classes }, { device: "cpu", threads: 1 });
    const weight = network.parameters.get("head.fc.weight")!;
    network.setParameters(
      new Map([
        ["head.fc.weight", { shape: weight.shape, data: new Float32Array(weight.data.length) }],
        [
          "head.fc.bias",
          { shape: [classes], data: Float32Array.from({ length: classes }, (_, label) => (label === ALWAYS ? 1 : 0)) },
        ],
      ]),
    );
    network.classNames = Array.from({ length: classes }, (_, label) => nameOf(label));
    const model = path.join(folder, "model.safetensors");
    await network.save(model);
    network.dispose();
    const args = [model, "--data", "image-folder", "--data-dir", path.join(folder, "data"), "--device", "cpu", "--threads", "1"];
    return { model, args };
  }

  const rowsOf = (classes: number, left: readonly number[] = []) =>
    Array.from({ length: classes }, (_, label) =>
      Array.from({ length: classes }, (_, prediction) =>
        prediction === ALWAYS ? imagesOf(label) - left.filter((each) => each === label).length : 0,
      ),
    );

  it("counts labels in rows and predictions in columns, for people and in JSON", async () => {
    const { args } = await prepare(12);
    const result = JSON.parse((await runCommand(evaluate, ...args, "--json")).stdout);
    expect(result.confusion).to.deep.equal(rowsOf(12));
    expect(result.classes).to.deep.equal(Array.from({ length: 12 }, (_, label) => nameOf(label)));
    // 24 images, of which 3 are of the class.
    expect(result.images).to.equal(24);
    expect(result.error).to.be.closeTo(21 / 24, 1e-12);
    const each = (bias: number) => Math.log(11 + Math.E) - bias;
    expect(result.loss).to.be.closeTo((3 * each(1) + 21 * each(0)) / 24, 1e-6);

    const { stdout } = await runCommand(evaluate, ...args);
    expect(stdout).to.match(/^tiny-revnet on 24 test images of image-folder: loss [\d.]+, error 87\.50 %$/m);
    const table = cells(stdout.slice(stdout.indexOf("label")));
    expect(table[0]).to.deep.equal(["label \\ predicted", ...result.classes]);
    expect(table.slice(1)).to.deep.equal(rowsOf(12).map((row, label) => [nameOf(label), ...row.map(String)]));
  });

  it("leaves the table to --json where it would not fit a terminal", async () => {
    const { args } = await prepare(21);
    expect((await runCommand(evaluate, ...args)).stdout).to.not.include("predicted");
    expect(JSON.parse((await runCommand(evaluate, ...args, "--json")).stdout).confusion).to.deep.equal(rowsOf(21));
  });

  it("counts the images that it could decode, in whatever batches, and names the others", async () => {
    const { args } = await prepare(6);
    const broken = [
      [1, 0],
      [2, 1],
      [5, 2],
    ].map(([label, i]) => path.join(folder, "data/val", nameOf(label!), `${i}.png`));
    for (const file of broken) await writeFile(file, "");
    for (const size of ["1", "5", "100"]) {
      const result = JSON.parse((await runCommand(evaluate, ...args, "--json", "--batch-size", size)).stdout);
      expect(result.images, size).to.equal(9);
      expect(result.confusion, size).to.deep.equal(rowsOf(6, [1, 2, 5]));
      // Two of the class, of nine.
      expect(result.error, size).to.be.closeTo(7 / 9, 1e-12);
      expect(result.brokenImages, size).to.deep.equal(broken.map((file) => ({ file, reason: "the file is empty" })));
    }
    const { stdout } = await runCommand(evaluate, ...args);
    expect(stdout).to.include("on 9 test images").and.include("error 77.78 %");
    for (const file of broken) expect(stdout).to.include(`left out: ${file}: the file is empty`);
    expect(await rejection(runCommand(evaluate, ...args, "--broken-images", "fail"), "ERR_INVALID_DATA")).to.include(broken[0]!);
  });

  it("refuses another number of classes, and warns of other names, by the first that differs", async () => {
    const { args, model } = await prepare(3);
    await rm(path.join(folder, "data/train", nameOf(1)), { recursive: true });
    await rm(path.join(folder, "data/val", nameOf(1)), { recursive: true });
    const refused = await runCommand(evaluate, ...args).catch((error: Error) => error);
    expect(refused).to.be.instanceOf(UsageError);
    expect((refused as Error).message).to.equal("the model has 3 classes, and image-folder has 2");
    await mkdir(path.join(folder, "data/train/other"));
    await writeFile(path.join(folder, "data/train/other/0.png"), await picture([1, 2, 3], 1, 8, 8));
    const { stderr } = await runCommand(evaluate, ...args);
    expect(stderr).to.include(`class 1 is '${nameOf(2)}', and was '${nameOf(1)}'`);
    expect((await runCommand(evaluate, model, ...args.slice(1))).status).to.equal(0);
  });

  describe("predicts", () => {
    it("of test images the class that it was trained on, beside the data's label", async () => {
      const { args } = await prepare(3);
      const results = JSON.parse((await runCommand(predict, ...args, "--count", "4", "--json")).stdout);
      expect(results.map(({ image, class: name, label }: Record<string, string>) => [image, name, label])).to.deep.equal(
        [0, 1, 1, 2].map((label, i) => [`test[${i}]`, nameOf(ALWAYS), nameOf(label)]),
      );
      for (const { probability, probabilities } of results) {
        expect(probability).to.be.closeTo(Math.E / (2 + Math.E), 1e-6);
        expect(probabilities).to.have.length(3);
        expect(probabilities[ALWAYS]).to.equal(probability);
      }
      const table = cells((await runCommand(predict, ...args, "--count", "2")).stdout);
      expect(table).to.deep.equal([
        ["image", "class", "probability", "label"],
        ["test[0]", nameOf(ALWAYS), "57.61 %", nameOf(0)],
        ["test[1]", nameOf(ALWAYS), "57.61 %", nameOf(1)],
      ]);
    });

    it("of files, and of the bytes of several images in one", async () => {
      const { model } = await prepare(3);
      const raw = path.join(folder, "two.raw");
      await writeFile(raw, Buffer.alloc(2 * 192, 7));
      const one = path.join(folder, "one.raw");
      await writeFile(one, Buffer.alloc(192, 7));
      const png = path.join(folder, "data/val", nameOf(0), "0.png");
      const { stdout } = await runCommand(predict, model, png, raw, one, "--device", "cpu");
      expect(cells(stdout).map(([image]) => image)).to.deep.equal(["image", png, `${raw}[0]`, `${raw}[1]`, one]);
      for (const length of [0, 191, 193]) {
        await writeFile(raw, Buffer.alloc(length));
        const message = await rejection(runCommand(predict, model, raw, "--device", "cpu"), "ERR_INVALID_DATA");
        expect(message).to.include(raw).and.include(`its ${length} bytes`).and.include("8 x 8 x 3 = 192");
      }
      expect(await rejection(runCommand(predict, model, `${raw}.none`, "--device", "cpu"), "ERR_FILE")).to.include(`${raw}.none`);
    });

    it("what is either files or a data set, at least one image of it", async () => {
      for (const args of [["m.safetensors"], ["m.safetensors", "a.png", "--data", "shapes"]])
        expect(await runCommand(predict, ...args).catch((error: Error) => error.message)).to.include("give either image files");
      for (const count of ["0", "-1"])
        expect(
          await runCommand(predict, "m.safetensors", "--data", "shapes", "--count", count).catch((error: Error) => error.message),
        ).to.include("--count expects a positive");
    });
  });
});

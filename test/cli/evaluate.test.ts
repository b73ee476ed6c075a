/** revnet evaluate and predict: whose row is whose, and which images count. */
import { cp, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
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
    // The most that have a table.
    const { args } = await prepare(20);
    const result = JSON.parse((await runCommand(evaluate, ...args, "--json")).stdout);
    expect(result.confusion).to.deep.equal(rowsOf(20));
    expect(result.classes).to.deep.equal(Array.from({ length: 20 }, (_, label) => nameOf(label)));
    // 39 images, of which 3 are of the class.
    expect(result.images).to.equal(39);
    expect(result.error).to.be.closeTo(36 / 39, 1e-12);
    const each = (bias: number) => Math.log(19 + Math.E) - bias;
    expect(result.loss).to.be.closeTo((3 * each(1) + 36 * each(0)) / 39, 1e-6);

    const { stdout } = await runCommand(evaluate, ...args);
    expect(stdout).to.match(
      /^tiny-revnet on 39 test images of image-folder: loss [\d.]+, error 92\.31 %, top-5 error \d+\.\d+ %$/m,
    );
    const [scored, table] = [
      cells(stdout.slice(stdout.indexOf("\nclass "), stdout.indexOf("\nlabel"))),
      cells(stdout.slice(stdout.indexOf("label \\"))),
    ];
    expect(scored[0]).to.deep.equal(["class", "images", "precision", "recall", "F1"]);
    expect(scored[1 + ALWAYS]).to.deep.equal([nameOf(ALWAYS), "3", "7.69 %", "100.00 %", "14.29 %"]);
    expect(result.classScores[ALWAYS]).to.deep.equal({ images: 3, precision: 3 / 39, recall: 1, f1: 6 / 42 });
    expect(result.macroF1).to.be.closeTo(6 / 42 / 20, 1e-12);
    // The answer's probability is e / (19 + e) for each of them.
    expect(result.calibrationError).to.be.closeTo(Math.abs(Math.E / (19 + Math.E) - 3 / 39), 1e-6);
    expect(table[0]).to.deep.equal(["label \\ predicted", ...result.classes]);
    expect(table.slice(1)).to.deep.equal(rowsOf(20).map((row, label) => [nameOf(label), ...row.map(String)]));
  });

  it("needs to know of which data", async () => {
    const error = await runCommand(evaluate, "model.safetensors").catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(UsageError);
    expect((error as Error).message).to.include("--data is missing");
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

  it("matches classes by their names: some may be absent, no others may be there", async () => {
    const { args } = await prepare(4);
    // The classes that are left are in other places than in the network.
    for (const split of ["train", "val"])
      for (const label of [0, 1]) await rm(path.join(folder, "data", split, nameOf(label)), { recursive: true });
    const evaluated = JSON.parse((await runCommand(evaluate, ...args, "--json")).stdout);
    expect(evaluated.classes).to.deep.equal([0, 1, 2, 3].map(nameOf));
    expect(evaluated.confusion).to.deep.equal([
      [0, 0, 0, 0],
      [0, 0, 0, 0],
      [0, 0, imagesOf(2), 0],
      [0, 0, imagesOf(3), 0],
    ]);
    await rename(path.join(folder, "data/train", nameOf(3)), path.join(folder, "data/train", nameOf(2), "deeper"));
    await rm(path.join(folder, "data/val", nameOf(3)), { recursive: true });
    expect(JSON.parse((await runCommand(evaluate, ...args, "--json")).stdout).error).to.equal(0);
    await mkdir(path.join(folder, "data/val/other"));
    await writeFile(path.join(folder, "data/val/other/0.png"), await picture([1, 2, 3], 1, 8, 8));
    expect(await rejection(runCommand(evaluate, ...args), "ERR_INVALID_DATA")).to.include("no class 'other' among those expected");
  });

  it("takes the split that is chosen, or all of them", async () => {
    const { args } = await prepare(3);
    const images = async (...more: string[]) => JSON.parse((await runCommand(evaluate, ...args, ...more, "--json")).stdout).images;
    expect(await images("--split", "train")).to.equal(3);
    expect(await images("--split", "validation")).to.equal(6);
    expect(await images("--split", "all")).to.equal(9);
    await mkdir(path.join(folder, "data/test"));
    await cp(path.join(folder, "data/val", nameOf(1)), path.join(folder, "data/test", nameOf(1)), { recursive: true });
    expect(await images()).to.equal(imagesOf(1));
    expect(await images("--split", "validation")).to.equal(6);
    expect(await images("--split", "all")).to.equal(9 + imagesOf(1));
    expect(await rejection(runCommand(evaluate, ...args, "--split", "tset"), "ERR_INVALID_ARGUMENT")).to.include(
      "did you mean 'test'",
    );
    const plain = args.map((argument) => (argument === path.join(folder, "data") ? path.join(argument, "val") : argument));
    expect(JSON.parse((await runCommand(evaluate, ...plain, "--split", "all", "--json")).stdout).images).to.equal(6);
  });

  describe("predicts", () => {
    it("of test images the class that it was trained on, beside the data's label", async () => {
      const { args } = await prepare(3);
      const { classes, images: results } = JSON.parse((await runCommand(predict, ...args, "--count", "4", "--json")).stdout);
      expect(classes).to.deep.equal([0, 1, 2].map(nameOf));
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
        const { status, stderr } = await runCommand(predict, model, raw, "--device", "cpu");
        expect(status).to.equal(1);
        expect(stderr.replace(/\s+/g, " ")).to.include(raw).and.include(`its ${length} bytes`).and.include("8 x 8 x 3 = 192");
      }
    });

    it("of all files that can be read, and names the others", async () => {
      const { model } = await prepare(3);
      const png = path.join(folder, "data/val", nameOf(0), "0.png");
      const text = path.join(folder, "notes.txt");
      await writeFile(text, Buffer.alloc(192, "a"));
      const cut = path.join(folder, "cut.png");
      await writeFile(cut, (await readFile(png)).subarray(0, 60));
      const files = [png, text, cut, path.join(folder, "none.png"), folder.concat("/data/val"), "/dev/null", png];
      const { status, stdout } = await runCommand(predict, model, ...files, "--device", "cpu", "--json");
      expect(status).to.equal(1);
      const results: { image: string; class?: string; error?: string }[] = JSON.parse(stdout).images;
      expect(results.map(({ image, error }) => [path.relative(folder, image), error === undefined])).to.deep.equal([
        [`data/val/${nameOf(0)}/0.png`, true],
        ["notes.txt", false],
        ["cut.png", false],
        ["none.png", false],
        ...[0, 1, 2].flatMap((label) =>
          Array.from({ length: imagesOf(label) }, (_, i) => [`data/val/${nameOf(label)}/${i}.png`, true]),
        ),
        [path.relative(folder, "/dev/null"), false],
        [`data/val/${nameOf(0)}/0.png`, true],
      ]);
      expect(results[1]!.error).to.include("it is not a JPEG");
      expect(results[2]!.error).to.include("damaged or cut short");
      expect(results[3]!.error).to.include("there is no such file");
      const raw = await runCommand(predict, model, text, "--raw", "--device", "cpu");
      expect(raw.status).to.equal(0);
      const people = await runCommand(predict, model, png, text, "--device", "cpu");
      expect(cells(people.stdout)[1]![0]).to.equal(png);
      expect(people.stderr).to.include(text);
    });

    it("into a file of comma-separated values", async () => {
      const { model, args } = await prepare(3);
      const [file, text] = [path.join(folder, "out.csv"), path.join(folder, 'a "b", c.txt')];
      await writeFile(text, "none");
      const png = path.join(folder, "data/val", nameOf(0), "0.png");
      expect((await runCommand(predict, model, png, text, "--device", "cpu", "--csv", file)).status).to.equal(1);
      const [head, first, second, ...rest] = (await readFile(file, "utf8")).split("\r\n");
      expect(head).to.equal("image,class,probability,label,error,p(class-00),p(class-01),p(class-02)");
      expect(rest).to.deep.equal([""]);
      const fields = first!.split(",");
      expect(fields.slice(0, 2)).to.deep.equal([png, nameOf(ALWAYS)]);
      expect([fields[2], fields[3], fields[4]]).to.deep.equal([fields[7], "", ""]);
      expect(Number(fields[7])).to.be.closeTo(Math.E / (2 + Math.E), 1e-6);
      expect(second).to.match(/^".*\/a ""b"", c\.txt",,,,"?it is not a JPEG.*,,,$/);

      await runCommand(predict, ...args, "--count", "2", "--csv", file);
      const labels = (await readFile(file, "utf8")).split("\r\n").map((line) => line.split(",")[3]);
      expect(labels).to.deep.equal(["label", nameOf(0), nameOf(1), undefined]);
      const missing = path.join(folder, "none", "out.csv");
      expect(await rejection(runCommand(predict, model, png, "--device", "cpu", "--csv", missing), "ERR_FILE")).to.include(missing);
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

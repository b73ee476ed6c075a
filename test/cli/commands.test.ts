/** What the short commands print: inspect, memory, data, report, export, train. */
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { UsageError } from "../../lib/cli/command.js";
import { data } from "../../lib/cli/data.js";
import { exportModel } from "../../lib/cli/export.js";
import { gradcheck } from "../../lib/cli/gradcheck.js";
import { inspect } from "../../lib/cli/inspect.js";
import { memory } from "../../lib/cli/memory.js";
import { report } from "../../lib/cli/report.js";
import { train } from "../../lib/cli/train.js";
import { createNetwork, memoryPlan } from "../../lib/index.js";
import { writeRun } from "../report/fixtures.js";
import { cells, runCommand } from "../support/command.js";
import { rejection } from "../support/errors.js";
import { writeClasses } from "../support/pictures.js";
import { TINY_RESNET, TINY_REVNET } from "../support/tiny.js";

describe("commands", () => {
  let folder: string;
  const at = (...names: string[]) => path.join(folder, ...names);
  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-commands-"));
    const small = { input: [32, 32, 3], classes: 10, strides: [2, 2] };
    await writeFile(at("revnet.json"), JSON.stringify({ ...TINY_REVNET, ...small }));
    await writeFile(at("resnet.json"), JSON.stringify({ ...TINY_RESNET, ...small }));
  });
  after(() => rm(folder, { recursive: true }));

  const usage = async (running: Promise<unknown>): Promise<string> => {
    const error = await running.catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(UsageError);
    return (error as Error).message;
  };

  describe("inspect", () => {
    it("lists layers with their shapes and parameters, which add up", async () => {
      const { stdout } = await runCommand(inspect, at("revnet.json"));
      const [title, ...rows] = cells(stdout);
      expect(title).to.deep.equal(["tiny-revnet: revnet, 32x32x3 images, 10 classes, 5,894 parameters"]);
      expect(rows).to.deep.equal([
        ["layer", "output", "parameters"],
        ["stem", "conv 3x3", "32x32x4", "116"],
        ["stages.0.0", "residual 3x3, 3x3, stride 2, pool shortcut", "16x16x8", "528"],
        ["stages.0.1", "reversible 3x3, 3x3", "16x16x8", "608"],
        ["stages.1.0", "residual 3x3, 3x3, stride 2, pool shortcut", "8x8x16", "2,072"],
        ["stages.1.1", "reversible 3x3, 3x3", "8x8x16", "2,368"],
        ["head", "average pool, linear", "1x1x10", "202"],
      ]);
    });
  });

  it("inspects a saved network, whose file is no model to train", async () => {
    const network = createNetwork(TINY_REVNET, { device: "cpu" });
    await network.save(at("saved.safetensors"));
    network.dispose();
    const saved = JSON.parse((await runCommand(inspect, at("saved.safetensors"), "--json")).stdout);
    expect(saved).to.deep.include({ model: TINY_REVNET.name, input: TINY_REVNET.input, classes: TINY_REVNET.classes });
    const training = runCommand(train, "--model", at("saved.safetensors"), "--data", "shapes", "--steps", "1");
    expect(await rejection(training, "ERR_INVALID_SPEC")).to.contain("revnet inspect --json");
  });

  describe("inspect, as JSON,", () => {
    it("has the layers, the tensors and which of them are trained, for another number of classes too", async () => {
      const result = JSON.parse((await runCommand(inspect, at("revnet.json"), "--json", "--classes", "7")).stdout);
      expect(result).to.deep.include({ model: "tiny-revnet", kind: "revnet", classes: 7, parameters: 5894 - 3 * 17 });
      expect(result.layers[0]).to.deep.equal({ name: "stem", description: "conv 3x3", output: [32, 32, 4], parameters: 116 });
      const trained = result.tensors.filter(({ trained }: { trained: boolean }) => trained);
      const elements = (shape: number[]) => shape.reduce((product, edge) => product * edge, 1);
      expect(trained.reduce((sum: number, { shape }: { shape: number[] }) => sum + elements(shape), 0)).to.equal(result.parameters);
      const others = result.tensors.filter(({ trained }: { trained: boolean }) => !trained);
      for (const { name } of others) expect(name).to.match(/running_(mean|var)$/);
      expect(others.length).to.be.greaterThan(10);
    });

    it("has the ImageNet stem with its stride and pooling", async () => {
      const { layers } = JSON.parse((await runCommand(inspect, "resnet-50", "--json")).stdout);
      expect(layers[0]).to.deep.include({ description: "conv 7x7, stride 2, max pool", output: [56, 56, 64] });
      expect(layers.at(-1)).to.deep.include({ output: [1, 1, 1000] });
    });
  });

  describe("memory", () => {
    const plan = (mode: "reversible" | "stored") =>
      memoryPlan(JSON.parse(JSON.stringify({ ...TINY_REVNET, input: [32, 32, 3], classes: 10, strides: [2, 2] })), {
        batchSize: 8,
        device: "cpu",
        threads: 1,
        activations: mode,
      });
    const on = ["--device", "cpu", "--threads", "1", "--batch-size", "8"];

    it("has the plan of either mode, each category in its row", async () => {
      const { stdout } = await runCommand(memory, at("revnet.json"), ...on, "--json");
      const result = JSON.parse(stdout);
      expect(result).to.deep.include({ model: "tiny-revnet", batchSize: 8, device: "cpu" });
      expect([result.reversible, result.stored]).to.deep.equal([plan("reversible"), plan("stored")]);
      expect(result).to.not.have.property("budget");
    });

    it("counts what the optimizer keeps for each parameter", async () => {
      const optimizer = async (name: string) => {
        const { stdout } = await runCommand(memory, at("revnet.json"), "--optimizer", name, "--json");
        return JSON.parse(stdout).reversible.optimizer as number;
      };
      expect(await optimizer("adamw")).to.equal(2 * (await optimizer("sgd")));
    });

    it("finds the largest batch for a budget, in whatever unit", async () => {
      const largest = async (budget: string) => {
        const { budget: found } = JSON.parse(
          (await runCommand(memory, at("revnet.json"), ...on, "--json", "--budget", budget)).stdout,
        );
        return found;
      };
      const expected: [string, number][] = [
        ["1MB", 1e6],
        ["1MiB", 2 ** 20],
        ["1.5 mib", 1.5 * 2 ** 20],
        ["1000kB", 1e6],
        ["1000000B", 1e6],
        ["0.001GB", 1e6],
      ];
      for (const [text, bytes] of expected) expect((await largest(text)).bytes, text).to.equal(Math.floor(bytes));
      const { reversible, stored } = await largest("4MiB");
      expect(reversible).to.be.greaterThan(stored);
      for (const [mode, n] of [
        ["reversible", reversible],
        ["stored", stored],
      ] as const) {
        const total = (batchSize: number) =>
          memoryPlan(at("revnet.json"), { batchSize, activations: mode, device: "cpu", threads: 1 }).total;
        expect(total(n), mode).to.be.at.most(2 ** 22);
        expect(total(n + 1), mode).to.be.greaterThan(2 ** 22);
      }
      expect((await runCommand(memory, at("revnet.json"), ...on, "--budget", "1B")).stdout).to.match(
        /1B, stored: not even one image/,
      );
      for (const text of ["8", "8 XB", "-1GB", "GiB", "1e3MB", "1GB2"])
        expect(await usage(runCommand(memory, at("revnet.json"), "--budget", text))).to.include(`got '${text}'`);
    });

    it("counts a data set where one is named, and needs one for a number of images", async () => {
      const bytes = async (...args: string[]) =>
        JSON.parse((await runCommand(memory, at("revnet.json"), ...on, "--json", ...args)).stdout).reversible.data;
      const [few, many] = [
        await bytes("--data", "shapes", "--train-count", "160"),
        await bytes("--data", "shapes", "--train-count", "320"),
      ];
      expect(many - few).to.equal(160 * (3072 + 4));
      expect(await usage(runCommand(memory, at("revnet.json"), "--train-count", "5"))).to.equal("--train-count needs --data");
    });

    it("says of a ResNet that its modes are one", async () => {
      expect((await runCommand(memory, at("resnet.json"), ...on)).stdout).to.include("batch size 8 (a ResNet stores its");
      expect((await runCommand(memory, at("revnet.json"), ...on)).stdout).to.match(/batch size 8$/m);
    });
  });

  describe("data", () => {
    it("inspects counts by class, means, deviations and broken files", async () => {
      await writeClasses(at("images", "train"), 3, 10, 8);
      await writeClasses(at("images", "val"), 2, 10, 8);
      await writeFile(at("images/train/blue/000.png"), "");
      await writeFile(at("images/val/red/001.jpg"), "no image");
      const args = ["inspect", "image-folder", "--data-dir", at("images"), "--size", "4x6"];
      const result = JSON.parse((await runCommand(data, ...args, "--json")).stdout);
      expect(result).to.deep.include({ data: "image-folder", shape: [4, 6, 3], classes: ["blue", "green", "red"] });
      expect([result.train.images, result.test.images]).to.deep.equal([8, 5]);
      expect([result.train.perClass, result.test.perClass]).to.deep.equal([
        [2, 3, 3],
        [2, 2, 1],
      ]);
      const { stdout } = await runCommand(data, ...args);
      const rows = cells(stdout);
      expect(rows[0]![0]).to.equal("image-folder: 8 training and 5 test images of 3 classes, 4x6x3 (height x width x channels)");
      expect(rows.slice(1, 5)).to.deep.equal([
        ["class", "train", "test"],
        ["blue", "2", "2"],
        ["green", "3", "2"],
        ["red", "3", "1"],
      ]);
      expect(rows.slice(5, 9)).to.deep.equal([
        ["training images", "mean", "deviation"],
        ...["red", "green", "blue"].map((name, i) => [name, result.train.mean[i].toFixed(2), result.train.deviation[i].toFixed(2)]),
      ]);
      expect(stdout)
        .to.include("2 broken images:")
        .and.include(`  ${at("images/train/blue/000.png")}: the file is empty`);
    });

    it("packs a folder, once for each size", async () => {
      const result = JSON.parse(
        (await runCommand(data, "pack", "image-folder", "--data-dir", at("images"), "--size", "8", "--json")).stdout,
      );
      expect(result).to.deep.include({ file: at("images", "revnet-8x8x3.pack"), images: 13 });
      // What the pixels take, without the list of them: each picture is at least 10 x 10 for an input of 8 x 8.
      expect(result.bytes).to.be.within(13 * 9 * 9 * 3, (await stat(result.file)).size);
      const { stdout } = await runCommand(data, "pack", "image-folder", "--data-dir", at("images"), "--size", "8x8x1");
      expect(stdout)
        .to.include(`${at("images", "revnet-8x8x1.pack")}: 13 images`)
        .and.include("2 broken images:");
    });

    it("refuses what makes no sense", async () => {
      for (const size of ["x", "8x8x3x1", "8x", "1x2xy"])
        expect(
          await usage(runCommand(data, "inspect", "image-folder", "--data-dir", at("images"), "--size", size)).catch(String),
          size,
        ).to.match(/--size expects N, HxW or HxWxC|shape/);
      expect(await usage(runCommand(data, "pack", "shapes"))).to.include("only image-folder is packed");
      expect(await usage(runCommand(data, "inspect", "cifar-10"))).to.equal(
        "--data-dir is missing: the folder of the files of cifar-10",
      );
      expect(await rejection(runCommand(data, "inspekt", "shapes"), "ERR_INVALID_ARGUMENT")).to.include("did you mean 'inspect'");
      await rejection(runCommand(data, "download", "shapes", "--data-dir", folder), "ERR_INVALID_ARGUMENT");
    });
  });

  describe("report", () => {
    it("writes where it says, of one run or of several", async () => {
      for (const name of ["a", "b"]) await writeRun(at(name));
      expect((await runCommand(report, at("a"))).stdout).to.equal(`${at("a", "report.html")}\n`);
      expect(await readFile(at("a", "report.html"), "utf8")).to.include("<h1>tiny: a</h1>");
      const both = await runCommand(report, at("a"), at("b"), "--out", at("both.html"), "--json");
      expect(JSON.parse(both.stdout)).to.deep.equal({ file: at("both.html"), runs: [at("a"), at("b")] });
      expect(await readFile(at("both.html"), "utf8")).to.include("<h1>a, b</h1>");
    });
  });

  describe("export", () => {
    it("writes an ONNX file, and nothing that is called otherwise", async () => {
      const network = createNetwork(TINY_REVNET, { device: "cpu", threads: 1 });
      await network.save(at("model.safetensors"));
      network.dispose();
      const result = JSON.parse((await runCommand(exportModel, at("model.safetensors"), at("model.onnx"), "--json")).stdout);
      const { size } = await stat(at("model.onnx"));
      expect(result).to.deep.equal({ model: "tiny-revnet", file: at("model.onnx"), bytes: size, input: [8, 8, 3], classes: 4 });
      const { stdout } = await runCommand(exportModel, at("model.safetensors"), at("model.onnx"));
      expect(stdout).to.include("images [batch, 8, 8, 3] in [0, 255] to 4 logits");
      expect(await usage(runCommand(exportModel, at("model.onnx"), at("model.safetensors")))).to.include("ends in .onnx");
    });
  });

  describe("gradcheck", () => {
    it("fails above the tolerance, and says by how much and where", async () => {
      const run = (...args: string[]) => runCommand(gradcheck, at("revnet.json"), "--samples", "1", ...args);
      const passed = await run("--json");
      expect(passed.status).to.equal(0);
      const { tolerance, results } = JSON.parse(passed.stdout);
      expect(tolerance).to.equal(1e-6);
      const [{ maxRelativeError, passed: ok, checked, parameter }] = results;
      expect(ok).to.equal(true);
      expect(checked).to.be.greaterThan(40);
      const strict = await run("--tolerance", String(maxRelativeError / 2));
      expect(strict.status).to.equal(1);
      expect(strict.stdout)
        .to.match(/^FAIL {2}/)
        .and.include(`(${parameter})`)
        .and.include(`over ${checked} elements`);
      expect((await run("--tolerance", String(maxRelativeError), "--seed", "0")).stdout).to.match(/^ok {4}/);
      expect(await usage(run("--seed", "-1"))).to.include("--seed expects");
    });
  });

  describe("train", () => {
    const args = ["--model", "revnet.json", "--data", "shapes", "--train-count", "20", "--test-count", "10", "--batch-size", "5"];
    const run = (...more: string[]) =>
      runCommand(
        train,
        ...args.map((arg) => (arg === "revnet.json" ? at(arg) : arg)),
        "--device",
        "cpu",
        "--threads",
        "1",
        ...more,
      );

    it("hands its flags on as options, and prints the summary", async () => {
      const out = at("run");
      const flags = [
        "--steps",
        "5",
        "--seed",
        "3",
        "--learning-rate",
        "0.05",
        "--momentum",
        "0.5",
        "--weight-decay",
        "0.001",
        "--nesterov",
      ];
      const more = [
        "--schedule",
        "constant",
        "--warmup",
        "0.25",
        "--max-gradient-norm",
        "2",
        "--no-precise-batch-norm",
        "--no-augment",
        "--activations",
        "stored",
        "--validate-every",
        "2",
        "--out",
        out,
      ];
      const { status, stdout, stderr } = await run(...flags, ...more, "--json");
      expect(status, stderr).to.equal(0);
      const summary = JSON.parse(stdout);
      expect(summary).to.deep.include({ steps: 5, seed: 3, batchSize: 5, activations: "stored", epochs: 1.25 });
      expect(summary).to.deep.equal(JSON.parse(await readFile(path.join(out, "summary.json"), "utf8")));
      const config = JSON.parse(await readFile(path.join(out, "config.json"), "utf8"));
      expect(config.optimizer).to.deep.equal({
        type: "sgd",
        learningRate: 0.05,
        momentum: 0.5,
        nesterov: true,
        weightDecay: 0.001,
      });
      expect(config.schedule).to.deep.equal({ type: "constant", warmup: 0.25 });
      expect(config).to.include({ validateEvery: 2, maxGradientNorm: 2, preciseBatchNorm: false });
      // Progress is for people, and goes where the summary does not.
      expect(stderr)
        .to.match(/epoch 1: training loss/)
        .and.match(/step 4: test loss/);
    });

    it("says which images it was validated on", async () => {
      const { stdout } = await run("--steps", "2", "--validation-share", "0.5");
      expect(stdout).to.match(/^step 2: validation loss [\d.]+, error [\d.]+ %$/m);
      expect(stdout).to.match(/^validation error +[\d.]+ %\ntest error +[\d.]+ %$/m);
    });

    it("says for people how it went, and compares memory where nothing else is stored", async () => {
      const { stdout } = await run("--steps", "2");
      for (const line of [
        /^test error +[\d.]+ %$/m,
        /^step +[\d.]+ ms \([\d,.]+ images\/s\)$/m,
        /^reconstruction +exact, bit for bit$/m,
      ])
        expect(stdout).to.match(line);
      expect(stdout).to.match(/^activation memory +[\d.]+ \w+ \(stored: [\d.]+ \w+, [\d.]+ times as much\)$/m);
      expect(stdout).to.not.include("out of range").and.not.include("broken images").and.not.include("verified");
      const verified = (await run("--steps", "2", "--verify-every", "1")).stdout;
      expect(verified).to.match(/^verified +2 times, exact each time$/m);
      expect(verified).to.match(/^activation memory +[\d.]+ \w+$/m);
    });

    it("refuses what is missing", async () => {
      expect(await usage(runCommand(train))).to.include("--data is missing");
      expect(await usage(run("--ui-port", "80"))).to.equal("--ui-port needs --ui");
    });
  });
});

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { createNetwork } from "../../lib/index.js";
import { RUN_FILES, TINY_RESNET, TINY_REVNET } from "../support/tiny.js";

const MAIN = path.join(__dirname, "../../lib/cli/main.js");
const COMMANDS = ["train", "evaluate", "predict", "export", "inspect", "memory", "report", "clean", "gradcheck", "bench", "doctor"];

function start(args: string[]) {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (output.stderr += text));
  const ended = once(child, "close").then(([status]) => ({ status: status as number | null, ...output }));
  return { child, output, ended };
}

const revnet = (...args: string[]) => start(args).ended;

describe("the command line", function () {
  this.timeout(120_000);
  let folder: string;
  const file = (name: string) => path.join(folder, name);

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-cli-"));
    // Networks for `shapes`, small enough for any device.
    const small = { input: [32, 32, 3], classes: 10, strides: [2, 2] };
    await writeFile(file("revnet.json"), JSON.stringify({ ...TINY_REVNET, ...small }));
    await writeFile(file("resnet.json"), JSON.stringify({ ...TINY_RESNET, ...small }));
  });
  after(() => rm(folder, { recursive: true }));

  const train = (...more: string[]) => [
    "train",
    "--model",
    file("revnet.json"),
    "--data",
    "shapes",
    "--train-count",
    "60",
    "--test-count",
    "20",
    "--batch-size",
    "10",
    "--threads",
    "1",
    "--device",
    "cpu",
    ...more,
  ];

  it("shows its commands, and each command its flags", async () => {
    const { status, stdout } = await revnet("--help");
    expect(status).to.equal(0);
    for (const command of COMMANDS) {
      expect(stdout).to.include(command);
      const help = await revnet(command, "--help");
      expect(help.status, command).to.equal(0);
      expect(help.stdout).to.include(`Usage: revnet ${command}`).and.include("--help");
    }
  });

  it("tells its version, and a command's help either way round", async () => {
    for (const one of ["--version", "-V", "version"]) expect((await revnet(one)).stdout, one).to.match(/^\d+\.\d+\.\d+\n$/);
    expect((await revnet("help", "train")).stdout).to.equal((await revnet("train", "--help")).stdout);
  });

  const misused: [string[], RegExp][] = [
    [[], /Usage/],
    [["trian"], /did you mean 'train'/],
    [["train"], /--data/],
    [["train", "--data", "shapes", "--batchsize", "5"], /did you mean '--batch-size'/],
    [["train", "--data", "shapes", "--lr", "0.1"], /unknown option .--lr.; here it is called .--learning-rate./],
    [["train", "--dataset", "shapes"], /here it is called .--data./],
    [["predict", "--lr", "1"], /unknown option '--lr'; expected one of/],
    [["train", "--data", "shapes", "--steps", "many"], /--steps expects an integer, got 'many'/],
    [["train", "--data", "shapes", "--steps"], /--steps expects a value/],
    [["train", "--data", "shapes", "--steps", "1", "--steps", "2"], /given twice/],
    [["train", "--data", "shapes", "--steps", "0"], /--steps: expected an integer from 1/],
    [["train", "--data", "shapes", "--batch-size", "0"], /--batch-size: expected an integer from 1/],
    [["train", "--data", "shapes", "--learning-rate", "-1"], /--learning-rate: expected a number/],
    [["train", "--data", "shapes", "--checkpoint-every", "5"], /--checkpoint-every: needs --out/],
    [["train", "--data", "shapes", "--steps", "1", "--epochs", "1"], /--epochs, --steps: give one/],
    [["train", "--data", "shapes", "--ui-port", "80"], /--ui-port needs --ui/],
    [["train", "--data", "shapes", "--model", "revnet38"], /did you mean 'revnet-38'/],
    [["train", "--data", "cifar-10"], /--data-dir/],
    [["train", "--data", "shapes", "surplus"], /unexpected argument 'surplus'/],
    [["train", "--data", "shapes", "--json=yes"], /--json takes no value/],
    [["inspect"], /argument is missing.*revnet inspect MODEL/],
    [["inspect", "revnet-39"], /did you mean 'revnet-38'/],
    [["predict", "model.safetensors"], /image files, or --data/],
    [["train", "--data", "shapes", "--ui", "--ui-port", "70000"], /--ui-port: expected/],
    [["bench", "--rounds", "0"], /--rounds/],
    [["gradcheck", "--samples", "0"], /--samples/],
  ];
  for (const [args, message] of misused)
    it(`exits 2 on \`revnet ${args.join(" ")}\``, async () => {
      const { status, stdout, stderr } = await revnet(...args);
      expect(stderr).to.match(message);
      expect(stderr).to.not.match(/\n\s+at /);
      expect(stdout).to.equal("");
      expect(status).to.equal(2);
    });

  it("exits 1 on what fails though it was asked for correctly", async () => {
    const missing = await revnet("evaluate", file("none.safetensors"), "--data", "shapes");
    expect(missing.status).to.equal(1);
    expect(missing.stderr).to.include("none.safetensors");
    const data = await revnet("train", "--data", "cifar-10", "--data-dir", folder);
    expect(data.status).to.equal(1);
    expect(data.stderr).to.include("data_batch_1.bin");
    const device = await revnet("train", "--data", "shapes", "--train-count", "100", "--device", "cuda:99");
    expect(device.status).to.equal(1);
  });

  it("inspects: exact parameter counts, by layer and for other numbers of classes", async () => {
    const { status, stdout } = await revnet("inspect", "revnet-110", "--json", "--classes", "100");
    expect(status).to.equal(0);
    const result = JSON.parse(stdout);
    expect(result).to.include({ name: "revnet-110", kind: "revnet", classes: 100, parameters: 1_740_804 });
    expect(result.layers.reduce((sum: number, { parameters }: { parameters: number }) => sum + parameters, 0)).to.equal(1_740_804);
    expect(result.layers).to.have.length(2 + 27);
    expect((await revnet("inspect", "resnet-50")).stdout).to.include("25,549,352 parameters");
  });

  it("plans memory: reversible activations do not grow with depth, stored ones do", async () => {
    const plan = async (units: number) => {
      await writeFile(
        file(`deep-${units}.json`),
        JSON.stringify({ extends: file("revnet.json"), name: `deep-${units}`, units: [units, units] }),
      );
      return JSON.parse(
        (await revnet("memory", file(`deep-${units}.json`), "--batch-size", "10", "--device", "cpu", "--json")).stdout,
      );
    };
    const [shallow, deep] = [await plan(3), await plan(9)];
    expect(deep.reversible.activations).to.equal(shallow.reversible.activations);
    expect(deep.stored.activations).to.be.greaterThan(2 * shallow.stored.activations);
    const text = (await revnet("memory", "revnet-38", "--batch-size", "100")).stdout;
    expect(text).to.match(/activations +[\d.]+ MiB +[\d.]+ MiB/);
  });

  it("trains, evaluates and predicts", async () => {
    const out = file("run");
    const trained = await revnet(...train("--steps", "8", "--seed", "3", "--out", out));
    expect(trained.status, trained.stderr).to.equal(0);
    expect(trained.stdout)
      .to.match(/step 8\/8 .*loss .*images\/s/)
      .and.match(/epoch 1: /)
      .and.match(/test error +[\d.]+ %/);
    expect(trained.stdout).to.match(/activation memory .*stored: /);
    // Not a terminal: no control characters.
    expect(trained.stdout).to.not.include("\x1b").and.not.include("\r");
    expect((await readdir(out)).sort()).to.deep.equal(RUN_FILES);
    const summary = JSON.parse(await readFile(path.join(out, "summary.json"), "utf8"));
    expect(summary).to.include({ steps: 8, seed: 3, device: "cpu", batchSize: 10, threads: 1 });

    const model = path.join(out, "model.safetensors");
    const evaluated = JSON.parse(
      (await revnet("evaluate", model, "--data", "shapes", "--test-count", "20", "--device", "cpu", "--json")).stdout,
    );
    expect(evaluated).to.include({ images: 20, error: summary.testError });
    expect(evaluated.confusion.flat().reduce((a: number, b: number) => a + b)).to.equal(20);
    expect((await revnet("evaluate", model, "--data", "shapes", "--test-count", "20")).stdout).to.include("hourglass");

    const { classes, images: predicted } = JSON.parse(
      (await revnet("predict", model, "--data", "shapes", "--count", "20", "--json")).stdout,
    );
    expect(classes).to.have.length(10).and.include("hourglass");
    expect(predicted).to.have.length(20);
    const wrong = predicted.filter((result: { class: string; label: string }) => result.class !== result.label).length;
    expect(wrong / 20).to.be.closeTo(summary.testError, 1e-9);
    for (const { probabilities } of predicted) expect(probabilities.reduce((a: number, b: number) => a + b)).to.be.closeTo(1, 1e-5);

    // About other classes: no figures that mean nothing.
    const other = path.join(out, "cifar.safetensors");
    const network = createNetwork("revnet-38", { device: "cpu" });
    network.classNames = Array.from({ length: 10 }, (_, i) => `thing ${i}`);
    await network.save(other);
    network.dispose();
    const unknown = await revnet("predict", other, "--data", "shapes", "--count", "1");
    expect(unknown.status).to.equal(2);
    expect(unknown.stderr.replace(/\s+/g, " ")).to.include("are not among the 10 that revnet-38 was trained on (thing 0, thing 1");
    const two = file("two.json");
    await writeFile(two, JSON.stringify({ extends: "revnet-38", name: "two", classes: 2 }));
    const pair = createNetwork(two, { device: "cpu" });
    await pair.save(other);
    pair.dispose();
    for (const command of ["predict", "evaluate"]) {
      const refused = await revnet(command, other, "--data", "shapes", "--test-count", "1");
      expect(refused.status, command).to.equal(2);
      expect(refused.stderr.replace(/\s+/g, " ")).to.match(/shapes has 10 classes and two 2, and without names/);
    }

    await writeFile(file("image.raw"), Buffer.alloc(2 * 3072, 128));
    const raw = await revnet("predict", model, file("image.raw"));
    expect(raw.status).to.equal(0);
    expect(raw.stdout).to.include("image.raw[1]");
    await writeFile(file("short.raw"), Buffer.alloc(100));
    const short = await revnet("predict", model, file("short.raw"));
    expect(short.status).to.equal(1);
    expect(short.stderr).to.include("short.raw").and.include("3072");
  });

  it("prints nothing but the summary with --json", async () => {
    const { status, stdout, stderr } = await revnet(...train("--steps", "2", "--json"));
    expect(status).to.equal(0);
    expect(JSON.parse(stdout)).to.include({ steps: 2, kind: "revnet" });
    expect(stderr).to.include("test loss");
  });

  it("gives the same weights with stored activations, and with 2 threads", async () => {
    const hash = async (...more: string[]) =>
      JSON.parse((await revnet(...train("--steps", "3", "--json"), ...more)).stdout).weightsSha256;
    const twice = train("--steps", "3", "--json").map((arg, i, all) => (all[i - 1] === "--threads" ? "2" : arg));
    const hashes = [await hash(), await hash("--activations", "stored"), JSON.parse((await revnet(...twice)).stdout).weightsSha256];
    expect(new Set(hashes)).to.have.property("size", 1);
    expect(hashes[0]).to.match(/^[0-9a-f]{64}$/);
  });

  it("writes what it has on Ctrl-C and exits 130", async () => {
    const out = file("interrupted");
    const { child, output, ended } = start(train("--steps", "1000000", "--validate-every", "1000000", "--out", out));
    while (!(await readFile(path.join(out, "metrics.jsonl"), "utf8").catch(() => "")).includes('"step":3')) {
      expect(child.exitCode, output.stderr).to.equal(null);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    child.kill("SIGINT");
    const { status, stderr } = await ended;
    expect(status).to.equal(130);
    expect(stderr).to.include(out);
    const summary = JSON.parse(await readFile(path.join(out, "summary.json"), "utf8"));
    const lines = (await readFile(path.join(out, "metrics.jsonl"), "utf8"))
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(summary.steps).to.be.at.least(3);
    expect(lines.at(-1).step).to.equal(summary.steps);
    expect(
      (await revnet("evaluate", path.join(out, "model.safetensors"), "--data", "shapes", "--test-count", "20")).status,
    ).to.equal(0);
  });

  it("ends other commands at once on Ctrl-C, with 130 too", async () => {
    const { child, ended } = start(["gradcheck", "--samples", "1", ...Array<string>(500).fill("resnet-32")]);
    // With the first model's line it is well under way.
    await once(child.stdout, "data");
    child.kill("SIGINT");
    expect((await ended).status).to.equal(130);
  });

  it("does not mind a reader that leaves early", async () => {
    const child = spawn(process.execPath, [MAIN, "inspect", "revnet-164", "--json"], { stdio: ["ignore", "pipe", "pipe"] });
    let errors = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
    child.stdout.destroy();
    const [status] = await once(child, "close");
    expect(errors).to.equal("");
    expect(status).to.equal(0);
  });

  it("ends a run that keeps no files when nobody reads its output any more", async () => {
    const { child, output, ended } = start(train("--steps", "1000000", "--validate-every", "5"));
    await once(child.stdout, "data");
    child.stdout.destroy();
    const { status } = await ended;
    expect(status, output.stderr).to.equal(130);
  });

  it("goes on with a run that keeps files when nobody reads its output any more", async () => {
    const out = file("unread");
    const { child, output, ended } = start(train("--steps", "20", "--validate-every", "1", "--out", out));
    await once(child.stdout, "data");
    child.stdout.destroy();
    const { status } = await ended;
    expect(status, output.stderr).to.equal(0);
    expect(JSON.parse(await readFile(path.join(out, "summary.json"), "utf8")).steps).to.equal(20);
  });

  it("tells of an earlier run in the names of flags", async () => {
    const args = ["train", "--data", "shapes", "--train-count", "8", "--test-count", "2", "--batch-size", "4", "--steps", "1"];
    expect((await revnet(...args, "--out", file("twice"))).status).to.equal(0);
    const { status, stderr } = await revnet(...args, "--out", file("twice"));
    expect(status).to.equal(1);
    expect(stderr).to.include("resume it (--resume), or give a new run another --out");
  });

  it("refuses a folder that cannot be made, and does not wait for it for ever", async () => {
    const { status, stderr } = await revnet(...train("--steps", "1", "--out", "/proc/revnet/run"));
    expect(status).to.equal(1);
    expect(stderr).to.include("/proc/revnet");
  });

  it("checks gradients and exits 1 where they exceed the tolerance", async () => {
    const passed = await revnet("gradcheck", "revnet-38", "resnet-164", "--samples", "1", "--json");
    expect(passed.status, passed.stderr + passed.stdout).to.equal(0);
    const { results } = JSON.parse(passed.stdout);
    expect(results).to.have.length(2);
    for (const { maxRelativeError, checked } of results) {
      expect(maxRelativeError).to.be.within(1e-14, 1e-6);
      expect(checked).to.be.greaterThan(40);
    }
    expect((await revnet("gradcheck", "revnet-38", "--samples", "1", "--tolerance", "1e-15")).status).to.equal(1);
  });

  it("benchmarks in turns with a peer", async () => {
    const peer = file("peer");
    await writeFile(peer, '#!/bin/sh\necho "$@" >> "$(dirname "$0")/peer.log"\necho "model: median 12.50 ms, min 3.00 ms"\n');
    await chmod(peer, 0o755);
    // The "python" is the script itself, which gets its own path as the peer's file.
    const args = [
      "bench",
      file("revnet.json"),
      "--batch-size",
      "4",
      "--steps",
      "2",
      "--rounds",
      "2",
      "--threads",
      "1",
      "--device",
      "cpu",
      "--json",
    ];
    const { status, stdout, stderr } = await revnet(...args, "--peer", peer, "--python", peer);
    expect(status, stderr).to.equal(0);
    const { timings, ratios } = JSON.parse(stdout);
    expect(timings.map(({ name, activations }: Record<string, string>) => `${name} ${activations}`)).to.deep.equal([
      "ours reversible",
      "peer reversible",
      "ours stored",
      "peer stored",
    ]);
    expect(timings[1].median).to.equal(12.5);
    expect(timings[0].median).to.be.greaterThan(0);
    expect(ratios[0].ratio).to.be.closeTo(timings[0].median / 12.5, 1e-9);
    const calls = (await readFile(file("peer.log"), "utf8")).trimEnd().split("\n");
    expect(calls).to.have.length(4);
    expect(calls[0]).to.equal(`${peer} time ${TINY_REVNET.name} --batch 4 --steps 2 --threads 1`);
    expect(calls[1]).to.equal(`${calls[0]} --stored`);
    const failing = await revnet(...args, "--peer", peer, "--python", "no-such-python");
    expect(failing.status).to.equal(1);
    expect(failing.stderr).to.include("no-such-python");
  });

  it("says what this machine offers", async () => {
    const { status, stdout } = await revnet("doctor", "--json");
    expect(status).to.equal(0);
    const result = JSON.parse(stdout);
    expect(result.trainable).to.equal(true);
    expect(result.node).to.equal(process.version);
    expect(result.devices.map(({ name }: { name: string }) => name)).to.include.members(["reference", "cpu"]);
    expect(result.build).to.include.keys("cuda", "cudaArchitectures", "cudaDriver");
    expect(result.reason).to.be.a("string").and.include(result.auto);
    expect(result.build.isas).to.include(result.isa);
    expect(result.commonBits).to.equal(true);
    const { stdout: text } = await revnet("doctor");
    expect(text)
      .to.include("Training is possible")
      .and.match(/bits +the common ones/);
  });
});

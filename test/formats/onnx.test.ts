/**
 * Exported networks, run by ONNX Runtime: what it computes is what the network computes. REVNET_TEST_ONNXRUNTIME may name another
 * build of it than onnxruntime-web, such as the path of an installed onnxruntime-node.
 */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect } from "chai";
import type * as Ort from "onnxruntime-web";
import { OnnxGraph, writeOnnx } from "../../lib/formats/onnx.js";
import { argmax } from "../../lib/network/images.js";
import { resolveModel } from "../../lib/network/models.js";
import { loadNetwork, type Network } from "../../lib/network/network.js";
import type { NetworkSpec } from "../../lib/network/spec.js";
import { largestDifference, randomSplit, relativeError, roughNetwork, uniform } from "../network/support.js";
import { rejection } from "../support/errors.js";

const ort: typeof Ort = require(process.env.REVNET_TEST_ONNXRUNTIME ?? "onnxruntime-web");

/** Of the largest logit. Streams in fixed point and orders of summation make the difference. */
const TOLERANCE = 1e-5;

const basic = { filters: [8, 8, 12], bottleneck: false };
const bottleneck = { filters: [8, 4, 6], bottleneck: true };
const specs: NetworkSpec[] = (["revnet", "resnet"] as const).flatMap((kind) =>
  (["cifar", "imagenet"] as const).flatMap((stem) =>
    [basic, bottleneck].map((blocks) => ({
      name: `${kind}, ${blocks.bottleneck ? "bottleneck" : "basic"}, ${stem} stem`,
      kind,
      stem,
      input: [16, 24, 3] as const,
      classes: 5,
      units: [2, 2],
      strides: [1, 2],
      ...blocks,
    })),
  ),
);

/** A network in which every parameter matters, and with it the mean image. */
function network(spec: NetworkSpec, device = "cpu"): Network {
  const made = roughNetwork(spec, { device, threads: 2 });
  const next = uniform(7);
  made.preprocessing = {
    mean: Float32Array.from({ length: spec.input[0] * spec.input[1] * spec.input[2] }, () => 90 + 80 * next()),
    scale: 1 / 64,
  };
  return made;
}

describe("ONNX export", function () {
  this.timeout(120_000);
  let folder: string;
  let file: string;
  before(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-onnx-"));
    file = path.join(folder, "model.onnx");
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = 1;
  });
  after(() => fs.rmSync(folder, { recursive: true }));

  /** Runs batches of `n` images until there are no more. */
  async function run({ input, classes }: NetworkSpec, images: Uint8Array, n: number) {
    const session = await ort.InferenceSession.create(file, { logSeverityLevel: 3 });
    const elements = input[0] * input[1] * input[2];
    const logits = new Float32Array((images.length / elements) * classes);
    const probabilities = new Float32Array(logits.length);
    for (let first = 0; first * elements < images.length; first += n) {
      const batch = Float32Array.from(images.subarray(first * elements, (first + n) * elements));
      const result = await session.run({ images: new ort.Tensor("float32", batch, [batch.length / elements, ...input]) });
      expect(result.logits!.dims).to.deep.equal([batch.length / elements, classes]);
      logits.set(result.logits!.data as Float32Array, first * classes);
      probabilities.set(result.probabilities!.data as Float32Array, first * classes);
    }
    await session.release();
    return { logits, probabilities };
  }

  const scale = (logits: Iterable<number>) => Math.max(...Array.from(logits, Math.abs));
  const classesOf = ({ classes }: NetworkSpec, logits: Float32Array | Float64Array) =>
    Array.from({ length: logits.length / classes }, (_, i) => argmax(logits.subarray(i * classes, (i + 1) * classes)));

  /** Moves the bias so that every class has a mean logit of 0: none then wins everywhere, and many images are close calls. */
  async function balance(network: Network, images: Uint8Array): Promise<void> {
    const { classes } = network.spec;
    const logits = await network.logits(images);
    const { shape, data } = network.parameters.get("head.fc.bias")!;
    const bias = Float64Array.from(data);
    for (const [i, logit] of logits.entries()) bias[i % classes]! -= (logit * classes) / logits.length;
    network.setParameters({ "head.fc.bias": { shape, data: bias } });
  }

  for (const spec of specs)
    it(`${spec.name}: the same logits and classes for 1,000 images`, async () => {
      using exported = network(spec);
      const { images } = randomSplit(spec, 1000);
      await balance(exported, images);
      await exported.exportOnnx(file);
      const [logits, probabilities] = [await exported.logits(images), await exported.predict(images)];
      const result = await run(spec, images, 125);
      expect(largestDifference(result.logits, logits) / scale(logits)).to.be.below(TOLERANCE);
      expect(classesOf(spec, result.logits)).to.deep.equal(classesOf(spec, logits));
      expect(new Set(classesOf(spec, logits)).size, "classes that occur").to.equal(spec.classes);
      expect(largestDifference(result.probabilities, probabilities)).to.be.below(scale(logits) * TOLERANCE);
    });

  for (const name of ["revnet-38", "resnet-32"])
    it(`${name}: batches of 1 and of 7`, async () => {
      const spec = resolveModel(name);
      using exported = network(spec);
      await exported.exportOnnx(file);
      const { images } = randomSplit(spec, 15);
      const logits = await exported.logits(images);
      for (const n of [1, 7]) {
        const result = await run(spec, images, n);
        expect(largestDifference(result.logits, logits) / scale(logits)).to.be.below(TOLERANCE);
      }
    });

  it("writes a float64 network in float32", async () => {
    const spec = specs[0]!;
    using exported = network(spec, "reference");
    await exported.exportOnnx(file);
    const { images } = randomSplit(spec, 4);
    const result = await run(spec, images, 4);
    expect(relativeError(result.logits, await exported.logits(images))).to.be.below(TOLERANCE);
  });

  it("writes what training has made of the parameters", async () => {
    const spec = specs[0]!;
    using exported = network(spec);
    const { images, labels } = randomSplit(spec, 8);
    const step = await exported.prepareTraining({ batchSize: 8 });
    const before = await exported.logits(images);
    const normalised = Float32Array.from(images, (value) => value / 255 - 0.5);
    await step.run({ images: normalised, labels, learningRate: 0.1, momentum: 0.9, weightDecay: 0 });
    await exported.exportOnnx(file);
    const { logits } = await run(spec, images, 8);
    expect(relativeError(logits, await exported.logits(images))).to.be.below(TOLERANCE);
    expect(relativeError(logits, before)).to.be.above(0.01);
  });

  it("carries the spec, and is the same file each time", async () => {
    const spec = specs[1]!;
    using exported = network(spec);
    await exported.exportOnnx(file);
    const bytes = fs.readFileSync(file);
    expect(bytes.includes(JSON.stringify(exported.spec))).to.equal(true);
    await exported.save(path.join(folder, "model.safetensors"));
    using loaded = await loadNetwork(path.join(folder, "model.safetensors"), { device: "cpu" });
    await loaded.exportOnnx(file);
    expect(fs.readFileSync(file).equals(bytes)).to.equal(true);
  });

  it("refuses what a file cannot hold, and leaves the old one", async () => {
    fs.writeFileSync(file, "old");
    const graph = new OnnxGraph("too-large");
    const half = new Float32Array(2 ** 27); // never touched, so without memory behind it
    for (let i = 0; i < 4; ++i) graph.constant(`w${i}`, [half.length], half);
    expect(await rejection(writeOnnx(file, graph), "ERR_FILE")).to.match(
      /model\.onnx.*too-large takes \d+ bytes.* at most 2147483647/,
    );
    using exported = network(specs[0]!);
    await rejection(exported.exportOnnx(path.join(folder, "none", "model.onnx")), "ERR_FILE");
    await rejection(exported.exportOnnx(folder), "ERR_FILE");
    await rejection(exported.exportOnnx(undefined as never), "ERR_FILE");
    expect(fs.readFileSync(file, "utf8")).to.equal("old");
    expect(fs.readdirSync(folder).filter((name) => name.endsWith(".tmp"))).to.deep.equal([]);
  });
});

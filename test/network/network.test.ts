/** The Network class: what it gives, what it refuses, and that it saves and loads what it is. */
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as vm from "node:vm";
import { expect } from "chai";
import { loadSharp } from "../../lib/data/sharp.js";
import { readSafetensors, writeSafetensors } from "../../lib/formats/safetensors.js";
import { native } from "../../lib/native/index.js";
import { memoryPlan } from "../../lib/network/memory.js";
import { createNetwork, loadNetwork, type Network, type NetworkOptions } from "../../lib/network/network.js";
import { rejection } from "../support/errors.js";
import { largestDifference, onEveryDevice, randomImages, randomSplit, roughNetwork, TINY, thrown } from "./support.js";

const spec = TINY.revnet!;
const pixelsOf = (images: Uint8Array) => Float32Array.from(images);

onEveryDevice("a network", ({ options, exact }) => {
  let network: Network;
  let folder: string;
  const file = (name: string) => path.join(folder, name);
  beforeEach(() => {
    network = roughNetwork(spec, options);
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-network-"));
  });
  afterEach(() => {
    network.dispose();
    fs.rmSync(folder, { recursive: true });
  });

  it("gives parameters as copies, in the device's precision, and takes them back", () => {
    const { parameters } = network;
    const convolution = parameters.get("stages.1.0.f.conv1.weight")!;
    expect(convolution.shape).to.deep.equal([6, 4, 3, 3]);
    expect(convolution.data).to.be.instanceOf(exact ? Float64Array : Float32Array);
    expect(parameters.get("head.bn.running_var")!.shape).to.deep.equal([12]);
    const before = network.weightsSha256();
    const data = convolution.data.slice();
    convolution.data.fill(7);
    network.setParameters({ "stages.1.0.f.conv1.weight": { shape: [6, 4, 3, 3], data } });
    expect(network.weightsSha256()).to.equal(before);
    network.setParameters(new Map([["head.fc.bias", { shape: [5], data: [1, 2, 3, 4, 5] }]]));
    expect([...network.parameters.get("head.fc.bias")!.data]).to.deep.equal([1, 2, 3, 4, 5]);
    expect(network.parameters.get("head.fc.weight")!.data).to.deep.equal(parameters.get("head.fc.weight")!.data);
  });

  it("is known by a hash of all names and values", () => {
    const hash = createHash("sha256");
    for (const name of [...network.parameters.keys()].sort()) {
      const values = Float32Array.from(network.parameters.get(name)!.data);
      hash.update(name).update(Buffer.from(values.buffer));
    }
    expect(network.weightsSha256()).to.equal(hash.digest("hex"));
  });

  it("brings every parameter to the device and back unchanged", async () => {
    const before = new Map([...network.parameters].map(([name, { data }]) => [name, data.slice()]));
    const step = await network.prepareTraining({ batchSize: 2 });
    await step.run({ learningRate: 0, momentum: 0, weightDecay: 0, images: randomImages(spec, 2), labels: [0, 1] });
    await network.refreshParameters();
    for (const [name, { data }] of network.parameters)
      if (!name.includes("running_")) expect(data, name).to.deep.equal(before.get(name));
  });

  it("predicts any count of images, each as if it were alone, from bytes or numbers", async () => {
    network.preprocessing = { mean: Float32Array.from({ length: 192 }, (_, i) => i), scale: 1 / 100 };
    const { images } = randomSplit(spec, 131);
    const all = await network.predict(images);
    expect(all)
      .to.be.instanceOf(Float32Array)
      .with.length(131 * 5);
    for (let i = 0; i < 131; ++i) expect(all.subarray(5 * i, 5 * i + 5).reduce((a, b) => a + b)).to.be.closeTo(1, 1e-6);
    for (const i of [0, 127, 128, 130]) {
      const alone = await network.predict(images.subarray(192 * i, 192 * (i + 1)));
      expect(largestDifference(alone, all.subarray(5 * i, 5 * i + 5)), `image ${i}`).to.be.below(1e-6);
    }
    expect(largestDifference(await network.predict(pixelsOf(images)), all)).to.be.below(1e-4);
    expect(await network.predict(new Uint8Array(0))).to.have.length(0);
  });

  it("predicts image files, whatever their sizes and formats, and pixels among them", async () => {
    const sharp = loadSharp();
    const blue = { r: 0, g: 10, b: 200 };
    const whole = (width: number, height: number) => sharp({ create: { width, height, channels: 3, background: blue } });
    const pixels = Uint8Array.from({ length: 192 }, (_, i) => [blue.r, blue.g, blue.b][i % 3]!);
    // Its first bytes are those of a JPEG file.
    const alike = randomSplit(spec, 1).images;
    alike.set([0xff, 0xd8, 0xff]);
    const files = [await whole(50, 40).png().toBuffer(), pixels, await whole(8, 9).webp({ lossless: true }).toBuffer(), alike];
    const expected = await network.predict(Buffer.concat([pixels, pixels, pixels, alike]));
    expect(await network.predict(files)).to.deep.equal(expected);
    expect(await network.predict([])).to.have.length(0);

    const damaged = files[0]!.subarray(0, 60);
    expect(await rejection(network.predict([pixels, damaged]), "ERR_INVALID_DATA")).to.match(/^images\[1\]: .*damaged/);
    const short = new Uint8Array(191);
    expect(await rejection(network.predict([short]), "ERR_INVALID_DATA")).to.match(/expected 8 x 8 x 3 = 192 bytes, .* got 191/);
    expect(await rejection(network.logits([pixels, 7] as never), "ERR_INVALID_ARGUMENT")).to.match(
      /^images\[1\]: expected a Uint8Array/,
    );
  });

  it("evaluates by what it predicts, whatever the size of the batch", async () => {
    const split = randomSplit(spec, 23);
    const probabilities = await network.predict(split.images);
    const rows = Array.from(split.labels, (label, i) => ({ label, row: probabilities.subarray(5 * i, 5 * i + 5) }));
    const loss = rows.reduce((sum, { label, row }) => sum - Math.log(row[label]!), 0) / 23;
    const confusion = Array.from({ length: 5 }, () => Array(5).fill(0));
    for (const { label, row } of rows) confusion[label]![row.indexOf(Math.max(...row))] += 1;
    const correct = confusion.reduce((sum, row, i) => sum + row[i], 0);
    for (const batchSize of [1, 4, 23, 100]) {
      const result = await network.evaluate(split, { batchSize });
      expect(result.loss).to.be.closeTo(loss, 1e-5);
      expect(result.error).to.be.closeTo(1 - correct / 23, 1e-12);
      expect(result.confusion).to.deep.equal(confusion);
      expect(result.top5Error).to.equal(null);
      expect(result.classScores.map(({ images }) => images)).to.deep.equal(confusion.map((row) => row.reduce((a, b) => a + b)));
      expect(result.calibration.reduce((sum, { images }) => sum + images, 0)).to.equal(23);
      expect(result.calibrationError).to.be.within(0, 1);
    }
    const dataset = { name: "d", shape: [8, 8, 3] as const, classes: [], train: randomSplit(spec, 1), test: split };
    expect((await network.evaluate(dataset)).loss).to.be.closeTo(loss, 1e-5);
  });

  it("stops an evaluation by its signal", async () => {
    expect(await rejection(network.evaluate(randomSplit(spec, 4), { signal: AbortSignal.abort() }), "ERR_ABORTED")).to.match(
      /aborted/,
    );
  });

  it("trains on a data set as on the same images given one by one", async () => {
    const split = randomSplit(spec, 9);
    network.preprocessing = { mean: new Float32Array(192).fill(128), scale: 1 / 256 };
    const other = roughNetwork(spec, options);
    const settings = { learningRate: 0.1, momentum: 0.9, weightDecay: 1e-3 };
    const indices = Int32Array.of(8, 0, 3, 3);
    const one = await network.prepareTraining({ batchSize: 4, data: split });
    const two = await other.prepareTraining({ batchSize: 4 });
    const normalized = Float64Array.from(
      [...indices].flatMap((i) => [...split.images.subarray(192 * i, 192 * (i + 1))].map((pixel) => (pixel - 128) / 256)),
    );
    for (let step = 0; step < 3; ++step) {
      const a = await one.run({ ...settings, step, indices });
      const b = await two.run({ ...settings, images: normalized, labels: Array.from(indices, (i) => split.labels[i]!) });
      expect(a).to.deep.equal(b);
    }
    await Promise.all([network.refreshParameters(), other.refreshParameters()]);
    expect(network.weightsSha256()).to.equal(other.weightsSha256());
    other.dispose();
  });

  it("trains on bytes that come with each step as on a data set", async () => {
    const split = randomSplit(spec, 9);
    const other = roughNetwork(spec, options);
    const settings = { learningRate: 0.1, momentum: 0.9, weightDecay: 1e-3, seed: 4 };
    const indices = Int32Array.of(8, 0, 3, 5);
    const one = await network.prepareTraining({ batchSize: 4, data: split });
    const two = await other.prepareTraining({ batchSize: 4, bytes: true });
    const images = Uint8Array.from([...indices].flatMap((i) => [...split.images.subarray(192 * i, 192 * (i + 1))]));
    for (let step = 0; step < 3; ++step) {
      const a = await one.run({ ...settings, step, indices });
      const b = await two.run({ ...settings, step, images, labels: Array.from(indices, (i) => split.labels[i]!) });
      expect(a).to.deep.equal(b);
    }
    await Promise.all([network.refreshParameters(), other.refreshParameters()]);
    expect(network.weightsSha256()).to.equal(other.weightsSha256());
    other.dispose();
  });

  it("keeps a data set on the device once", async () => {
    const split = randomSplit(spec, 64);
    const first = await network.prepareTraining({ batchSize: 4, data: split });
    const { data } = network.memory();
    await network.prepareTraining({ batchSize: 8, data: split, flip: true });
    expect(network.memory().data).to.equal(data);
    expect(first.batchSize).to.equal(4);
  });

  it("says that its parameters are stale while training has changed them", async () => {
    const step = await network.prepareTraining({ batchSize: 2 });
    await step.run({ learningRate: 0.1, momentum: 0, weightDecay: 0, images: randomImages(spec, 2), labels: [0, 1] });
    thrown("ERR_STALE", () => network.parameters);
    thrown("ERR_STALE", () => network.weightsSha256());
    thrown("ERR_STALE", () => network.setParameters({}));
    await network.refreshParameters();
    expect(network.parameters.size).to.be.greaterThan(0);
  });

  it("saves and loads what it is", async () => {
    network.preprocessing = { mean: Float32Array.from({ length: 192 }, (_, i) => i / 3), scale: 1 / 255 };
    await network.save(file("model.safetensors"));
    const { images } = randomSplit(spec, 3);
    const loaded = await loadNetwork(file("model.safetensors"), options);
    expect(loaded.spec).to.deep.equal(spec);
    expect(loaded.weightsSha256()).to.equal(network.weightsSha256());
    expect(loaded.preprocessing).to.deep.equal(network.preprocessing);
    expect(await loaded.predict(images)).to.deep.equal(await network.predict(images));
    loaded.dispose();
    expect(fs.readdirSync(folder)).to.deep.equal(["model.safetensors"]);
  });

  it("saves the newest parameters even while training has changed them", async () => {
    const step = await network.prepareTraining({ batchSize: 2 });
    await step.run({ learningRate: 0.1, momentum: 0, weightDecay: 0, images: randomImages(spec, 2), labels: [0, 1] });
    await network.save(file("model.safetensors"));
    const loaded = await loadNetwork(file("model.safetensors"), options);
    expect(loaded.weightsSha256()).to.equal(network.weightsSha256());
    loaded.dispose();
  });

  it("loads a state_dict of PyTorch, without a spec and with num_batches_tracked", async () => {
    const tensors = new Map<string, { shape: readonly number[]; data: Float32Array | Float64Array | BigInt64Array }>(
      network.parameters,
    );
    tensors.set("stem.bn.num_batches_tracked", { shape: [], data: new BigInt64Array(1) });
    await writeSafetensors(file("torch.safetensors"), tensors);
    const message = await rejection(loadNetwork(file("torch.safetensors"), options), "ERR_INVALID_FILE");
    expect(message).to.match(/no 'spec' in its metadata/);
    const loaded = await loadNetwork(file("torch.safetensors"), { ...options, spec });
    expect(loaded.weightsSha256()).to.equal(network.weightsSha256());
    loaded.dispose();
  });

  it("compares shapes before it allocates what a file says of its network", async () => {
    const { Session } = native;
    Object.assign(native, {
      Session: class {
        constructor() {
          throw new Error("a session was made");
        }
      },
    });
    try {
      const huge = { ...spec, name: "huge", bottleneck: false, filters: [8192, 8192], units: [1], strides: [1] };
      await writeSafetensors(file("huge"), new Map(network.parameters), { spec: JSON.stringify(huge) });
      expect(await rejection(loadNetwork(file("huge"), options), "ERR_INVALID_FILE")).to.include("does not fit huge");
    } finally {
      Object.assign(native, { Session });
    }
  });

  it("refuses files that do not fit, and says what does not", async () => {
    const load = (
      tensors: Map<string, { shape: readonly number[]; data: Float32Array | Float64Array }>,
      metadata: Record<string, string>,
    ) => writeSafetensors(file("m"), tensors, metadata).then(() => rejection(loadNetwork(file("m"), options), "ERR_INVALID_FILE"));
    const metadata = { spec: JSON.stringify(spec) };
    const changed = (change: (tensors: Map<string, { shape: readonly number[]; data: Float32Array | Float64Array }>) => void) => {
      const tensors = new Map<string, { shape: readonly number[]; data: Float32Array | Float64Array }>(network.parameters);
      change(tensors);
      return tensors;
    };
    expect(
      await load(
        changed((t) => t.delete("head.fc.bias")),
        metadata,
      ),
    ).to.match(/parameter 'head.fc.bias' is missing/);
    expect(
      await load(
        changed((t) => t.set("head.fc.bia", t.get("head.fc.bias")!)),
        metadata,
      ),
    ).to.match(/unknown parameter 'head.fc.bia'; did you mean 'head.fc.bias'/);
    expect(
      await load(
        changed((t) => t.set("head.fc.bias", { shape: [1, 5], data: new Float32Array(5) })),
        metadata,
      ),
    ).to.match(/expected shape \[5\], got \[1,5\]/);
    expect(
      await load(
        changed(() => {}),
        { spec: "{" },
      ),
    ).to.match(/not JSON/);
    expect(
      await load(
        changed(() => {}),
        { ...metadata, preprocessing: "[1]" },
      ),
    ).to.match(/mean/);
    await writeSafetensors(
      file("m"),
      changed(() => {}),
      { spec: JSON.stringify({ ...spec, classes: 0 }) },
    );
    await rejection(loadNetwork(file("m"), options), "ERR_INVALID_SPEC");
    await rejection(loadNetwork(file("none"), options), "ERR_FILE");
    await rejection(loadNetwork(folder, options), "ERR_FILE");
    await rejection(network.save(file("no/such/folder")), "ERR_FILE");
  });

  it("takes arrays and Maps of another realm, and labels of any integer type", async () => {
    const foreign = (source: string) => vm.runInNewContext(source);
    const { shape, data } = network.parameters.get("head.fc.bias")!;
    const before = network.weightsSha256();
    network.setParameters(foreign(`new Map([["head.fc.bias", { shape: [${shape}], data: new Float32Array([${data}]) }]])`));
    expect(network.weightsSha256()).to.equal(before);
    const images = randomImages(network.spec, 2);
    const expected = await network.lossAndGradients(images, [1, 4]);
    const lists = ["Int8", "Uint8", "Uint8Clamped", "Int16", "Uint16", "Int32", "Uint32"].map((type) => `new ${type}Array([1, 4])`);
    for (const list of [...lists, "new BigInt64Array([1n, 4n])", "new BigUint64Array([1n, 4n])", "[1, 4]"])
      expect((await network.lossAndGradients(images, foreign(list))).loss, list).to.equal(expected.loss);
    for (const list of [
      "new Uint8Array([1, 5])",
      "new BigInt64Array([1n, -1n])",
      "new Float32Array([1, 4])",
      "new DataView(new ArrayBuffer(2))",
    ])
      await rejection(network.lossAndGradients(images, foreign(list)), "ERR_INVALID_ARGUMENT");
  });

  it("refuses parameters of other names, shapes or kinds, and then changes nothing", () => {
    const before = network.weightsSha256();
    const good = { shape: [5], data: new Float32Array(5) };
    const refused = (value: unknown) => thrown("ERR_INVALID_ARGUMENT", () => network.setParameters(value as never));
    expect(refused({ "head.fc.bias": good, "head.fc.weigth": good })).to.match(/did you mean 'head.fc.weight'/);
    for (const value of [undefined, null, 3, { "head.fc.bias": null }, { "head.fc.bias": { data: good.data } }]) refused(value);
    refused({ "head.fc.bias": { shape: [5], data: new Float32Array(4) } });
    refused({ "head.fc.bias": { shape: [5], data: [1, 2, 3, 4, "5"] } });
    refused({ "head.fc.bias": { shape: [5], data: { length: 5 } } });
    for (const value of [Number.NaN, Infinity, -Infinity, 1e39])
      expect(refused({ "head.fc.bias": { shape: [5], data: [0, 0, value, 0, 0] } })).to.match(/'head\.fc\.bias'.* at index 2/);
    const [name, { shape, data }] = [...network.parameters].find(([name]) => name.endsWith(".running_var"))!;
    expect(refused({ [name]: { shape, data: data.map(() => -1) } }))
      .to.include(name)
      .and.match(/variance/);
    expect(network.weightsSha256()).to.equal(before);
  });

  it("refuses images, labels and settings that make no sense", async () => {
    const code = "ERR_INVALID_ARGUMENT";
    const images = randomImages(spec, 2);
    await rejection(network.predict(new Uint8Array(191)), code);
    await rejection(network.predict([1, 2, 3] as never), code);
    await rejection(network.lossAndGradients(new Float32Array(0), []), code);
    await rejection(network.lossAndGradients(images, [0]), code);
    expect(await rejection(network.lossAndGradients(images, [0, 5]), code)).to.match(
      /labels\[1\]: expected a class from 0 to 4, got 5/,
    );
    expect(await rejection(network.lossAndGradients(images, [0, 1], { activations: "store" as never }), code)).to.match(
      /did you mean 'stored'/,
    );
    await rejection(network.evaluate({ count: 3, images: new Uint8Array(192), labels: new Int32Array(1) }), code);
    await rejection(network.evaluate(null as never), code);
    await rejection(network.lossAndGradients(new Uint8Array(192) as never, [0]), code);
    await rejection(network.lossAndGradients(images, [0, 1], null as never), code);
    await rejection(network.prepareTraining({ batchSize: 2, data: null as never }), code);
    const message = await rejection(network.prepareTraining({ batchsize: 2 } as never), code);
    expect(message).to.match(/unknown option 'batchsize'; did you mean 'batchSize'\?/);
    await rejection(network.evaluate(randomSplit(spec, 2), { batchSize: 0 }), code);
    await rejection(network.evaluate(randomSplit(spec, 2), { batch: 2 } as never), code);
    await rejection(network.prepareTraining({ batchSize: 2.5 }), code);
    await rejection(network.prepareTraining({ batchSize: 2, data: randomSplit(spec, 2), padding: -1 }), code);
    const step = await network.prepareTraining({ batchSize: 2, data: randomSplit(spec, 2) });
    const settings = { learningRate: 0.1, momentum: 0.9, weightDecay: 0 };
    await rejection(step.run(undefined as never), code);
    await rejection(step.run({ ...settings, indices: new Int32Array(3) }), code);
    await rejection(step.run({ ...settings, learningRate: NaN, indices: new Int32Array(2) }), code);
    await rejection(step.run({ ...settings, seed: -1, indices: new Int32Array(2) }), code);
    thrown(code, () => {
      network.preprocessing = { mean: new Float32Array(3), scale: 1 };
    });
    await network.refreshParameters();
    expect(network.parameters.size).to.be.greaterThan(0);
  });

  it("rejects with ERR_DISPOSED what is called after dispose, and what is under way", async () => {
    const images = randomImages(spec, 64);
    const labels = new Int32Array(64);
    const underWay = Array.from({ length: 5 }, () => network.lossAndGradients(images, labels));
    const outcomes = Promise.allSettled(underWay);
    network.dispose();
    network.dispose();
    for (const outcome of await outcomes)
      if (outcome.status === "rejected") expect(outcome.reason).to.have.property("code", "ERR_DISPOSED");
    await rejection(network.predict(new Uint8Array(192)), "ERR_DISPOSED");
  });

  it("has values that depend on the seed alone", () => {
    const values = (change: NetworkOptions) => {
      const fresh = createNetwork(spec, { ...options, ...change });
      const hash = fresh.weightsSha256();
      fresh.dispose();
      return hash;
    };
    expect(values({ seed: 5 })).to.equal(values({ seed: 5n, device: "reference", streams: "float32" }));
    expect(values({ seed: 5 })).not.to.equal(values({ seed: 6 }));
    expect(values({ seed: 1n << 63n })).not.to.equal(values({ seed: 0 }));
  });

  it("says where it is", () => {
    expect(options.device).to.equal(network.device);
    expect(network.deviceChoice).to.match(/as asked for/);
    expect(network.description).to.be.a("string").with.length.above(0);
    const automatic = createNetwork(spec);
    expect(automatic.deviceChoice).to.match(/chosen since/);
    automatic[Symbol.dispose]();
  });
});

describe("initial values", () => {
  it("are truncated normals, uniforms, zeros and ones", () => {
    const network = createNetwork("revnet-38", { device: "reference" });
    for (const [name, { shape, data }] of network.parameters) {
      const values = Array.from(data);
      const mean = values.reduce((a, b) => a + b, 0) / values.length;
      const deviation = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length);
      const error = 5 / Math.sqrt(values.length);
      if (shape.length === 4) {
        // Cut at two sigma, a normal keeps 0.8796 of its standard deviation.
        const std = Math.sqrt(2 / (shape[2]! * shape[3]! * shape[0]!));
        expect(Math.max(...values.map(Math.abs)), name).to.be.within(1.8 * std, 2 * std);
        expect(Math.abs(mean), name).to.be.below(error * std);
        expect(deviation / (0.8796 * std), name).to.be.closeTo(1, error);
      } else if (shape.length === 2) {
        const limit = Math.sqrt(3 / shape[1]!);
        expect(Math.max(...values.map(Math.abs))).to.be.within(0.98 * limit, limit);
        expect(deviation).to.be.closeTo(1 / Math.sqrt(shape[1]!), error);
      } else {
        const one = name.endsWith("running_var") || (name.endsWith("weight") && name.includes(".bn"));
        expect(new Set(values), name).to.deep.equal(new Set([one ? 1 : 0]));
      }
    }
    network.dispose();
  });

  it("are different in every tensor", () => {
    const network = createNetwork("revnet-38", { device: "reference" });
    const firsts = [...network.parameters.values()]
      .filter(({ shape }) => shape.length > 1)
      .map(({ shape, data }) => data[0]! * Math.sqrt(shape[0]!));
    expect(new Set(firsts).size).to.equal(firsts.length);
    network.dispose();
  });
});

describe("createNetwork and memoryPlan", () => {
  const code = "ERR_INVALID_ARGUMENT";

  it("refuse devices, threads, seeds and streams that there are not", () => {
    expect(thrown(code, () => createNetwork(spec, { device: "cpuu" }))).to.match(/did you mean 'cpu'/);
    thrown(code, () => createNetwork(spec, { device: 3 as never }));
    thrown(code, () => createNetwork(spec, { device: "reference", threads: 0 }));
    thrown(code, () => createNetwork(spec, { device: "reference", seed: 0.5 }));
    thrown(code, () => createNetwork(spec, { device: "reference", seed: 1n << 64n }));
    expect(thrown(code, () => createNetwork(spec, { device: "reference", streams: "fixd" as never }))).to.match(
      /did you mean 'fixed'/,
    );
    expect(thrown(code, () => createNetwork(spec, { devise: "cpu" } as never))).to.match(
      /unknown option 'devise'; did you mean 'device'/,
    );
    thrown(code, () => createNetwork(spec, null as never));
    thrown(code, () => memoryPlan(spec, undefined as never));
    thrown("ERR_UNKNOWN_MODEL", () => createNetwork("revnet-39"));
    thrown(code, () => memoryPlan(spec, { device: "reference", batchSize: 0 }));
    thrown(code, () => memoryPlan(spec, { device: "reference", batchSize: 4, activations: "none" as never }));
  });

  it("refuse to invert what has no reversible block", async () => {
    for (const irreversible of [TINY.resnet!, { ...spec, units: [1, 1] }]) {
      const network = createNetwork(irreversible, { device: "reference" });
      await rejection(network.reconstruct(new Uint8Array(192)), "ERR_NOT_REVERSIBLE");
      network.dispose();
    }
  });

  it("refuse to train a norm on one value per channel", async () => {
    const network = createNetwork({ ...spec, input: [2, 2, 3] }, { device: "reference" });
    expect(await rejection(network.prepareTraining({ batchSize: 1 }), code)).to.match(/one value per channel/);
    await network.prepareTraining({ batchSize: 2 });
    network.dispose();
  });

  it("plan ImageNet networks without allocating them", () => {
    const plan = memoryPlan("revnet-104", { device: "reference", batchSize: 256 });
    expect(plan.activations).to.be.greaterThan(2 ** 33);
    expect(plan.gradients).to.be.within(8 * 45_428_072, 8.1 * 45_428_072);
  });
});

describe("a saved model", () => {
  it("is safetensors with the spec in its metadata", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-saved-"));
    const file = path.join(folder, "m.safetensors");
    const network = createNetwork("revnet-38", { device: "reference" });
    await network.save(file);
    const { metadata, tensors } = await readSafetensors(file);
    expect(JSON.parse(metadata.get("spec")!)).to.deep.equal(network.spec);
    expect([...tensors.keys()]).to.deep.equal([...network.parameters.keys()]);
    network.dispose();
    fs.rmSync(folder, { recursive: true });
  });

  it("is refused where a value is NaN, which fixed-point streams would hide", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-nan-"));
    const file = path.join(folder, "m.safetensors");
    const network = createNetwork("revnet-38", { device: "cpu" });
    // What is saved is this copy; setParameters would refuse the value.
    network.parameters.get("head.fc.bias")!.data[3] = Number.NaN;
    await network.save(file);
    network.dispose();
    expect(await rejection(loadNetwork(file, { device: "cpu" }), "ERR_INVALID_FILE")).to.match(
      /'head\.fc\.bias' has values that are NaN/,
    );
    fs.rmSync(folder, { recursive: true });
  });
});

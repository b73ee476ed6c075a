/** Ops without a derivative, against values worked out by hand or from their definition. */
import { expect } from "chai";
import type { ElementType, Values } from "../../binding.js";
import { native } from "../../lib/native/index.js";
import { optimizerKind } from "../../lib/optimizers/index.js";
import { Device, initialValues, type Named } from "../../lib/verify/device.js";
import type { Step, Tensor } from "../../lib/verify/problem.js";
import { Random } from "../../lib/verify/random.js";

/** A tensor with these values, or, where only their number is given, one that an op writes. */
const tensor =
  (type: ElementType, toValues: (values: Iterable<number>) => Values) =>
  (given: number | Iterable<number>): Tensor => {
    if (typeof given === "number") return { type, elements: given };
    const values = toValues(given);
    return { type, elements: values.length, values };
  };
const toFloat64 = (values: Iterable<number>): Values => Float64Array.from(values);
const [real, fixed] = [tensor("real", toFloat64), tensor("fixed", toFloat64)];
const index = tensor("index", (values) => Int32Array.from(values));
const byte = tensor("byte", (values) => Uint8Array.from(values));

function updatesSuite(name: string): void {
  let device: Device;
  /** Of values near 1. */
  let tolerance: number;
  before(() => {
    device = new Device({ device: name });
    tolerance = device.session.elementBytes("real") === 8 ? 1e-15 : 2e-7;
  });
  after(() => device.dispose());
  const run = (steps: Step[], tensors: Record<string, Tensor>): Promise<Named> => {
    const table = new Map(Object.entries(tensors));
    return device.run(table, steps, initialValues(table));
  };
  const expectClose = (actual: Values | undefined, expected: number[]): void => {
    expect(actual).to.have.length(expected.length);
    for (const [i, value] of expected.entries())
      expect(actual![i]).to.be.closeTo(value, tolerance * Math.max(1, Math.abs(value)), `element ${i}`);
  };

  it("sgdUpdate: three steps by hand, the first element decayed, the second not", async () => {
    const step = { op: "sgdUpdate", elements: 2, decayed: 1, parameters: "p", gradients: "g", momenta: "m", hyperparameters: "h" };
    let [p, m]: Iterable<number>[] = [
      [1, 1],
      [0, 0],
    ];
    // learning rate 1/2, momentum 1/2, weight decay 1/4; gradients 1, then 0, then -2: all exact in binary.
    const expected = [
      { gradient: 1, p: [0.375, 0.5], m: [1.25, 1] },
      { gradient: 0, p: [0.015625, 0.25], m: [0.71875, 0.5] }, // m = 0.625 + 0.25 * 0.375
      { gradient: -2, p: [0.833984375, 1.125], m: [-1.63671875, -1.75] }, // m = 0.359375 - 2 + 0.25 * 0.015625
    ];
    for (const { gradient, ...after } of expected) {
      const result = await run([step], { p: real(p!), m: real(m!), g: real([gradient, gradient]), h: real([0.5, 0.5, 0.25, 0]) });
      [p, m] = [result.get("p")!, result.get("m")!];
      expect([...p]).to.deep.equal(after.p);
      expect([...m]).to.deep.equal(after.m);
    }
  });

  const GRADIENTS = [
    [0.5, -1, 2, 0],
    [0.25, 0.75, -1.5, 1],
    [-1, 0.5, 0.125, -0.25],
    [0, 1, 3, 0.5],
  ];
  /** What PyTorch 2.13 has after these gradients, in float64, from 1, -0.5 (with weight decay), 0.25, 2. */
  const AFTER = [
    {
      type: "sgd",
      settings: { learningRate: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.01 },
      parameters: [0.9690756108163371, -0.6689460528505762, -0.6570450000000001, 1.62885],
      state: [[-0.30165302592808996, 1.314514766608295, 3.3555, 1.085]],
    },
    {
      type: "adamw",
      settings: { learningRate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1 },
      parameters: [0.9804846621721697, -0.4934799897283057, 0.2331043376733593, 1.9830204291972446],
      state: [
        [-0.0333, 0.13284999999999997, 0.33554999999999996, 0.10849999999999999],
        [0.0013106258122500011, 0.0028081285615000028, 0.015249123621000015, 0.0013104385000000012],
      ],
    },
  ] as const;
  for (const { type, settings, parameters, state } of AFTER)
    it(`${type} with ${Object.keys(settings).join(", ")}: four steps as PyTorch makes them`, async () => {
      const kind = optimizerKind(type);
      const buffers = new Map<string, Iterable<number>>([
        ["p", [1, -0.5, 0.25, 2]],
        ...kind.state.map((name) => [name, [0, 0, 0, 0]] as const),
      ]);
      const operands = { elements: 4, decayed: 2, parameters: "p", gradients: "g", hyperparameters: "h", notFinite: "flag" };
      const step = kind.update(operands as never, kind.state as never) as unknown as Step;
      for (const [done, gradients] of GRADIENTS.entries()) {
        const given = Object.fromEntries([...buffers].map(([name, values]) => [name, real(values)]));
        const result = await run([step], { ...given, g: real(gradients), h: real(kind.values(settings, done)), flag: index([0]) });
        for (const name of buffers.keys()) buffers.set(name, result.get(name)! as Iterable<number>);
      }
      expectClose(buffers.get("p") as Values, [...parameters]);
      for (const [i, name] of kind.state.entries()) expectClose(buffers.get(name) as Values, [...state[i]!]);
    });

  it("clipGradientNorm: as PyTorch's clip_grad_norm_, and nothing where the norm is small enough", async () => {
    const clip = async (maxNorm: number, gradients: ArrayLike<number>) => {
      const step = { op: "clipGradientNorm", elements: gradients.length, maxNorm, gradients: "g", norm: "n" };
      const result = await run([step], { g: real(Array.from(gradients)), n: real(1) });
      return { norm: result.get("n")![0]!, gradients: result.get("g")! };
    };
    const clipped = await clip(1, GRADIENTS[3]!);
    expectClose(Float64Array.of(clipped.norm), [3.2015621187164243]);
    expectClose(clipped.gradients, [0, 0.312347426216267, 0.937042278648801, 0.1561737131081335]);
    expect([...(await clip(4, GRADIENTS[3]!)).gradients]).to.deep.equal(GRADIENTS[3]);
    expect([...(await clip(1, [0, 0])).gradients]).to.deep.equal([0, 0]);
    // More than a slice, a block and the blocks of a pass take: 3, 4, 3, 4, ... and squares beyond float32.
    const many = Float64Array.from({ length: 1_100_003 }, (_, i) => 3 + (i % 2));
    const norm = Math.sqrt(many.reduce((sum, g) => sum + g * g, 0));
    expect((await clip(1, many)).norm / norm).to.be.closeTo(1, 1e-6);
    const large = await clip(2, new Float64Array(20_003).fill(2 ** 100));
    expect(large.norm / (2 ** 100 * Math.sqrt(20_003))).to.be.closeTo(1, 1e-6);
    expect(large.gradients.at(-1)! * Math.sqrt(20_003)).to.be.closeTo(2, 1e-5);
    // What is not finite is not hidden.
    for (const wrong of [Number.NaN, Infinity]) expect((await clip(1, [1, wrong])).gradients[1]).to.be.NaN;
  });

  it("adamwUpdate flags what is not finite", async () => {
    const elements = 20_003;
    const flagged = async (wrong: number, at: number) => {
      const gradients = new Float64Array(elements).fill(1);
      const parameters = new Float64Array(elements).fill(1);
      parameters[at] = wrong;
      const zeros = () => real(new Float64Array(elements));
      const operands = { parameters: "p", gradients: "g", mean: "m", square: "s", hyperparameters: "h", notFinite: "flag" };
      const result = await run([{ op: "adamwUpdate", elements, decayed: 2, ...operands }], {
        ...{ p: real(parameters), g: real(gradients), m: zeros(), s: zeros(), flag: index([0]) },
        h: real(optimizerKind("adamw").values({ learningRate: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 }, 0)),
      });
      return result.get("flag")![0];
    };
    expect(await flagged(1, 0)).to.equal(0);
    for (const at of [0, elements - 1]) expect([await flagged(Number.NaN, at), await flagged(1e30, at)]).to.deep.equal([1, 1]);
  });

  it("updateRunningStatistics: PyTorch's rule, with the unbiased variance", async () => {
    const step = { op: "updateRunningStatistics", c: 2, count: 5, momentum: 0.25, statistics: "statistics", running: "running" };
    const tensors = { statistics: real([2, -4, 8, 0.8]), running: real([0, 1, 1, 2]) };
    // variances times 5 / 4: 10 and 1
    expectClose((await run([step], tensors)).get("running"), [0.5, -0.25, 3.25, 1.75]);
    // One value has no unbiased variance.
    const single = await run([{ ...step, count: 1 }], tensors);
    expectClose(single.get("running"), [0.5, -0.25, 2.75, 1.7]);
    // One after the other, also where a backend does several at once: the second one's statistics are what the first one writes.
    const second = { ...step, momentum: 0.5, statistics: "running", running: "average" };
    const chained = await run([step, second], { ...tensors, average: real([0, 0, 1, 1]) });
    expectClose(chained.get("average"), [0.25, -0.125, 2.53125, 1.59375]);
  });

  it("sgdUpdate, updateRunningStatistics and gatherBatch flag what is not finite, and nothing else", async () => {
    const [operands, flag] = [{ parameters: "p", gradients: "g", momenta: "m", hyperparameters: "h" }, { notFinite: "flag" }];
    // More than a thread, a vector or a slice takes, the wrong element in the last one of each.
    const elements = 20_003;
    const sgd = async (wrong: number, at: number, decayed: number, before = 0) => {
      const gradients = new Float64Array(elements).fill(1);
      gradients[at] = wrong;
      const result = await run([{ op: "sgdUpdate", elements, decayed, ...operands, ...flag }], {
        p: real(new Float64Array(elements).fill(1)),
        m: real(new Float64Array(elements)),
        g: real(gradients),
        h: real([0.5, 0.5, 0.25, 0]),
        flag: index([before]),
      });
      return result.get("flag")![0];
    };
    const update = { op: "updateRunningStatistics", c: 3, count: 5, momentum: 0.25, statistics: "s", running: "r", ...flag };
    const statistics = async (s: number[], r: number[]) =>
      (await run([update], { s: real(s), r: real(r), flag: index([0]) })).get("flag")![0];
    const gather = async (scale: number, mean: number) => {
      const [n, h, w, c] = [2, 3, 3, 3];
      const step = { op: "gatherBatch", n, h, w, c, count: n, padding: 0, flip: false, scale, ...flag };
      const result = await run(
        [{ ...step, images: "i", labels: "l", indices: "x", mean: "mean", counter: "k", y: "y", yLabels: "yl" }],
        {
          ...{ i: byte(new Uint8Array(n * h * w * c).fill(7)), l: index([0, 1]), x: index([1, 0]), k: index([0, 0, 0, 0]) },
          ...{ mean: real([...new Array(h * w * c - 1).fill(1), mean]), y: real(n * h * w * c), yl: index(n), flag: index([0]) },
        },
      );
      return result.get("flag")![0];
    };
    const good = [1, 2, 3, 4, 5, 6];
    expect([await sgd(1, 0, elements), await statistics(good, good), await gather(1, 1)]).to.deep.equal([0, 0, 0]);
    expect(await sgd(1, 0, elements, 1), "a flag that was set stays").to.equal(1);
    const limit = 2 ** 64;
    expect([await sgd(limit, 0, elements), await statistics(good.with(5, limit), good)], "at the limit").to.deep.equal([0, 0]);
    for (const wrong of [Number.NaN, Infinity, -Infinity, 1e30, -1e30]) {
      expect([await sgd(wrong, 0, elements), await sgd(wrong, elements - 1, 0)], `${wrong}`).to.deep.equal([1, 1]);
      for (const at of good.keys()) {
        expect(await statistics(good.with(at, wrong), good), `statistic ${at}: ${wrong}`).to.equal(1);
        expect(await statistics(good, good.with(at, wrong)), `running statistic ${at}: ${wrong}`).to.equal(1);
      }
      expect(await gather(1, wrong), `mean ${wrong}`).to.equal(1);
    }
  });

  it("copy and maximumDifference, on real and on fixed streams", async () => {
    for (const stream of [real, fixed]) {
      const steps = [
        { op: "copy", elements: 3, x: "a", y: "c" },
        { op: "maximumDifference", elements: 3, a: "a", b: "b", y: "y" },
        { op: "maximumDifference", elements: 3, a: "a", b: "c", y: "z" },
      ];
      const result = await run(steps, { a: stream([1, -2, 3]), b: stream([1.5, 2, 3]), c: stream(3), y: real(1), z: real(1) });
      expect([...result.get("c")!]).to.deep.equal([1, -2, 3]);
      expect([...result.get("y")!]).to.deep.equal([4]);
      expect([...result.get("z")!]).to.deep.equal([0]);
    }
  });

  it("the stem keeps NaN in real streams, and counts what leaves the range of fixed ones", async () => {
    const norm = { statistics: "statistics", gamma: "gamma", beta: "beta", epsilon: 0 };
    const [h, w] = [5, 5];
    const values = Array.from({ length: h * w }, (_, i) => (i === 12 ? Number.NaN : i === 0 ? 600 : i / h));
    const tensors = { x: real(values), statistics: real([0, 1]), gamma: real([1]), beta: real([0]) };
    const pool = { op: "maxPoolForward", n: 1, h, w, c: 1, ...norm, x: "x", y: ["y"], argmax: "argmax" };
    const pooled = await run([pool], { ...tensors, y: real(9), argmax: byte(9) });
    // Pixel (2, 2) is tap 4 of the window in the middle, and in no other.
    expect([...pooled.get("y")!].map(Number.isNaN)).to.deep.equal(Array.from({ length: 9 }, (_, i) => i === 4));
    expect(pooled.get("argmax")![4]).to.equal(4);
    const counted = { ...tensors, outOfRange: index([3]) };
    const poolCount = await run([{ ...pool, outOfRange: "outOfRange" }], { ...counted, y: fixed(9), argmax: byte(9) });
    expect(poolCount.get("outOfRange")![0]).to.equal(3 + 2); // NaN in one window, 600 in another
    const relu = { op: "batchNormReluForward", n: 1, h, w, c: 1, ...norm, x: "x", y: ["y"], outOfRange: "outOfRange" };
    const reluCount = await run([relu], { ...counted, y: fixed(h * w) });
    expect(reluCount.get("outOfRange")![0]).to.equal(3 + 2);
  });

  it("maximumDifference shows NaN", async () => {
    const step = { op: "maximumDifference", elements: 3, a: "a", b: "b", y: "y" };
    const result = await run([step], { a: real([1, Number.NaN, 3]), b: real([0, 0, 0]), y: real(1) });
    expect(result.get("y")![0]).to.be.NaN;
  });

  it("batchNormReluForward and the convolution's norm let NaN through: a network that diverged must not look alive", async () => {
    const norm = { statistics: "statistics", gamma: "gamma", beta: "beta", epsilon: 1e-3 };
    const convolution = { n: 1, h: 1, w: 3, c: 1, k: 1, kernel: 1, stride: 1 };
    const result = await run(
      [
        { op: "batchNormReluForward", n: 1, h: 1, w: 3, c: 1, ...norm, x: "x", y: ["y"] },
        { op: "convolutionForward", convolution, ...norm, x: "x", weight: "gamma", y: "z", yStatistics: "zStatistics" },
      ],
      {
        x: real([2, Number.NaN, -2]),
        statistics: real([0, 1 - 1e-3]),
        gamma: real([1]),
        beta: real([0]),
        y: real(3),
        z: real(3),
        zStatistics: real(2),
      },
    );
    for (const name of ["y", "z"]) {
      expectClose(
        result.get(name)!.filter((_, i) => i !== 1),
        [2, 0],
      );
      expect(result.get(name)![1], name).to.be.NaN;
    }
    expect(result.get("zStatistics")![0], "mean").to.be.NaN;
  });

  it("softmaxCrossEntropy: equal logits, one certain row, and no valid label at all", async () => {
    const [x, labels, loss, correct, dx] = ["x", "labels", "loss", "correct", "dx"];
    const step = { op: "softmaxCrossEntropy", n: 2, classes: 3, x, labels, loss, correct, dx };
    const softmax = (x: number[], labels: number[]): Promise<Named> =>
      run([step], { x: real(x), labels: index(labels), loss: real(1), correct: index(1), dx: real(6) });

    const equal = await softmax([0, 0, 0, 7, 7, 7], [0, 1]);
    expectClose(equal.get("loss"), [Math.log(3)]);
    expect([...equal.get("correct")!]).to.deep.equal([1]); // the first of equal logits is the answer
    expectClose(equal.get("dx"), [-1 / 3, 1 / 6, 1 / 6, 1 / 6, -1 / 3, 1 / 6]);

    const certain = await softmax([1000, 0, -1000, 5, 5, 5], [0, 3]);
    expectClose(certain.get("loss"), [0]);
    expectClose(certain.get("dx"), [0, 0, 0, 0, 0, 0]);

    const none = await softmax([1, 2, 3, 4, 5, 6], [-1, 3]);
    expect([none.get("loss")![0], none.get("correct")![0], ...none.get("dx")!]).to.deep.equal([0, 0, 0, 0, 0, 0, 0, 0]);
  });

  it("maxPoolBackward ignores taps that do not exist", async () => {
    const step = { op: "maxPoolBackward", n: 1, h: 1, w: 1, c: 1, dy: ["dy"], argmax: "argmax", dx: "dx" };
    for (const tap of [4, 0, 9, 255]) {
      const result = await run([step], { dy: real([2]), argmax: byte([tap]), dx: real(1) });
      expect([...result.get("dx")!], `tap ${tap}`).to.deep.equal([tap === 4 ? 2 : 0]);
    }
  });

  describe("gatherBatch", () => {
    const [count, n, h, w, c] = [5, 7, 4, 3, 2];
    const random = new Random(3);
    const images = Uint8Array.from({ length: count * h * w * c }, () => random.integer(256));
    const labels = Int32Array.from({ length: count }, (_, i) => 10 + i);
    const mean = Float64Array.from({ length: h * w * c }, () => random.integer(256));
    const indices = Int32Array.of(3, 0, -1, 3, 5, 4, 1);
    const named = {
      images: "images",
      labels: "labels",
      indices: "indices",
      mean: "mean",
      counter: "counter",
      y: "y",
      yLabels: "yLabels",
    };
    const gather = (padding: number, flip: boolean, scale: number, counter: number[]): Promise<Named> =>
      run([{ op: "gatherBatch", n, h, w, c, count, padding, flip, scale, ...named }], {
        images: byte(images),
        labels: index(labels),
        indices: index(indices),
        mean: real(mean),
        counter: index(counter),
        y: real(n * h * w * c),
        yLabels: index(n),
      });
    /** Shift and flip of sample i as documented: words 0 to 2 of the block at position i, key the seed, streams the step. */
    const expected = (
      padding: number,
      flip: boolean,
      scale: number,
      [seedLow, seedHigh, stepLow, stepHigh]: number[],
    ): number[] => {
      const draws = native.philox(
        (BigInt(seedHigh! >>> 0) << 32n) | BigInt(seedLow! >>> 0),
        stepLow! >>> 0,
        stepHigh! >>> 0,
        "augmentation",
        4 * n,
      );
      const result: number[] = [];
      for (let i = 0; i < n; ++i) {
        const shift = (word: number): number => Math.floor((draws[4 * i + word]! / 2 ** 32) * (2 * padding + 1)) - padding;
        const [down, right, mirrored] = [shift(0), shift(1), flip && draws[4 * i + 2]! % 2 === 1];
        for (let row = 0; row < h; ++row)
          for (let column = 0; column < w; ++column)
            for (let channel = 0; channel < c; ++channel) {
              const [r, s] = [row + down, (mirrored ? w - 1 - column : column) + right];
              const inside = indices[i]! >= 0 && indices[i]! < count && r >= 0 && r < h && s >= 0 && s < w;
              const from = (r * w + s) * c + channel;
              result.push(inside ? (images[indices[i]! * h * w * c + from]! - mean[from]!) * scale : 0);
            }
      }
      return result;
    };

    for (const { padding, flip, counter } of [
      { padding: 0, flip: false, counter: [1, 2, 3, 4] },
      { padding: 2, flip: true, counter: [0, 0, 0, 0] },
      { padding: 2, flip: true, counter: [-5, 9, 77, 0] },
      { padding: 1, flip: false, counter: [7, 7, 1, 1] },
    ])
      it(`padding ${padding}, ${flip ? "flip" : "no flip"}, counter ${counter}`, async () => {
        const result = await gather(padding, flip, 1 / 256, counter);
        expect([...result.get("y")!]).to.deep.equal(expected(padding, flip, 1 / 256, counter));
        expect([...result.get("yLabels")!]).to.deep.equal([13, 10, -1, 13, -1, 14, 11]);
      });

    it("draws other shifts at another step and with another seed", async () => {
      const first = (await gather(2, true, 1, [1, 0, 1, 0])).get("y");
      expect((await gather(2, true, 1, [1, 0, 2, 0])).get("y")).to.not.deep.equal(first);
      expect((await gather(2, true, 1, [2, 0, 1, 0])).get("y")).to.not.deep.equal(first);
    });
  });
}

describe("updates on the reference", () => updatesSuite("reference"));
for (const name of ["cpu", "cuda"]) {
  const device = native.devices().find((found) => found.name === name || found.name === `${name}:0`);
  if (device?.available) describe(`updates on the ${name}`, () => updatesSuite(name));
  else describe.skip(`updates on the ${name} (${device?.description ?? "not in this build"})`, () => it("is skipped", () => {}));
}

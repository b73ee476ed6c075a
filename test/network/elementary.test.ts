/** Elementary functions: close to the engine's, with bits that no engine and no C library decides, and the same ones in native code. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect } from "chai";
import { cosine, exponential, lengthOf, logarithm, sine } from "../../lib/elementary.js";
import { Device, initialValues } from "../../lib/verify/device.js";
import type { Tensor } from "../../lib/verify/problem.js";

const COUNT = 20_000;
/** From 0 to 1, from a sequence without a function of the engine in it. */
const spread = (i: number): number => ((i * 0.6180339887498949) % 1) + i / 2 ** 40;

const FUNCTIONS = {
  exponential: {
    own: exponential,
    engine: Math.exp,
    argument: (i: number) => (i % 3 === 0 ? 1500 * spread(i) - 750 : i % 3 === 1 ? -40 * spread(i) : (spread(i) - 0.5) / 8),
    bits: "5e039a9deec2c4ce74862e99ca4a4d5d2c35cc213dbb51012bdb86d87ea16d3a",
  },
  logarithm: {
    own: logarithm,
    engine: Math.log,
    argument: (i: number) => (i % 3 === 0 ? 1000 * spread(i) : i % 3 === 1 ? spread(i) : 1 + (spread(i) - 0.5) / 2 ** 18) + 1e-9,
    bits: "a99f7c35433bc179c2d720e8cdb775e2ece4bbb464a76816dff92c06fb44a1a1",
  },
  sine: {
    own: sine,
    engine: Math.sin,
    argument: (i: number) => (i % 2 === 0 ? 100 : 1e5) * (spread(i) - 0.5),
    bits: "33fdc96da891fb4b4c86567935fd71944a8e530fbdb5315bf3995e90277f3aca",
  },
  cosine: {
    own: cosine,
    engine: Math.cos,
    argument: (i: number) => (i % 2 === 0 ? 100 : 1e5) * (spread(i) - 0.5),
    bits: "f58efcf5d65fa7bb9453d39eaaf88051c9ed71e4eec1b2800bd3494283aed787",
  },
};

/** The number of float64 values from a to b. */
function distance(a: number, b: number): number {
  const bits = new BigInt64Array(Float64Array.of(a, b).buffer);
  return Math.abs(Number(bits[0]! - bits[1]!));
}

describe("elementary functions", () => {
  for (const [name, { own, engine, argument, bits }] of Object.entries(FUNCTIONS)) {
    const values = Float64Array.from({ length: COUNT }, (_, i) => own(argument(i)));

    it(`${name}: within two units in the last place of the engine's, most of them equal`, () => {
      let equal = 0;
      for (const [i, value] of values.entries()) {
        const apart = distance(value, engine(argument(i)));
        expect(apart, String(argument(i))).to.be.at.most(2);
        equal += Number(apart === 0);
      }
      expect(equal).to.be.above(0.9 * COUNT);
    });

    it(`${name}: known bits`, () => {
      expect(createHash("sha256").update(new Uint8Array(values.buffer)).digest("hex")).to.equal(bits);
    });
  }

  it("at the ends of their domains", () => {
    expect([exponential(0), exponential(Number.NEGATIVE_INFINITY), exponential(710), exponential(-746)]).to.deep.equal([
      1,
      0,
      Number.POSITIVE_INFINITY,
      0,
    ]);
    expect([logarithm(1), logarithm(Number.POSITIVE_INFINITY)]).to.deep.equal([0, Number.POSITIVE_INFINITY]);
    expect([sine(0), cosine(0), lengthOf(3, 4)]).to.deep.equal([0, 1, 5]);
    for (const value of [exponential(Number.NaN), logarithm(Number.NaN), sine(Number.NaN), sine(2 ** 21), cosine(2 ** 21)])
      expect(value).to.be.NaN;
  });

  it("in native code: the bits of softmax and cross-entropy in float64", async () => {
    const arguments_ = Array.from({ length: COUNT }, (_, i) => -(i % 2 === 0 ? 720 : 30) * spread(i));
    const tensors = new Map<string, Tensor>([
      ["x", { type: "real", elements: 2 * COUNT, values: Float64Array.from(arguments_.flatMap((x) => [0, x])) }],
      ["labels", { type: "index", elements: COUNT, values: new Int32Array(COUNT) }],
      ["loss", { type: "real", elements: 1 }],
      ["correct", { type: "index", elements: 1 }],
      ["dx", { type: "real", elements: 2 * COUNT }],
    ]);
    const step = {
      op: "softmaxCrossEntropy",
      n: COUNT,
      classes: 2,
      x: "x",
      labels: "labels",
      loss: "loss",
      correct: "correct",
      dx: "dx",
    };
    const device = new Device({ device: "reference" });
    const result = await device.run(tensors, [step], initialValues(tensors));
    device.dispose();
    let loss = 0;
    for (const x of arguments_) loss += logarithm(1 + exponential(x));
    expect(result.get("loss")![0]).to.equal(loss / COUNT);
    const probabilities = arguments_.map((x) => exponential(x) / (1 + exponential(x)) / COUNT);
    expect(Array.from({ length: COUNT }, (_, i) => result.get("dx")![2 * i + 1])).to.deep.equal(probabilities);
  });

  it("are used in place of the engine's, of whose last bits nothing is known", () => {
    const own = new Set(["elementary.ts"]);
    const lib = path.join(__dirname, "..", "..", "..", "lib");
    const uses = (readdirSync(lib, { recursive: true }) as string[])
      .filter((file) => /\.m?ts$/.test(file) && !own.has(file))
      .filter((file) =>
        /Math\.(exp|expm1|log|log10|log1p|pow|a?sinh?|a?cosh?|a?tanh?|atan2|cbrt|hypot)\b/.test(
          readFileSync(path.join(lib, file), "utf8"),
        ),
      );
    expect(uses).to.deep.equal([]);
  });
});

/** Every op of every case on a device against the float64 reference, and what must hold to the bit. lib/verify says what is compared, and how. */
import { expect } from "chai";
import type { DeviceOptions, Values } from "../../binding.js";
import { native } from "../../lib/native/index.js";
import type { Precision } from "../../lib/network/device.js";
import { Device, initialValues, tensorsOf } from "../../lib/verify/device.js";
import { draw, familiesOf, relativeError, roundingOf } from "../../lib/verify/expectation.js";
import { type Case, generate, title } from "../../lib/verify/families.js";
import { Problem } from "../../lib/verify/problem.js";
import { cases, largeCases, updateCases } from "./cases.js";

const bytes = ({ buffer, byteOffset, byteLength }: Values): Buffer => Buffer.from(buffer, byteOffset, byteLength);
const sameBits = (a: Values, b: Values): boolean => bytes(a).equals(bytes(b));

function backendSuite(options: Omit<DeviceOptions, "threads">, tested: readonly Case[] = [...cases, ...updateCases]): void {
  const precision = options.precision ?? "float32";
  let reference: Device;
  let device: Device;
  let worst = { error: 0, where: "" };
  before(() => {
    reference = new Device({ device: "reference" });
    device = new Device({ ...options, threads: 2 });
  });
  after(() => {
    reference.dispose();
    device.dispose();
    console.log(`      largest error ${worst.error.toFixed(2)} x tolerance: ${worst.where}`);
  });

  for (const of of tested) {
    it(title(of), async () => {
      const { problem, expected } = await draw(reference, of, roundingOf(device, precision));
      for (const each of expected) {
        const names = [...each.outputs.keys()];
        const actual = await device.program(problem.tensors, [each.step]).run(each.inputs, names);
        for (const name of names) {
          const error = relativeError(problem, each, name, actual.get(name)!);
          if (error > worst.error) worst = { error, where: `${each.step.op} ${name}, ${title(of)}` };
          expect(error, `${each.step.op}: ${name}, error in units of its tolerance`).to.be.below(1);
        }
      }
    });
  }

  threadsSuite(options, tested);
  fixedStreamsSuite(options);
}

/** A GPU has no number of threads to choose, but schedules that vary: twice is then enough. */
function threadsSuite(options: Omit<DeviceOptions, "threads">, tested: readonly Case[]): void {
  describe("bits do not depend on the number of threads", () => {
    const devices: Device[] = [];
    before(() => {
      for (const threads of options.device === "cuda" ? [1, 1] : [1, 2, 3]) devices.push(new Device({ ...options, threads }));
    });
    after(() => {
      for (const device of devices) device.dispose();
    });
    for (const of of tested) {
      it(title(of), async () => {
        const problem = generate(of);
        const steps = [...problem.forward, ...problem.backward];
        const names = [...new Set(steps.flatMap(tensorsOf))].filter((name) => !problem.scratch.has(name));
        const [first, ...others] = await Promise.all(
          devices.map((device) => device.program(problem.tensors, steps).run(initialValues(problem.tensors), names)),
        );
        for (const other of others)
          for (const name of names) expect(sameBits(other!.get(name)!, first!.get(name)!), name).to.equal(true);
      });
    }
  });
}

/** What must hold to the bit: a block's inverse, the rounding of sums, and the count of those that leave the range. */
function fixedStreamsSuite(options: Omit<DeviceOptions, "threads">): void {
  describe("fixed streams", () => {
    let device: Device;
    before(() => {
      device = new Device({ ...options, threads: 2 });
    });
    after(() => device.dispose());

    for (const of of cases.filter(({ family, stream }) => family === "reversible" && stream === "fixed")) {
      it(`reversibleForward, then its inverse: ${title(of)}`, async () => {
        const problem = generate(of);
        const initial = initialValues(problem.tensors);
        const block = problem.forward.at(-1)!;
        const { computeStatistics, statistics1, statistics2, outOfRange, ...rest } = block;
        const there = await device.run(problem.tensors, problem.forward, initial);
        const back = await device.run(problem.tensors, [...problem.forward, { ...rest, op: "reversibleInverse" }], initial);
        for (const stream of ["stream1", "stream2"]) {
          expect(sameBits(there.get(stream)!, initial.get(stream)!), "the forward pass keeps the stream").to.equal(false);
          expect(sameBits(back.get(stream)!, initial.get(stream)!), `${stream} comes back`).to.equal(true);
        }
      });
    }

    /** y = base + weight * x: a residual function of one 1x1 convolution. `count`: the out-of-range counter, which starts at 5. */
    const residual = async (base: number[], x: number[], weight: number): Promise<{ y: Values; count: number }> => {
      const elements = base.length;
      const problem = new Problem(0);
      const operands = {
        base: problem.input("base", "fixed", Float64Array.from(base)),
        x: problem.input("x", "fixed", Float64Array.from(x)),
        outOfRange: problem.input("count", "index", Int32Array.of(5)),
        y: problem.output("y", elements, "fixed"),
      };
      const convolution = { n: 1, h: 1, w: elements, c: 1, k: 1, kernel: 1, stride: 1 };
      const layer = { convolution, weight: problem.input("weight", "real", Float64Array.of(weight)) };
      const step = { op: "residualForward", function: [layer], computeStatistics: false, hidden: [], ...operands };
      const result = await device.run(problem.tensors, [step], initialValues(problem.tensors));
      return { y: result.get("y")!, count: result.get("count")![0]! };
    };

    it("count the elements whose sum leaves [-512, 512), on top of those counted before", async () => {
      const { y, count } = await residual([511, 511, -511, -511, 500, -500, 0, 0], [0.5, 1, -1, -1.5, 100, -100, 510, -510], 1);
      expect(count).to.equal(5 + 4);
      expect([y[0], y[2], y[6], y[7]], "those inside").to.deep.equal([511.5, -512, 510, -510]);
    });
    it("count what no fixed-point number can hold", async () => {
      expect((await residual([0, 0, 1], [1, -1, 0], 1e30)).count).to.equal(5 + 2);
      expect((await residual([0, 0], [1, -1], Number.POSITIVE_INFINITY)).count).to.equal(5 + 2);
      expect((await residual([0, 3], [1, 1], Number.NaN)).count).to.equal(5 + 2);
    });

    /** y1 = stream1 + f * stream2, y2 = stream2 + g * y1: a reversible block of two 1x1 convolutions. The counter starts at 5. */
    const reversible = async (stream1: number[], stream2: number[], f: number, g: number): Promise<number> => {
      const problem = new Problem(0);
      const convolution = { n: 1, h: 1, w: stream1.length, c: 1, k: 1, kernel: 1, stride: 1 };
      const layers = (name: string, weight: number) => [
        { convolution, weight: problem.input(name, "real", Float64Array.of(weight)) },
      ];
      const operands = {
        stream1: problem.input("stream1", "fixed", Float64Array.from(stream1)),
        stream2: problem.input("stream2", "fixed", Float64Array.from(stream2)),
        outOfRange: problem.input("count", "index", Int32Array.of(5)),
      };
      const functions = { f: layers("f", f), g: layers("g", g) };
      const step = { op: "reversibleForward", ...functions, computeStatistics: false, hidden: [], ...operands };
      return (await device.run(problem.tensors, [step], initialValues(problem.tensors))).get("count")![0]!;
    };

    it("count both halves of a reversible block", async () => {
      expect(await reversible([511, 511, 0], [1, 2, 1], 1, 0), "x1 + F(x2)").to.equal(5 + 2);
      expect(await reversible([1, 2, 3], [511, 0, -511], 0, 1), "x2 + G(y1)").to.equal(5 + 1);
      expect(await reversible([511, 511, -500], [1, 2, 510], 1, 0.5), "both, in different elements").to.equal(5 + 2 + 1);
      expect(await reversible([511, 0, 0], [0.5, 0, -510], 1, 0), "neither").to.equal(5);
    });
    it("round to the nearest step, ties to even", async () => {
      const step = device.session.elementBytes("fixed") === 4 ? 2 ** -22 : 2 ** -40;
      const { y } = await residual([0, 0, 0, 0, 0, 0], [1, 3, 5, -1, -3, 1.5], step / 2);
      expect([...y].map((value) => value / step)).to.deep.equal([0, 2, 2, 0, -2, 1]);
    });
  });
}

// The reference has one thread, whatever it is given: there is nothing to vary.
describe("the reference backend", () => fixedStreamsSuite({ device: "reference" }));

describe("the cpu backend", () => {
  const { isas } = native.buildInfo();
  for (const isa of ["avx512", "avx2", "neon", "portable"]) {
    if (isas.includes(isa)) describe(isa, () => backendSuite({ device: "cpu", isa }));
    else describe.skip(`${isa} (this processor or build has only ${isas.join(", ")})`, () => it("is skipped", () => {}));
  }
  it("takes the widest instruction set by itself", () => {
    const [chosen, widest] = ["auto", isas[0]!].map((isa) => {
      const device = new Device({ device: "cpu", isa });
      device.dispose();
      return device.session.description;
    });
    expect(chosen).to.equal(widest);
  });
});

describe("the cuda backend", () => {
  const gpu = native.devices().find(({ name }) => name.startsWith("cuda"));
  if (gpu?.available) {
    // What multiplies in a lower precision are convolutions, by the same code in both: each takes every other case of theirs, and
    // bfloat16 of the other families in which it stores less.
    const half = (precision: Precision, odd: number) => {
      const families = familiesOf(precision);
      return [...cases.filter(({ family }) => families.includes(family)).filter((_, i) => (i >> 1) % 2 === odd), ...largeCases];
    };
    const tested = { float32: [...cases, ...updateCases, ...largeCases], tf32: half("tf32", 0), bfloat16: half("bfloat16", 1) };
    for (const precision of ["float32", "tf32", "bfloat16"] as const)
      describe(precision, () => backendSuite({ device: "cuda", precision }, tested[precision]));
  } else describe.skip(`cuda (${gpu?.description ?? "this build has none"})`, () => it("is skipped", () => {}));
});

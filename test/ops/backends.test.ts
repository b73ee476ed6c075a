/**
 * Every op of every case on a device against the float64 reference: same inputs, outputs poisoned with NaN beforehand.
 *
 * The tolerance is what rounding does, not a round number. The reference runs again with each input moved by a random part of
 * 2^-17, and the largest change of a tensor, scaled down to 2^-24, says what rounding the inputs alone does to it. Rounding each
 * of n partial sums as well makes that larger by a factor of the order of sqrt(n).
 *
 * What this does not see is cancellation inside an op, as in the gradient through a batch norm of one or two values, which is
 * zero but for rounding; no residual function of the list has one.
 *
 * A device may round what convolutions multiply to fewer bits (tf32, bfloat16). For ops with convolutions, the largest change
 * under movements of several times that rounding is added, twice: what the rounding can do to them, jumps included.
 *
 * A change that does not shrink with the movement is a jump: an activation so near to zero (or a maximum so near to another)
 * that float32 may decide either way. Such a case is drawn again with other values.
 */
import { expect } from "chai";
import type { DeviceOptions, Values } from "../../binding.js";
import { native } from "../../lib/native/index.js";
import { cases, largeCases, title } from "./cases.js";
import { Device, initialValues, type Named, tensorsOf } from "./device.js";
import { type Case, generate } from "./families.js";
import { Problem, STREAM_STEP, type Step, toStreamGrid } from "./problem.js";
import { Random } from "./random.js";

const FLOAT_ROUNDING = 2 ** -24;
const MOVEMENT = 2 ** -17;
/** The largest relative error of rounding to a precision's operands. */
const OPERAND_ROUNDING = { float32: 0, tf32: 2 ** -11, bfloat16: 2 ** -8 };
const CONVOLVING: readonly string[] = ["convolution", "residual", "reversible"];
/** Times sqrt(summed terms) times the sensitivity: room for the difference between random movements and the worst ones. */
const SAFETY = 4;

/** The largest number of products that go into one element, in any of an op's convolutions or sums. */
function summedTerms(step: Step): number {
  const { n = 1, h = 1, w = 1, in: inputs = 1, classes = 1 } = step as Record<string, unknown> & Partial<Record<string, number>>;
  const nested = JSON.stringify(step).match(/"convolution":\{[^}]*\}/g) ?? [];
  const terms = nested.map((text) => {
    const shape = JSON.parse(`{${text}}`).convolution;
    return Math.max(shape.kernel ** 2 * Math.max(shape.c, shape.k), shape.n * shape.h * shape.w);
  });
  return Math.max((n as number) * (h as number) * (w as number), inputs as number, classes as number, ...terms);
}

const convolutions = (step: Step): number => JSON.stringify(step).split('"convolution":{').length - 1;

/** What both devices can represent: float32, or a multiple of the 32-bit stream's step. */
function representable(problem: Problem, values: Named): Named {
  return new Map(
    [...values].map(([name, value]): [string, Values] => {
      const type = problem.tensors.get(name)?.type;
      if (type === "real") return [name, Float64Array.from(value, Math.fround)];
      return [name, type === "fixed" ? Float64Array.from(value, toStreamGrid) : value];
    }),
  );
}

/** Each number times 1 plus a random part of `movement`. */
function moved(problem: Problem, values: Named, random: Random, movement = MOVEMENT): Named {
  return new Map(
    [...values].map(([name, value]): [string, Values] => {
      const type = problem.tensors.get(name)?.type;
      const isNumber = type === "real" || type === "fixed";
      return [name, isNumber ? Float64Array.from(value, (x) => x * (1 + movement * (2 * random.uniform() - 1))) : value];
    }),
  );
}

const largest = (values: Iterable<number>): number => {
  let result = 0;
  for (const value of values) result = Number.isNaN(value) ? Number.POSITIVE_INFINITY : Math.max(result, Math.abs(value));
  return result;
};
const difference = (a: Values, b: Values): Float64Array => Float64Array.from(a, (value, i) => value - b[i]!);

const bytes = ({ buffer, byteOffset, byteLength }: Values): Buffer => Buffer.from(buffer, byteOffset, byteLength);
const sameBits = (a: Values, b: Values): boolean => bytes(a).equals(bytes(b));

interface Expected {
  step: Step;
  inputs: Named;
  outputs: Named;
  /** By tensor: the largest change of an element when the inputs move by 2^-24. */
  sensitivity: Map<string, number>;
  /** By tensor: the largest change of an element that rounding what convolutions multiply may bring about. */
  rounding: Map<string, number>;
}

/** Runs a problem op by op on the reference. `rounding`: of what convolutions multiply. Null: some op jumps. */
async function expectations(reference: Device, problem: Problem, rounding: number): Promise<Expected[] | null> {
  const random = new Random(1);
  const defined = initialValues(problem.tensors);
  const result: Expected[] = [];
  for (const step of [...problem.forward, ...problem.backward]) {
    const program = reference.program(problem.tensors, [step]);
    const names = program.names.filter((name) => !problem.scratch.has(name));
    const inputs = representable(problem, new Map([...defined].filter(([name]) => program.names.includes(name))));
    const outputs = await program.run(inputs, names);
    const sensitivity = new Map(names.map((name) => [name, 0]));
    for (let i = 0; i < 3; ++i) {
      const changed = await program.run(moved(problem, inputs, random), names);
      for (const name of names) {
        const change = largest(difference(changed.get(name)!, outputs.get(name)!));
        if (change > 256 * MOVEMENT * Math.max(largest(outputs.get(name)!), 2 ** -7)) return null;
        sensitivity.set(name, Math.max(sensitivity.get(name)!, (change * FLOAT_ROUNDING) / MOVEMENT));
      }
    }
    // Between convolutions there are activations that may jump: farther, so that jumps are likely to be among the changes.
    const movement = rounding * (convolutions(step) > 1 ? 8 : 2);
    const rounded = new Map(names.map((name) => [name, 0]));
    for (let i = 0; i < 5 && rounding > 0 && convolutions(step) > 0; ++i) {
      const changed = await program.run(moved(problem, inputs, random, movement), names);
      for (const name of names) {
        const change = largest(difference(changed.get(name)!, outputs.get(name)!));
        rounded.set(name, Math.max(rounded.get(name)!, change));
      }
    }
    result.push({ step, inputs, outputs, sensitivity, rounding: rounded });
    for (const [name, values] of outputs) defined.set(name, values);
  }
  return result;
}

/** The first values of the case that do not jump. */
async function draw(reference: Device, of: Case, rounding: number): Promise<{ problem: Problem; expected: Expected[] }> {
  for (let attempt = 0; attempt < 20; ++attempt) {
    const problem = generate(of, attempt);
    const expected = await expectations(reference, problem, rounding);
    if (expected) return { problem, expected };
  }
  throw new Error("every draw of this case jumps");
}

/** The largest error of a tensor in units of its tolerance. */
function relativeError(problem: Problem, { step, outputs, sensitivity, rounding }: Expected, name: string, actual: Values): number {
  const expected = outputs.get(name)!;
  const { type } = problem.tensors.get(name)!;
  if (type === "index" || type === "byte") return largest(difference(actual, expected)) === 0 ? 0 : Number.POSITIVE_INFINITY;
  // A value may round to either of two steps of a 32-bit stream, in one element or in all.
  const streamStep = tensorsOf(step).some((name) => problem.tensors.get(name)!.type === "fixed") ? STREAM_STEP : 0;
  const common = SAFETY * Math.sqrt(summedTerms(step)) * sensitivity.get(name)! + 2 * rounding.get(name)! + streamStep;
  return largest(
    Float64Array.from(actual, (value, i) => {
      const error = Math.abs(value - expected[i]!);
      return error === 0 ? 0 : error / (common + 2 * FLOAT_ROUNDING * Math.abs(expected[i]!));
    }),
  );
}

function backendSuite(options: Omit<DeviceOptions, "threads">, tested: readonly Case[] = cases): void {
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
      const { problem, expected } = await draw(reference, of, OPERAND_ROUNDING[precision]);
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
  for (const isa of ["avx512", "avx2", "portable"]) {
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
    // What multiplies in a lower precision are convolutions, by the same code in both: each takes every other case of theirs.
    const convolving = cases.filter(({ family }) => CONVOLVING.includes(family));
    const tested = {
      float32: [...cases, ...largeCases],
      tf32: [...convolving.filter((_, i) => (i >> 1) % 2 === 0), ...largeCases],
      bfloat16: [...convolving.filter((_, i) => (i >> 1) % 2 === 1), ...largeCases],
    };
    for (const precision of ["float32", "tf32", "bfloat16"] as const)
      describe(precision, () => backendSuite({ device: "cuda", precision }, tested[precision]));
  } else describe.skip(`cuda (${gpu?.description ?? "this build has none"})`, () => it("is skipped", () => {}));
});

/**
 * What a device's results may differ by from the float64 reference's: same inputs, outputs poisoned with NaN beforehand.
 *
 * The tolerance is what rounding does, not a round number. The reference runs again with each input moved by a random part of
 * 2^-17, and the largest change of a tensor, scaled down to 2^-24, says what rounding the inputs alone does to it. Rounding each
 * of n partial sums as well makes that larger by a factor of the order of sqrt(n).
 *
 * What this does not see is cancellation inside an op, as in the gradient through a batch norm of one or two values, which is
 * zero but for rounding; no residual function of the lists has one.
 *
 * A device may round what convolutions multiply to fewer bits (tf32, bfloat16). For ops with convolutions, the largest change
 * under movements of several times that rounding is added, twice: what the rounding can do to them, jumps included.
 *
 * A device may store hidden tensors and gradients of streams as bfloat16: what it reads of them is given to both devices so rounded, and what
 * it writes may be off by that rounding of each element. Within an op, the movements above are several times as large.
 *
 * A change that does not shrink with the movement is a jump: an activation so near to zero (or a maximum so near to another)
 * that float32 may decide either way. Such a case is drawn again with other values.
 */
import type { ElementType, Values } from "../../binding.js";
import type { Precision } from "../network/device.js";
import { type Device, initialValues, type Named, tensorsOf } from "./device.js";
import { type Case, generate } from "./families.js";
import { isNumber, type Problem, STREAM_STEP, type Step, toStreamGrid } from "./problem.js";
import { Random } from "./random.js";

const FLOAT_ROUNDING = 2 ** -24;
const MOVEMENT = 2 ** -17;
/** The largest relative error of rounding to a precision's operands. */
export const OPERAND_ROUNDING = { float32: 0, tf32: 2 ** -11, bfloat16: 2 ** -8 };
/** That of rounding what is stored in 2 bytes: 8 significant bits. */
const STORED_ROUNDING = 2 ** -8;

const CONVOLVING: readonly string[] = ["convolution", "residual", "reversible"];
/** Without convolutions, but with gradients of streams. */
const WITH_GRADIENTS: readonly string[] = ["batchNormRelu", "shortcut", "maxPool", "globalAveragePool"];
/** Families that a precision, compared with float32, makes a difference to. */
export const familiesOf = (precision: Precision): readonly string[] =>
  precision === "bfloat16" ? [...CONVOLVING, ...WITH_GRADIENTS] : CONVOLVING;

/** How a device rounds what float32 does not. */
export interface Rounding {
  /** Of what convolutions multiply: the largest relative error. */
  readonly operands: number;
  /** Types that are stored in 2 bytes. */
  readonly narrow: readonly ElementType[];
}
export const roundingOf = ({ session }: Device, precision: Precision): Rounding => ({
  operands: OPERAND_ROUNDING[precision],
  narrow: (["hidden", "gradient"] as const).filter((type) => session.elementBytes(type) === 2),
});
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

/** A function of each value. A loop, since Float64Array.from with a function takes about ten times as long. */
function mapped(values: Values, of: (value: number, i: number) => number): Float64Array {
  const result = new Float64Array(values.length);
  for (let i = 0; i < result.length; ++i) result[i] = of(values[i]!, i);
  return result;
}

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);
/** To the nearest bfloat16, ties to even. */
function toBfloat16(value: number): number {
  float[0] = value;
  bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
  return float[0];
}

/** What both devices can represent: float32, bfloat16 where that is stored, or a multiple of the 32-bit stream's step. */
function representable(problem: Problem, values: Named, narrow: Rounding["narrow"]): Named {
  return new Map(
    [...values].map(([name, value]): [string, Values] => {
      const type = problem.tensors.get(name)?.type;
      if (type === "fixed") return [name, mapped(value, toStreamGrid)];
      if (type !== undefined && narrow.includes(type)) return [name, mapped(value, toBfloat16)];
      return [name, isNumber(type) ? mapped(value, Math.fround) : value];
    }),
  );
}

/** Each number times 1 plus a random part of `movement`. */
function moved(problem: Problem, values: Named, random: Random, movement = MOVEMENT): Named {
  return new Map(
    [...values].map(([name, value]): [string, Values] => {
      const movable = isNumber(problem.tensors.get(name)?.type);
      return [name, movable ? mapped(value, (x) => x * (1 + movement * (2 * random.uniform() - 1))) : value];
    }),
  );
}

/** The largest magnitude; Infinity where there is a NaN. */
function largest(values: Values): number {
  let result = 0;
  for (let i = 0; i < values.length; ++i) {
    const value = Math.abs(values[i]!);
    if (Number.isNaN(value)) return Number.POSITIVE_INFINITY;
    if (value > result) result = value;
  }
  return result;
}

const largestDifference = (a: Values, b: Values): number => largest(mapped(a, (value, i) => value - b[i]!));

export interface Expected {
  step: Step;
  inputs: Named;
  outputs: Named;
  /** By tensor: the largest change of an element when the inputs move by 2^-24. */
  sensitivity: Map<string, number>;
  /** By tensor: the largest change of an element that rounding what convolutions multiply may bring about. */
  rounding: Map<string, number>;
  /** Types whose elements are rounded as they are stored. */
  narrow: Rounding["narrow"];
}

/** Runs a problem op by op on the reference. Null: some op jumps. */
async function expectations(reference: Device, problem: Problem, { operands, narrow }: Rounding): Promise<Expected[] | null> {
  const random = new Random(1);
  const defined = initialValues(problem.tensors);
  const result: Expected[] = [];
  for (const step of [...problem.forward, ...problem.backward]) {
    const program = reference.program(problem.tensors, [step]);
    const names = program.names.filter((name) => !problem.scratch.has(name));
    const inputs = representable(problem, new Map([...defined].filter(([name]) => program.names.includes(name))), narrow);
    const outputs = await program.run(inputs, names);
    const sensitivity = new Map(names.map((name) => [name, 0]));
    for (let i = 0; i < 3; ++i) {
      const changed = await program.run(moved(problem, inputs, random), names);
      for (const name of names) {
        const change = largestDifference(changed.get(name)!, outputs.get(name)!);
        if (change > 256 * MOVEMENT * Math.max(largest(outputs.get(name)!), 2 ** -7)) return null;
        sensitivity.set(name, Math.max(sensitivity.get(name)!, (change * FLOAT_ROUNDING) / MOVEMENT));
      }
    }
    // Between convolutions there are activations that may jump: farther, so that jumps are likely to be among the changes.
    const movement = operands * (convolutions(step) > 1 ? 8 : 2);
    const rounded = new Map(names.map((name) => [name, 0]));
    for (let i = 0; i < 5 && operands > 0 && convolutions(step) > 0; ++i) {
      const changed = await program.run(moved(problem, inputs, random, movement), names);
      for (const name of names) {
        const change = largestDifference(changed.get(name)!, outputs.get(name)!);
        rounded.set(name, Math.max(rounded.get(name)!, change));
      }
    }
    result.push({ step, inputs, outputs, sensitivity, rounding: rounded, narrow });
    for (const [name, values] of outputs) defined.set(name, values);
  }
  return result;
}

/** The first values of the case that do not jump. */
export async function draw(reference: Device, of: Case, rounding: Rounding): Promise<{ problem: Problem; expected: Expected[] }> {
  for (let attempt = 0; attempt < 20; ++attempt) {
    const problem = generate(of, attempt);
    const expected = await expectations(reference, problem, rounding);
    if (expected) return { problem, expected };
  }
  throw new Error("every draw of this case jumps");
}

/** The largest error of a tensor in units of its tolerance. */
export function relativeError(
  problem: Problem,
  { step, outputs, sensitivity, rounding, narrow }: Expected,
  name: string,
  actual: Values,
): number {
  const expected = outputs.get(name)!;
  const { type } = problem.tensors.get(name)!;
  if (type === "index" || type === "byte") return largestDifference(actual, expected) === 0 ? 0 : Number.POSITIVE_INFINITY;
  // A value may round to either of two steps of a 32-bit stream, in one element or in all.
  const streamStep = tensorsOf(step).some((name) => problem.tensors.get(name)!.type === "fixed") ? STREAM_STEP : 0;
  const common = SAFETY * Math.sqrt(summedTerms(step)) * sensitivity.get(name)! + 2 * rounding.get(name)! + streamStep;
  const own = 2 * FLOAT_ROUNDING + (narrow.includes(type) ? STORED_ROUNDING : 0);
  return largest(
    mapped(actual, (value, i) => {
      const error = Math.abs(value - expected[i]!);
      return error === 0 ? 0 : error / (common + own * Math.abs(expected[i]!));
    }),
  );
}

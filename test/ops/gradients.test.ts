/**
 * Every backward op of the reference against central differences of its forward op, in float64 on real streams; then the same
 * gradients on fixed streams, where derivatives ignore the rounding.
 *
 * ReLU and max pool have kinks, where a difference quotient means nothing. A coordinate is left out if its quotients at two
 * step sizes disagree, which does not depend on the gradient under test; few may be.
 */
import { expect } from "chai";
import type { Values } from "../../binding.js";
import { Device, initialValues, type Named } from "../../lib/verify/device.js";
import { type Case, generate, title } from "../../lib/verify/families.js";
import type { Problem } from "../../lib/verify/problem.js";
import { Random } from "../../lib/verify/random.js";
import { cases } from "./cases.js";

const STEP = 2 ** -15;
const TOLERANCE = 1e-6;
/** Of all coordinates, those that may be left out for a kink. */
const KINKS_ALLOWED = 0.02;

/** The list has these on both streams already. */
const isResidual = (of: Case): boolean => of.family === "residual" || of.family === "reversible";
const onStreams = (of: Case, stream: "real" | "fixed"): Case => ({ ...of, stream, ...("y" in of ? { y: stream } : {}) });
// With running statistics the forward pass has another derivative than the one a training step needs.
const differentiable = cases.filter((of) => !("running" in of && of.running) && (of.stream === "real" || !isResidual(of)));

const at = (values: Named, name: string): Float64Array => values.get(name) as Float64Array;
const norm = (values: Float64Array): number => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
const rms = (values: Float64Array): number => norm(values) / Math.sqrt(values.length);
const largestDifference = (a: Float64Array, b: Float64Array): number =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);

/** The change of the loss between two results of the forward pass. Differences are taken before the sum: less is lost. */
function lossDifference(problem: Problem, initial: Named, after: Named, before: Named): number {
  let sum = 0;
  for (const [tensor, weightsOf] of problem.loss) {
    const [a, b] = [at(after, tensor), at(before, tensor)];
    const weights = weightsOf === null ? null : at(initial, weightsOf);
    for (let i = 0; i < a.length; ++i) sum += (weights ? weights[i]! : 1) * (a[i]! - b[i]!);
  }
  return sum;
}

function coordinates(elements: number, random: Random): number[] {
  const wanted = elements > 1000 ? 6 : 12;
  return elements <= wanted ? [...Array(elements).keys()] : Array.from({ length: wanted }, () => random.integer(elements));
}

async function backwardPass(reference: Device, problem: Problem): Promise<Named> {
  return reference.run(problem.tensors, [...problem.forward, ...problem.backward], initialValues(problem.tensors));
}

describe("gradients on the reference", () => {
  let reference: Device;
  let largest = 0;
  let checked = 0;
  let kinks = 0;
  before(() => {
    reference = new Device({ device: "reference" });
  });
  after(() => {
    reference.dispose();
    console.log(`      largest relative error ${largest.toExponential(1)} over ${checked} coordinates; ${kinks} more lie on kinks`);
  });

  for (const of of differentiable) {
    it(title(onStreams(of, "real")), async () => {
      const problem = generate(onStreams(of, "real"));
      const initial = initialValues(problem.tensors);
      const gradients = await backwardPass(reference, problem);
      const forward = reference.program(problem.tensors, problem.forward);
      const outputs = problem.loss.map(([tensor]) => tensor);
      const random = new Random(of.seed);
      // A gradient that is exactly zero (batch norm of a single value) is compared on the scale of the others.
      const overall = Math.max(...problem.gradients.map(([, gradient]) => rms(at(gradients, gradient))));

      for (const [input, gradient] of problem.gradients) {
        const analytic = at(gradients, gradient);
        const floor = Math.max(rms(analytic), 1e-3 * overall);
        const values = at(initial, input);
        const moved = async (i: number, step: number): Promise<Named> => {
          const changed = Float64Array.from(values);
          changed[i] = values[i]! + step;
          return forward.run(new Map<string, Values>([...initial, [input, changed]]), outputs);
        };
        const quotient = async (i: number, step: number): Promise<number> =>
          lossDifference(problem, initial, await moved(i, step), await moved(i, -step)) / (2 * step);

        for (const i of coordinates(analytic.length, random)) {
          const [coarse, fine] = [await quotient(i, STEP), await quotient(i, STEP / 2)];
          if (Math.abs(coarse - fine) > TOLERANCE * Math.max(Math.abs(fine), floor)) {
            ++kinks;
            continue;
          }
          const numeric = (4 * fine - coarse) / 3; // Richardson: the error in the step's square cancels
          const distance = Math.abs(analytic[i]! - numeric);
          const error = distance === 0 ? 0 : distance / Math.max(Math.abs(analytic[i]!), Math.abs(numeric), floor);
          largest = Math.max(largest, error);
          ++checked;
          expect(error, `d loss / d ${input}[${i}]: ${analytic[i]} by the op, ${numeric} by differences`).to.be.below(TOLERANCE);
        }
      }
    });
  }

  it("leaves out few coordinates", () => {
    expect(checked).to.be.above(0);
    expect(kinks / (checked + kinks)).to.be.below(KINKS_ALLOWED);
  });

  describe("on fixed streams are those on real streams", () => {
    for (const of of differentiable) {
      it(title(onStreams(of, "fixed")), async () => {
        const problem = generate(onStreams(of, "real"));
        const real = await backwardPass(reference, problem);
        const fixed = await backwardPass(reference, generate(onStreams(of, "fixed")));
        for (const [, gradient] of problem.gradients) {
          const [a, b] = [at(real, gradient), at(fixed, gradient)];
          expect(norm(a.map((value, i) => value - b[i]!)), gradient).to.be.at.most(1e-9 * Math.max(1, norm(a)));
        }
      });
    }
  });

  describe("reversibleBackward reconstructs its inputs", () => {
    for (const of of cases.filter((of) => of.family === "reversible" && !of.running)) {
      it(title(of), async () => {
        const problem = generate(of);
        const initial = initialValues(problem.tensors);
        const forward = await reference.run(problem.tensors, problem.forward, initial);
        const result = await backwardPass(reference, problem);
        for (const stream of ["stream1", "stream2"]) {
          const difference = (from: Named): number => largestDifference(at(from, stream), at(initial, stream));
          expect(difference(forward), "the forward pass changes the stream").to.be.above(0);
          if (of.stream === "fixed") expect(difference(result), stream).to.equal(0);
          else expect(difference(result), stream).to.be.below(1e-12);
        }
      });
    }
  });
});

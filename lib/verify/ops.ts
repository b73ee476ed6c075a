/** Each op of a device against the float64 reference, by families of ops. */
import type { Precision } from "../network/device.js";
import { processorCount } from "../processors.js";
import { convolvingCases, elementwiseCases } from "./cases.js";
import { type Budget, type Check, Failure, type Outcome, type Subject } from "./check.js";
import { Device } from "./device.js";
import { draw, familiesOf, type Rounding, relativeError, roundingOf } from "./expectation.js";
import { type Case, title } from "./families.js";

/** A check for each family: in the first precision, and in the others that make a difference to it. */
export function opChecks(subject: Subject): Check[] {
  return subject.precisions.flatMap((precision, i) => {
    const families = familiesOf(precision);
    const cases = [...elementwiseCases, ...convolvingCases].filter(({ family }) => i === 0 || families.includes(family));
    return [...new Set(cases.map(({ family }) => family))].map((family) => ({
      name: `op ${family}, ${precision}`,
      run: (budget) =>
        compare(
          subject,
          precision,
          cases.filter((of) => of.family === family),
          budget,
        ),
    }));
  });
}

/** An op's tensor in one case: how far it is off, in units of its tolerance. */
interface Finding {
  op: string;
  tensor: string;
  of: Case;
  error: number;
}

async function compare({ device }: Subject, precision: Precision, cases: readonly Case[], budget: Budget): Promise<Outcome> {
  const findings: Finding[] = [];
  // The reference is slow and has one thread: as many cases at once as there are processors.
  let next = 0;
  const work = () =>
    budget.within(new Device({ device: "reference" }), (reference) =>
      budget.within(new Device({ ...device, precision }), async (tested) => {
        const rounding = roundingOf(tested, precision);
        while (next < cases.length) {
          budget.require(`${next} of ${cases.length} cases`);
          findings.push(...(await compareCase(reference, tested, cases[next++]!, rounding)));
        }
      }),
    );
  const ended = await Promise.allSettled(Array.from({ length: Math.min(processorCount(), cases.length) }, work));
  for (const each of ended) if (each.status === "rejected") throw each.reason;
  const worst = findings.reduce((a, b) => (b.error > a.error ? b : a));
  const figures = { cases: cases.length, error: worst.error, op: worst.op };
  // Written so that NaN fails.
  const wrong = findings.filter(({ error }) => !(error < 1));
  if (wrong.length === 0) return { detail: `${cases.length} cases, largest error ${worst.error.toFixed(2)} x tolerance`, figures };
  const ops = [...new Set(wrong.map(({ op }) => op))].join(", ");
  throw new Failure(`${ops} wrong: ${worst.tensor} is off by ${worst.error.toFixed(1)} x tolerance in ${title(worst.of)}`, {
    ...figures,
    op: ops,
  });
}

async function compareCase(reference: Device, tested: Device, of: Case, rounding: Rounding): Promise<Finding[]> {
  const { problem, expected } = await draw(reference, of, rounding);
  const findings: Finding[] = [];
  for (const each of expected) {
    const names = [...each.outputs.keys()];
    const actual = await tested.program(problem.tensors, [each.step]).run(each.inputs, names);
    for (const tensor of names)
      findings.push({ op: each.step.op, tensor, of, error: relativeError(problem, each, tensor, actual.get(tensor)!) });
  }
  return findings;
}

import { expect } from "chai";
import fc from "fast-check";
import { RevNetError } from "../../lib/errors.js";
import { openDataset } from "../../lib/index.js";
import { OPTION_NAMES } from "../../lib/training/options.js";
import { resolveOptions } from "../../lib/training/settings.js";
import { TINY_REVNET, tinyDataset } from "../support/tiny.js";

const RUNS = Number(process.env.REVNET_FUZZ_RUNS ?? 500);
const anything = fc.anything({
  withBigInt: true,
  withDate: true,
  withMap: true,
  withTypedArray: true,
  withNullPrototype: true,
  withSparseArray: true,
});

/** The call returns, or throws a RevNetError with a code. */
async function orderly(call: () => unknown): Promise<void> {
  try {
    await call();
  } catch (error) {
    expect(error, (error as Error).stack).to.be.instanceOf(RevNetError);
    expect((error as RevNetError).code).to.match(/^ERR_(?!INTERNAL)/);
    expect((error as RevNetError).message).to.not.be.empty;
  }
}

describe("malformed options", function () {
  this.timeout(600_000);

  it("give a RevNetError, whichever option holds whatever value", () =>
    fc.assert(
      fc.asyncProperty(fc.constantFrom(...OPTION_NAMES), anything, (name, value) =>
        orderly(() => resolveOptions({ model: TINY_REVNET, data: tinyDataset(1, 1), [name]: value } as never)),
      ),
      { seed: 1, numRuns: RUNS },
    ));

  it("give a RevNetError, whichever field of a spec or a data set holds whatever value", () =>
    fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...Object.keys(TINY_REVNET), "recipe", "extends"),
        fc.constantFrom("train", "test", "shape", "classes", "name"),
        anything,
        async (key, field, value) => {
          await orderly(() => resolveOptions({ model: { ...TINY_REVNET, [key]: value }, data: "shapes" } as never));
          await orderly(() => resolveOptions({ model: TINY_REVNET, data: { ...tinyDataset(1, 1), [field]: value } } as never));
        },
      ),
      { seed: 2, numRuns: RUNS },
    ));

  it("give a RevNetError where they are no options at all", () =>
    fc.assert(
      fc.asyncProperty(anything, anything, async (value, name) => {
        await orderly(() => resolveOptions(value as never));
        await orderly(() =>
          openDataset(name as string, { trainCount: 1, testCount: 1, ...(typeof value === "object" ? value : {}) }),
        );
        await orderly(() => openDataset("cifar-10", value as object));
      }),
      { seed: 3, numRuns: Math.min(RUNS, 1000) },
    ));
});

/** Training in each precision of a CUDA device: exactly reversible in all of them. Runs where there is a CUDA device. */
import { expect } from "chai";
import type { TrainOptions } from "../../lib/index.js";
import { DEVICES, trainTiny } from "../support/tiny.js";

const device = DEVICES.find((name) => name.startsWith("cuda"));
const PRECISIONS = ["float32", "tf32", "bfloat16"] as const;

const train = async (overrides: Partial<TrainOptions>) => (await trainTiny({ device, steps: 20, ...overrides })).summary;

describe("precisions on cuda", function () {
  this.timeout(300_000);
  before(function () {
    if (!device) this.skip(); // no device here; emulated.test.ts runs it on the emulated one
  });

  for (const precision of PRECISIONS)
    it(`${precision}: reversible and stored training give the same bits, and learn`, async () => {
      const reversible = await train({ precision, activations: "reversible" });
      const stored = await train({ precision, activations: "stored" });
      expect(reversible.weightsSha256).to.equal(stored.weightsSha256);
      expect(reversible.reconstruction).to.deep.equal({ exact: true, outOfRange: 0 });
      expect(reversible.precision).to.equal(precision);
      expect(reversible.trainLoss).to.be.below(1);
    });

  it("bfloat16 with gradients of streams in float32: reversible and stored training give the same bits, others than in bfloat16", async () => {
    const options = { precision: "bfloat16", streamGradients: "float32", steps: 5 } as const;
    const reversible = await train({ ...options, activations: "reversible" });
    expect((await train({ ...options, activations: "stored" })).weightsSha256).to.equal(reversible.weightsSha256);
    expect(reversible.streamGradients).to.equal("float32");
    const narrow = await train({ precision: "bfloat16", steps: 5 });
    expect(narrow.streamGradients).to.equal("bfloat16");
    expect(narrow.weightsSha256).not.to.equal(reversible.weightsSha256);
  });

  it("differ from each other", async () => {
    const hashes = await Promise.all(PRECISIONS.map(async (precision) => (await train({ precision, steps: 3 })).weightsSha256));
    expect(new Set(hashes).size).to.equal(PRECISIONS.length);
  });
});

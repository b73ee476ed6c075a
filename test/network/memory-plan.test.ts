/** The memory plan: it is what training takes, to the byte, and does not grow with depth. */
import { expect } from "chai";
import type { MemoryReport } from "../../binding.js";
import { memoryPlan } from "../../lib/network/memory.js";
import type { Activations } from "../../lib/network/recorder.js";
import type { NetworkSpec } from "../../lib/network/spec.js";
import { BATCH, onEveryDevice, TINY, trained } from "./support.js";

onEveryDevice("the memory plan", ({ name, options }) => {
  const spec = (units: number): NetworkSpec => ({
    name: `revnet-${units}`,
    kind: "revnet",
    stem: "cifar",
    input: [32, 32, 3],
    classes: 10,
    filters: [32, 32, 64, 112],
    units: [units, units, units],
    strides: [1, 2, 2],
    bottleneck: false,
  });
  const plans = (activations: Activations, bottleneck = false) =>
    [3, 9, 27].map((units) => memoryPlan({ ...spec(units), bottleneck }, { ...options, batchSize: 100, activations }));

  for (const bottleneck of [false, true])
    it(`has the same activations for 3, 9 and 27 units${bottleneck ? ", bottleneck" : ""}; stored ones grow`, () => {
      const reversible = plans("reversible", bottleneck);
      expect(new Set(reversible.map(({ activations }) => activations)).size).to.equal(1);
      expect(new Set(reversible.map(({ workspace }) => workspace)).size).to.equal(1);
      const stored = plans("stored", bottleneck).map(({ activations }) => activations);
      expect(stored[0]).to.be.greaterThan(reversible[0]!.activations);
      expect(stored[1]).to.be.greaterThan(2 * stored[0]!);
      expect(stored[2]).to.be.greaterThan(2 * stored[1]!);
    });

  it("counts parameters, gradients, momenta and data, which are no activations", () => {
    const [small, , large] = plans("reversible");
    for (const category of ["parameters", "gradients", "optimizer"] as const)
      expect(large![category]).to.be.greaterThan(small![category]);
    expect(small!.gradients).to.equal(small!.optimizer);
    // 16 labels fill a line of 64 bytes, to which every buffer is rounded up.
    const [fewer, more] = [1600, 3200].map((images) => memoryPlan(spec(3), { ...options, batchSize: 100, images })) as [
      MemoryReport,
      MemoryReport,
    ];
    expect(more.data - fewer.data).to.equal(1600 * (32 * 32 * 3 + 4));
    expect(more.total).to.equal(Object.entries(more).reduce((sum, [key, bytes]) => sum + (key === "total" ? 0 : bytes), 0));
  });

  for (const [title, spec] of Object.entries(TINY))
    it(`takes the bytes that were planned: ${title}`, async () => {
      for (const activations of ["reversible", "stored"] as const) {
        const plan = memoryPlan(spec, { ...options, batchSize: BATCH, activations, images: 20 });
        const network = await trained(spec, options, activations, 1);
        expect(network.memory()).to.deep.equal(plan);
        const step = await network.prepareTraining({ batchSize: BATCH, activations });
        expect(step.planned().total).to.be.at.least(plan.total);
        network.dispose();
      }
    });

  if (name.startsWith("cuda"))
    it("takes the bytes that were planned in bfloat16, fewer the more is stored in it", async () => {
      const spec = TINY.revnet!;
      for (const activations of ["reversible", "stored"] as const) {
        const totals: number[] = [];
        for (const more of [
          { precision: "tf32" },
          { precision: "bfloat16", streamGradients: "float32" },
          { precision: "bfloat16" },
        ] as const) {
          const plan = memoryPlan(spec, { ...options, ...more, batchSize: BATCH, activations, images: 20 });
          const network = await trained(spec, { ...options, ...more }, activations, 1);
          expect(network.memory()).to.deep.equal(plan);
          network.dispose();
          totals.push(plan.activations + plan.workspace);
        }
        expect(totals[0]).to.be.greaterThan(totals[1]!);
        expect(totals[1]).to.be.greaterThan(totals[2]!);
      }
    });
});

/** What training really holds, seen from outside: one process for each depth. */
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { expect } from "chai";
import type { MemoryReport } from "../../binding.js";

interface Held {
  resident: number;
  planned: MemoryReport;
  counted: MemoryReport;
}

async function train(units: number, activations: string): Promise<Held> {
  const child = path.join(__dirname, "resident-child.js");
  const { stdout } = await promisify(execFile)(process.execPath, [child, String(units), activations]);
  return JSON.parse(stdout) as Held;
}

describe("memory of training, 3, 9 and 27 units a stage at batch 100", function () {
  this.timeout(300_000);

  it("does not grow with depth beyond the parameters", async () => {
    const [three, nine, many] = [await train(3, "reversible"), await train(9, "reversible"), await train(27, "reversible")];
    for (const held of [three, nine, many]) expect(held.counted).to.deep.equal(held.planned);
    expect(nine.counted.activations).to.equal(three.counted.activations);
    expect(many.counted.activations).to.equal(three.counted.activations);
    const ofParameters = ({ counted }: Held) => counted.parameters + counted.gradients + counted.optimizer;
    // TypeScript keeps a copy of the parameters too.
    const growth = ofParameters(many) - ofParameters(three) + (many.counted.parameters - three.counted.parameters);
    console.log(`      resident: ${[three, nine, many].map(({ resident }) => (resident / 2 ** 20).toFixed(0)).join(", ")} MiB`);
    expect(many.resident).to.be.at.most(1.1 * three.resident + growth);
  });

  it("grows with depth where activations are stored", async () => {
    const [three, nine] = [await train(3, "stored"), await train(9, "stored")];
    expect(nine.counted).to.deep.equal(nine.planned);
    const growth = nine.counted.activations - three.counted.activations;
    expect(growth).to.be.above(three.counted.activations);
    expect(nine.resident - three.resident).to.be.above(0.8 * growth);
  });
});

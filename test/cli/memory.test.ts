/** revnet memory: that training counts what it says, and what it finds for a budget. */
import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { expect } from "chai";
import { stackedBars } from "../../lib/cli/output.js";
import { memoryPlan } from "../../lib/index.js";

const MAIN = path.join(__dirname, "../../lib/cli/main.js");

async function revnet(...args: string[]): Promise<string> {
  return (await promisify(execFile)(process.execPath, [MAIN, ...args])).stdout;
}

describe("revnet memory", function () {
  this.timeout(120_000);

  for (const model of ["resnet-32", "resnet-110", "resnet-164", "revnet-38", "revnet-110", "revnet-164"])
    it(`says to the byte what training then counts: ${model}`, async () => {
      const common = [
        "--batch-size",
        "3",
        "--data",
        "shapes",
        "--train-count",
        "12",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--json",
      ];
      const planned = JSON.parse(await revnet("memory", model, ...common));
      for (const activations of ["reversible", "stored"]) {
        const more = ["--activations", activations, "--steps", "2", "--test-count", "4"];
        const summary = JSON.parse(await revnet("train", "--model", model, ...common, ...more));
        expect(summary.memory, activations).to.deep.equal(planned[activations]);
      }
      const { reversible, stored } = planned;
      if (model.startsWith("revnet")) expect(reversible.activations).to.be.lessThan(stored.activations);
      else expect(reversible).to.deep.equal(stored);
    });

  it("says it of a run that is verified, too", async () => {
    const common = ["--batch-size", "3", "--data", "shapes", "--train-count", "12", "--device", "cpu", "--threads", "1", "--json"];
    const planned = JSON.parse(await revnet("memory", "revnet-38", "--verify", ...common));
    const more = ["--model", "revnet-38", "--steps", "2", "--test-count", "4", "--verify-every", "1"];
    const { memory } = JSON.parse(await revnet("train", ...common, ...more));
    expect(memory).to.deep.equal(planned.reversible);
    const without = JSON.parse(await revnet("memory", "revnet-38", ...common));
    expect(memory.activations).to.be.greaterThan(without.reversible.activations);
  });

  it("counts a data set without reading it", async () => {
    const { reversible } = JSON.parse(await revnet("memory", "revnet-38", "--data", "cifar-100", "--json"));
    const one = JSON.parse(await revnet("memory", "revnet-38", "--classes", "100", "--json")).reversible;
    // 100 images are in either; each is 3072 bytes and a label of 4. Buffers are aligned.
    expect(reversible.data - one.data).to.be.closeTo((50_000 - 100) * 3076, 128);
    expect(reversible.parameters).to.equal(one.parameters);
  });

  it("finds the largest batch of a budget", async () => {
    for (const [budget, bytes] of [
      ["200MB", 200e6],
      ["1.5 gib", 1.5 * 2 ** 30],
    ] as const) {
      const found = JSON.parse(await revnet("memory", "revnet-110", "--budget", budget, "--device", "cpu", "--json")).budget;
      expect(found.bytes).to.equal(bytes);
      for (const activations of ["reversible", "stored"] as const) {
        const total = (batchSize: number) => memoryPlan("revnet-110", { batchSize, activations, device: "cpu" }).total;
        expect(total(found[activations]), activations).to.be.at.most(bytes);
        expect(total(found[activations] + 1), activations).to.be.greaterThan(bytes);
      }
      expect(found.reversible).to.be.greaterThan(found.stored);
    }
    expect(JSON.parse(await revnet("memory", "revnet-110", "--budget", "1MB", "--json")).budget).to.include({
      reversible: 0,
      stored: 0,
    });
    expect(await revnet("memory", "revnet-110", "--budget", "1MB")).to.include("not even one image");
    for (const text of ["8 bananas", "8"]) {
      const refused = (await revnet("memory", "revnet-110", "--budget", text).catch((error) => error)) as { stderr: string };
      expect(refused.stderr).to.include("--budget expects bytes with their unit").and.include(`got '${text}'`);
    }
  });

  it("draws both modes to one scale", () => {
    const rows = [
      { name: "a", parts: [30, 10], after: "40 B" },
      { name: "bb", parts: [60, 20], after: "80 B" },
    ];
    const [first, second, , legend] = stackedBars(rows, ["x", "y"], 51);
    expect(first).to.equal(`a   ${"#".repeat(15)}${"=".repeat(5)}${" ".repeat(20)}  40 B`);
    expect(second).to.equal(`bb  ${"#".repeat(30)}${"=".repeat(10)}  80 B`);
    expect(legend).to.equal("# x   = y");
  });
});

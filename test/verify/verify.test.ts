/** `revnet doctor --verify`: what it says of a device that is right, of one that is wrong, and when the time is over. */
import { expect } from "chai";
import type { Values } from "../../binding.js";
import { doctor } from "../../lib/cli/doctor.js";
import { RevNetError } from "../../lib/errors.js";
import { native } from "../../lib/native/index.js";
import { bitsOf, COMMON_BITS } from "../../lib/verify/bits.js";
import { Budget, BudgetOver, type Check, type CheckResult, Failure, resultOf } from "../../lib/verify/check.js";
import { Device } from "../../lib/verify/device.js";
import { checksOf, subjectOf, verify } from "../../lib/verify/verify.js";
import { runCommand } from "../support/command.js";

const subject = subjectOf({ device: "cpu" });
const named = (name: string): Check => checksOf(subject).find((check) => check.name === name)!;

/** The result where `corrupt` changes what ops of the tested device give. */
async function whileWrong(name: string, corrupt: (op: string, tensor: string, values: Values) => void): Promise<CheckResult> {
  const original = Device.prototype.program;
  Device.prototype.program = function (tensors, steps) {
    const program = original.call(this, tensors, steps);
    if (this.session.elementBytes("real") === 8) return program;
    return {
      names: program.names,
      run: async (values, outputs) => {
        const results = await program.run(values, outputs);
        for (const [tensor, result] of results) corrupt(steps[0]!.op, tensor, result);
        return results;
      },
    };
  };
  try {
    return await resultOf(named(name), new Budget(60));
  } finally {
    Device.prototype.program = original;
  }
}

describe("doctor --verify", () => {
  it("takes a device that has float32 alone as it is", () => {
    expect(subject.precisions).to.deep.equal(["float32"]);
    expect(() => subjectOf({ device: "cpu", precision: "bfloat16" })).to.throw(RevNetError, /^precision/);
  });

  // The large convolutions and the timed steps take seconds; the tests of the ops and bench have theirs.
  for (const { name } of checksOf(subject).filter(({ name }) => !/^op convolution|bandwidth|revnet-38/.test(name)))
    it(`passes on the cpu: ${name}`, async () => {
      const { status, detail } = await resultOf(named(name), new Budget(60));
      expect(status, detail).to.equal("PASS");
    });

  it("finds the common bits with each instruction set and number of threads", async () => {
    for (const isa of native.buildInfo().isas)
      for (const threads of [1, 2]) expect(await bitsOf({ device: "cpu", isa, threads }), isa).to.equal(COMMON_BITS);
    expect(await bitsOf({ device: "reference", threads: 1 })).not.to.equal(COMMON_BITS);
  });

  it("names the op that is wrong, in one element", async () => {
    const wrong = await whileWrong("op residual, float32", (op, tensor, values) => {
      if (op === "residualForward" && tensor === "y") values[values.length - 1]! += 0.01;
    });
    expect(wrong.status).to.equal("FAIL");
    expect(wrong.detail).to.match(/^residualForward wrong: y is off by [\d.]+ x tolerance in residual n=/);
    expect(wrong.figures).to.include({ op: "residualForward" });
  });

  it("takes NaN for wrong", async () => {
    const wrong = await whileWrong("op linear, float32", (op, tensor, values) => {
      if (op === "linearBackward" && tensor === "dx") values[0] = Number.NaN;
    });
    expect(wrong.detail).to.match(/^linearBackward wrong: dx is off by Infinity/);
  });

  it("skips what there is no time for, and says how far it came", async () => {
    const results = [];
    for await (const { status, detail } of verify(subject, 1e-6)) results.push({ status, detail });
    expect(results).to.have.length(checksOf(subject).length);
    for (const each of results) expect(each).to.deep.equal({ status: "SKIPPED", detail: "budget over" });
    const check = {
      name: "slow",
      run: async () => {
        throw new BudgetOver("2 of 3 cases");
      },
    };
    expect((await resultOf(check, new Budget(9))).detail).to.equal("budget over after 2 of 3 cases");
  });

  it("stops what is under way when the time is over", async () => {
    let stop: (error: Error) => void = () => {};
    const dispose = () => stop(new RevNetError("ERR_DISPOSED", "disposed of"));
    const forever = {
      name: "forever",
      run: (budget: Budget) => budget.within({ dispose }, () => new Promise<never>((_, no) => (stop = no))),
    };
    expect((await resultOf(forever, new Budget(0.02))).status).to.equal("SKIPPED");
  });

  it("fails by what a check finds, and by any other error", async () => {
    const throwing = async (error: Error) =>
      (await resultOf({ name: "x", run: () => Promise.reject(error) }, new Budget(9))) as CheckResult;
    expect(await throwing(new Failure("odd", { a: 1 }))).to.include({ status: "FAIL", detail: "odd" });
    expect(await throwing(new RevNetError("ERR_CUDA", "lost"))).to.include({ status: "FAIL", detail: "ERR_CUDA: lost" });
  });

  it("prints a line for each check, and the same as JSON", async () => {
    const [text, json] = [
      await runCommand(doctor, "--verify", "--device", "cpu", "--budget", "0.0000001"),
      await runCommand(doctor, "--verify", "--device", "cpu", "--budget", "0.0000001", "--json"),
    ];
    expect([text.status, json.status]).to.deep.equal([0, 0]);
    const lines = text.stdout.trimEnd().split("\n");
    const [head, ...values] = json.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines).to.have.length(values.length + 1);
    expect(head).to.include({ device: "cpu" });
    expect(lines[1]).to.match(/^SKIPPED {2}op batchNormRelu, float32 .* budget over$/);
    expect(values[0]).to.include({ check: "op batchNormRelu, float32", status: "SKIPPED", detail: "budget over" });
    expect(values.at(-1)).to.deep.equal({ passed: 0, failed: 0, skipped: values.length - 1 });
    expect(lines.at(-1)).to.equal(`0 passed, 0 failed, ${values.length - 1} skipped`);
  });

  it("refuses flags that make no sense", async () => {
    for (const args of [
      ["--budget", "3"],
      ["--device", "cpu"],
      ["--verify", "--budget", "0"],
    ]) {
      const error = await runCommand(doctor, ...args).then(
        () => undefined,
        (thrown: Error) => thrown,
      );
      expect(error?.message, args.join(" ")).to.match(/^--/);
    }
  });
});

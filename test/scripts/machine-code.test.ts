import path from "node:path";
import { expect } from "chai";

interface Line {
  label?: string;
  text?: string;
}
const { faultsOf } = require(path.resolve(__dirname, "../../../scripts/machine-code.js")) as {
  faultsOf(name: string, lines: Line[], registers: number): string[];
};

/** As nvdisasm writes them: labels end in a colon. */
const code = (text: string): Line[] =>
  text
    .trim()
    .split("\n")
    .map((line) => line.trim())
    .map((line) => (line.endsWith(":") ? { label: line.slice(0, -1) } : { text: line }));

const loads = (registers: string[]): string =>
  registers.map((register) => `@P0 LDG.E.128 ${register}, desc[UR4][R2.64]`).join("\n");
const kernel = (fill: string, more = ""): Line[] =>
  code(`
    S2R R0, SR_TID.X
    .L_x_1:
    ${more}
    .L_x_2:
    ${fill}
    STS.64 [R40], R8
    @!P1 BRA \`(.L_x_2)
    HMMA.16816.F32.BF16 R60, R36, R16, R60
    @!P0 BRA \`(.L_x_1)
    EXIT
  `);
const OWN = ["R8", "R12", "R16", "R20", "R24", "R28"];

describe("check:cuda reads in machine code", () => {
  const name = "convolveKernel<Bfloat16, 1, true>";

  it("nothing wrong where six loads are under way, each to registers of its own", () => {
    expect(faultsOf(name, kernel(loads(OWN)), 128)).to.deep.equal([]);
  });
  it("loads to the same registers, of which each waits for the one before", () => {
    expect(faultsOf(name, kernel(loads(OWN.map(() => "R8"))), 128)).to.deep.equal([
      "at most 1 loads of a thread are under way, not 6",
    ]);
  });
  it("loads with something stored between them", () => {
    const fill = `${loads(OWN.slice(0, 3))}\nSTS.64 [R40], R8\n${loads(OWN.slice(3))}`;
    expect(faultsOf(name, kernel(fill), 128)).to.deep.equal(["at most 3 loads of a thread are under way, not 6"]);
  });
  it("divisions of integers in a loop over tiles, but not before it", () => {
    expect(faultsOf(name, kernel(loads(OWN), "I2F.U32.RP R46, R52"), 128)).to.deep.equal(["a loop over tiles divides integers"]);
    expect(faultsOf(name, [{ text: "I2F.U32.RP R46, R52" }, ...kernel(loads(OWN))], 128)).to.deep.equal([]);
  });
  it("registers that leave room for one block, where a kernel wants two", () => {
    expect(faultsOf(name, kernel(loads(OWN)), 129)).to.deep.equal(["129 registers, where 128 leave room for two blocks"]);
    expect(faultsOf("convolveKernel<Bfloat16, 4, false>", kernel(loads(OWN)), 160)).to.deep.equal([]);
  });
  it("nothing in kernels that it does not know", () => {
    expect(faultsOf("sgdUpdate", code("EXIT"), 255)).to.deep.equal([]);
  });
});

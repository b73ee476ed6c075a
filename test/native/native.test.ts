/** The C++ tests, built and run under AddressSanitizer and UndefinedBehaviorSanitizer. */
import { spawnSync } from "node:child_process";
import path from "node:path";
import { expect } from "chai";

describe("native tests", () => {
  it("pass under the sanitizers", function () {
    if (process.platform === "win32") return this.skip(); // MSVC has other sanitizers
    this.timeout(900_000);
    this.slow(120_000);
    const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(__dirname, "../../../scripts/test-native.js")], {
      encoding: "utf8",
    });
    expect(status, `${stdout}\n${stderr}`).to.equal(0);
    expect(stdout).to.match(/native tests: [1-9]\d* passed, 0 failed/);
  });
});

/** Where the package does not run, installing says so in a sentence. */
import { spawnSync } from "node:child_process";
import path from "node:path";
import { expect } from "chai";

describe("installing on Windows", () => {
  it("ends with the sentence that WSL2 is what to use", () => {
    const build = path.join(__dirname, "../../../scripts/build.js");
    const source = `Object.defineProperty(process, "platform", { value: "win32" }); require(process.argv[1])`;
    // As `node scripts/build.js native`, which is the package's install script: what follows the source is argv[1] and argv[2].
    const { status, stdout, stderr } = spawnSync(process.execPath, ["-e", source, build, "native"], { encoding: "utf8" });
    expect(status).to.equal(1);
    expect(stdout).to.equal("");
    expect(stderr.trim().split("\n")).to.have.length(1);
    expect(stderr).to.match(/does not support Windows.*WSL2/);
  });
});

/** docs/api.md is what the comments in lib/ say now. */
import { spawnSync } from "node:child_process";
import path from "node:path";
import { expect } from "chai";

const root = path.resolve(__dirname, "../../..");

describe("docs/api.md", () => {
  it("is current (otherwise: npm run docs)", function () {
    this.timeout(180_000);
    const { status, stderr } = spawnSync(process.execPath, [path.join(root, "scripts", "docs.js"), "--check"], {
      encoding: "utf8",
    });
    expect(status, stderr).to.equal(0);
  });
});

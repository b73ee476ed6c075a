import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { writeRun } from "../report/fixtures.js";

const MAIN = path.join(__dirname, "../../lib/cli/main.js");

describe("revnet report", function () {
  this.timeout(60_000);
  let folder: string;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-cli-report-"));
    for (const name of ["a", "b"]) await writeRun(path.join(folder, name));
  });
  after(() => rm(folder, { recursive: true }));

  const report = (...args: string[]) =>
    new Promise<{ status: number; stdout: string; stderr: string }>((resolve) => {
      const child = execFile(process.execPath, [MAIN, "report", ...args], { cwd: folder }, (_, stdout, stderr) =>
        resolve({ status: child.exitCode!, stdout, stderr }),
      );
    });
  const titleOf = async (file: string) => /<h1>(.*)<\/h1>/.exec(await readFile(path.join(folder, file), "utf8"))?.[1];

  it("makes report.html of a run again", async () => {
    expect(await report("a")).to.deep.equal({ status: 0, stdout: `${path.join("a", "report.html")}\n`, stderr: "" });
    expect(await titleOf("a/report.html")).to.equal("tiny: a");
  });

  it("compares several runs", async () => {
    expect((await report("a", "b")).stdout).to.equal("comparison.html\n");
    expect(await titleOf("comparison.html")).to.equal("a, b");
    const { stdout } = await report("a", "b", "--out", "page.html", "--json");
    expect(JSON.parse(stdout)).to.deep.equal({ file: "page.html", runs: ["a", "b"] });
    expect(await titleOf("page.html")).to.equal("a, b");
  });

  it("exits 1 where a folder holds no run, 2 where none is given", async () => {
    const { status, stderr } = await report("a", "nothing");
    expect(stderr).to.match(/^revnet: 'nothing' holds no run/);
    expect(status).to.equal(1);
    expect((await report()).status).to.equal(2);
  });
});

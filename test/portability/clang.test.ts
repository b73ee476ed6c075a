/** The addon by Clang: it trains with the bits of GCC's. With libc++, which macOS has, its sources compile. */
import { spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect } from "chai";
import { build, lacking, mocha, ROOT } from "./build.js";

const FOLDER = path.join(ROOT, "build-clang");

/** In a shell, for which CMake quotes its commands. */
function finished(command: string, cwd: string): Promise<{ status: number | null; stderr: string }> {
  const child = spawn(command, { cwd, shell: true, stdio: ["ignore", "ignore", "pipe"] });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  return new Promise((resolve, reject) => child.on("error", reject).on("close", (status) => resolve({ status, stderr })));
}

describe("Clang", function () {
  // With another addon the suites run on that one, and this is one of them.
  if (process.env.REVNET_ADDON || process.platform !== "linux") return;
  this.timeout(600_000);
  this.slow(300_000);

  before(function () {
    if (lacking("clang++")) {
      console.log("    skipped: there is no clang++");
      return this.skip();
    }
    expect(build("clang", { CXX: "clang++" })).to.equal("");
  });

  it("builds an addon with the common bits", async () => {
    const platform = { node: [process.execPath], addon: path.join(FOLDER, "Release", "revnet.node") };
    const { status, stdout, stderr } = await mocha(platform, ["verify/verify"], "common bits");
    expect(status, `${stdout}\n${stderr}`).to.equal(0);
    expect(stdout).to.match(/[1-9]\d* passing/);
  });

  it("compiles all sources with libc++, without a warning", async function () {
    const probe = spawnSync("clang++", ["-stdlib=libc++", "-x", "c++", "-fsyntax-only", "-"], { input: "#include <vector>\n" });
    if (probe.status !== 0) {
      console.log("      skipped: there is no libc++ (Debian: libc++-dev, libc++abi-dev)");
      return this.skip();
    }
    const commands = JSON.parse(readFileSync(path.join(FOLDER, "compile_commands.json"), "utf8")) as Record<string, string>[];
    const units = commands.filter(({ file }) => file!.includes(`${path.sep}native${path.sep}`));
    expect(units.length).to.be.above(20);
    const check = async (): Promise<void> => {
      for (let unit = units.shift(); unit; unit = units.shift()) {
        const checked = unit.command!.replace(/ -o \S+/, "").replace(/ -c /, " -fsyntax-only -stdlib=libc++ -Werror ");
        const { status, stderr } = await finished(checked, unit.directory!);
        expect(status, `${unit.file}\n${stderr}`).to.equal(0);
      }
    };
    await Promise.all(Array.from({ length: os.availableParallelism() }, check));
  });
});

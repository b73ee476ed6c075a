/**
 * The packed tarball in a project of its own, as users have it: installed by npm, compiled, and used from an ES module, from
 * CommonJS and from strict TypeScript; and with install scripts blocked, where `npx revnet build` repairs it. Without a network: a
 * registry of the test's serves the dependencies.
 */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync, utimesSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { Registry } from "./registry.js";

const root = path.resolve(__dirname, "../../..");
const { version } = require(path.join(root, "package.json")) as { version: string };
const typesVersion = (require(path.join(root, "node_modules/@types/node/package.json")) as { version: string }).version;

/** Of a model so small that training it takes no time. */
const MODEL = `{ name: "tiny", kind: "revnet", stem: "cifar", input: [32, 32, 3], classes: 10, filters: [8, 8, 16], units: [2, 2],
  strides: [2, 2], bottleneck: false }`;
const OPTIONS = `{ model: ${MODEL}, data: "shapes", trainCount: 100, testCount: 20, batchSize: 20, steps: 3, threads: 1 }`;

const ESM = `import { trainRevNet } from "revnet";
const run = trainRevNet(${OPTIONS});
for await (const event of run) if (event.type === "step") console.log(event.step);
const { network, summary } = await run;
console.log(summary.weightsSha256);
network.dispose();
`;
const COMMONJS = `const { trainRevNet } = require("revnet");
trainRevNet(${OPTIONS}).then(({ network, summary }) => {
  console.log(summary.weightsSha256);
  network.dispose();
});
`;
const TYPESCRIPT = `import { type NetworkSpec, RevNetError, type Summary, type TrainingEvent, trainRevNet, type TrainOptions } from "revnet";
const model: NetworkSpec = ${MODEL};
const options: TrainOptions = { ...${OPTIONS}, model };
async function main(): Promise<void> {
  const run = trainRevNet(options);
  const seen: TrainingEvent["type"][] = [];
  for await (const event of run) if (seen.push(event.type) && event.type === "step") console.log(event.step, event.loss.toFixed(3));
  const { network, summary }: { network: { dispose(): void }; summary: Summary } = await run;
  // @ts-expect-error: the compiler sees that there is no such option
  await trainRevNet({ ...options, batchsize: 1 }).catch((error: unknown) => console.log((error as RevNetError).code));
  console.log(summary.weightsSha256);
  network.dispose();
}
void main();
`;

/** What is advised where the addon is missing. npx would ask the registry for `revnet` wherever it does not find the program. */
const REPAIR = "node node_modules/revnet/scripts/build.js native";
const REUSE = path.join(root, "test", "package", "reuse-object.cjs");

/** Whether the repository's addon is newer than all it was built from, so that its objects are those that compiling would give. */
function isBuildCurrent(): boolean {
  const addon = path.join(root, "build", "Release", "revnet.node");
  if (!existsSync(addon) || !existsSync(path.join(root, "build", "compile_commands.json"))) return false;
  const native = readdirSync(path.join(root, "native"), { recursive: true, encoding: "utf8" });
  const sources = ["CMakeLists.txt", ...native.map((name) => path.join("native", name))];
  const { mtimeMs } = statSync(addon);
  return sources.every((name) => statSync(path.join(root, name)).mtimeMs < mtimeMs);
}

describe("the tarball in a project of its own", function () {
  this.timeout(15 * 60_000); // compiling, on a machine that has other things to do
  let registry: Registry;
  let folder: string;
  let project: string;
  let environment: NodeJS.ProcessEnv;
  let expectedSha: string;
  const installed = (...parts: string[]) => path.join(project, "node_modules", "revnet", ...parts);

  /** Runs a program in the project. */
  function run(program: string, args: string[], env = environment): Promise<{ status: number; stdout: string; stderr: string }> {
    return new Promise((resolve) => {
      execFile(program, args, { cwd: project, encoding: "utf8", env, maxBuffer: 2 ** 26 }, (error, stdout, stderr) =>
        resolve({ status: error === null ? 0 : Number(error.code ?? 1), stdout, stderr }),
      );
    });
  }
  /** The same, where nothing else than success is expected; returns what it prints. */
  async function succeed(program: string, ...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await run(program, args);
    expect(status, `${program} ${args.join(" ")}\n${stdout}\n${stderr}`).to.equal(0);
    return stdout;
  }
  const node = (...args: string[]) => succeed(process.execPath, ...args);
  const install = (...more: string[]) =>
    succeed(
      "npm",
      "install",
      "--no-audit",
      "--no-fund",
      path.join(folder, `revnet-${version}.tgz`),
      `@types/node@${typesVersion}`,
      ...more,
    );

  before(async function () {
    if (process.platform === "win32") return this.skip(); // npm is a script there
    folder = await mkdtemp(path.join(tmpdir(), "revnet-install-"));
    project = path.join(folder, "project");
    await mkdir(project);
    registry = new Registry(root);
    await registry.listen();
    // None of the settings of the npm that runs the tests, nor of its user.
    const kept = Object.entries(process.env).filter(([key]) => !/^npm_/i.test(key));
    await writeFile(path.join(folder, "npmrc"), "");
    environment = {
      ...Object.fromEntries(kept),
      npm_config_registry: registry.url,
      npm_config_cache: path.join(folder, "cache"),
      npm_config_userconfig: path.join(folder, "npmrc"),
      npm_config_globalconfig: path.join(folder, "none"),
      npm_config_update_notifier: "false",
      NO_PROXY: "127.0.0.1",
      no_proxy: "127.0.0.1",
      REVNET_CUDA: "off",
    };
    // What `npm approve-scripts` writes; an npm that blocks no scripts takes no notice.
    const allowScripts = { [`file:${path.join(folder, `revnet-${version}.tgz`)}`]: true };
    if (isBuildCurrent()) {
      await chmod(REUSE, 0o755);
      Object.assign(environment, {
        CMAKE_CXX_COMPILER_LAUNCHER: REUSE,
        REVNET_TEST_REUSE: root,
        REVNET_TEST_REUSE_LOG: path.join(folder, "reused"),
      });
    }
    await writeFile(path.join(project, "package.json"), JSON.stringify({ name: "project", private: true, allowScripts }));
    await succeed("npm", "pack", root, "--ignore-scripts", "--pack-destination", folder);
  });
  after(async () => {
    registry?.close();
    if (folder) await rm(folder, { recursive: true });
  });

  it("installs and compiles", async () => {
    await install();
    expect(existsSync(installed("build", "Release", "revnet.node")), "the addon").to.equal(true);
    // Were one file of these missing or another one, an object from elsewhere would hide it.
    for (const { parentPath, name } of readdirSync(path.join(root, "native"), { recursive: true, withFileTypes: true })) {
      const file = path.relative(root, path.join(parentPath, name));
      if (!statSync(path.join(root, file)).isFile() || name === "README.md") continue;
      expect(readFileSync(installed(file)).equals(readFileSync(path.join(root, file))), file).to.equal(true);
    }
    expect(await succeed("npx", "revnet", "--version")).to.equal(`${version}\n`);
    const doctor = JSON.parse(await succeed("npx", "revnet", "doctor", "--json")) as {
      trainable: boolean;
      build: { cuda: unknown };
    };
    expect(doctor).to.deep.include({ trainable: true });
    expect(doctor.build.cuda).to.equal(null);
  });

  it("trains from an ES module", async () => {
    await writeFile(path.join(project, "train.mjs"), ESM);
    const lines = (await node("train.mjs")).trimEnd().split("\n");
    expect(lines.slice(0, 3)).to.deep.equal(["1", "2", "3"]);
    expectedSha = lines[3]!;
    expect(expectedSha).to.match(/^[0-9a-f]{64}$/);
  });

  it("trains from CommonJS, with the same weights", async () => {
    await writeFile(path.join(project, "train.cjs"), COMMONJS);
    expect((await node("train.cjs")).trim()).to.equal(expectedSha);
  });

  it("trains from strict TypeScript, as an ES module and as CommonJS", async () => {
    const files = ["typed.mts", "typed.cts"];
    for (const file of files) await writeFile(path.join(project, file), TYPESCRIPT);
    const compilerOptions = {
      strict: true,
      exactOptionalPropertyTypes: true,
      module: "nodenext",
      target: "es2022",
      types: ["node"],
    };
    await writeFile(path.join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
    await node(path.join(root, "node_modules", "typescript", "bin", "tsc"), "-p", "tsconfig.json");
    for (const file of files) {
      const lines = (await node(file.replace("ts", "js"))).trimEnd().split("\n");
      expect(lines).to.have.length(5);
      expect(lines[3]).to.equal("ERR_INVALID_ARGUMENT");
      expect(lines[4]).to.equal(expectedSha);
    }
  });

  it("trains by the command line, and finds what it needs for reports", async () => {
    await writeFile(path.join(project, "tiny.json"), JSON.stringify(new Function(`return ${MODEL}`)()));
    const flags = "--data shapes --train-count 100 --test-count 20 --batch-size 20 --steps 3 --threads 1 --out run".split(" ");
    await succeed("npx", "revnet", "train", "--model", "tiny.json", ...flags);
    const summary = JSON.parse(await readFile(path.join(project, "run", "summary.json"), "utf8")) as { weightsSha256: string };
    expect(summary.weightsSha256).to.equal(expectedSha);
    expect(await readFile(path.join(project, "run", "report.html"), "utf8")).to.include("uPlot");
  });

  describe("with install scripts blocked", () => {
    before(async () => {
      // What was compiled is kept, but not what was linked from it: compiling everything again would take minutes.
      const kept = path.join(folder, "build");
      await rename(installed("build"), kept);
      await rm(path.join(project, "node_modules"), { recursive: true });
      await install("--ignore-scripts");
      expect(existsSync(installed("build"))).to.equal(false);
      await rm(path.join(kept, "Release"), { recursive: true });
    });

    it("says so, and what to do", async () => {
      for (const file of ["train.mjs", "train.cjs"]) {
        const { status, stderr } = await run(process.execPath, [file]);
        expect(status).to.equal(1);
        expect(stderr).to.match(/RevNetError: .*missing.*not compiled when the package was installed. Install scripts are blocked/);
        expect(stderr).to.include(REPAIR).and.to.include("ERR_ADDON_MISSING");
      }
      const { status, stderr } = await run("npx", ["revnet", "doctor"]);
      expect(status).to.equal(1);
      expect(stderr).to.include(REPAIR).and.not.to.include("    at ");
    });

    it("has a command line that works as far as it can", async () => {
      expect(await succeed("npx", "revnet", "--version")).to.equal(`${version}\n`);
      expect(await succeed("npx", "revnet", "--help")).to.match(/^ +build +Compiles the native addon/m);
    });

    it("names what is missing where CMake or a compiler is", async () => {
      const revnet = [installed("dist", "cli", "main.js"), "build"];
      const withoutCMake = await run(process.execPath, revnet, { ...environment, PATH: folder });
      expect(withoutCMake.status).to.equal(1);
      expect(withoutCMake.stderr)
        .to.match(/CMake 3\.\d+ or later is needed/)
        .and.match(/apt-get install cmake/)
        .and.include(REPAIR);
      const withoutCompiler = await run(process.execPath, revnet, { ...environment, CXX: "no-such-compiler" });
      expect(withoutCompiler.status).to.equal(1);
      expect(withoutCompiler.stderr).to.match(/C\+\+20 compiler is needed.*no `no-such-compiler` in PATH/);
    });

    it("is repaired by npx revnet build", async () => {
      await rename(path.join(folder, "build"), installed("build"));
      // npm gives files the time of their installation; these are those that the objects were compiled from.
      for (const name of ["revnet/native", "node-addon-api", "node-api-headers"])
        for (const file of readdirSync(path.join(project, "node_modules", name), { recursive: true, encoding: "utf8" }))
          utimesSync(path.join(project, "node_modules", name, file), 0, 0);
      expect(await succeed("npx", "revnet", "build")).to.match(new RegExp(`^built: revnet ${version}, .*without CUDA`));
      expect((await node("train.cjs")).trim()).to.equal(expectedSha);
    });
  });
});

#!/usr/bin/env node
/**
 * Builds what a fresh clone or an installed package lacks: `node scripts/build.js [native] [typescript] [tests] [emulated]`.
 *   native      the addon, with CMake and a C++20 compiler; downloads nothing (npm runs this as the `install` script)
 *   typescript  lib/ to dist/ (in a clone; the published package brings dist/ along)
 *   tests       test/ to dist-test/
 *   emulated    the addon with CUDA emulated on the processor (test/emulation), in build-emulated/, for tests
 * REVNET_CUDA=off leaves CUDA out even where there is a toolkit; CMAKE_BUILD_PARALLEL_LEVEL sets the number of jobs.
 */

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const root = path.resolve(__dirname, "..");

/** What to say where a tool is missing: what it is, how to get it, how to go on. */
function missing(what, { debian, fedora, macos }) {
  return [
    `revnet: ${what}`,
    `  Debian, Ubuntu:  apt-get install ${debian}`,
    `  Fedora, RHEL:    dnf install ${fedora}`,
    `  macOS:           ${macos}`,
    `  Then build again: ${root.split(path.sep).includes("node_modules") ? "npx revnet build" : "npm run build"}`,
  ].join("\n");
}

/** Ends the build: these are messages for people, a stack would only bury them. */
function fail(message) {
  console.error(`\n${message}\n`);
  process.exit(1);
}

function run(command, args, options = {}) {
  return spawnSync(command, args, { cwd: root, encoding: "utf8", ...options });
}

function checkCMake() {
  const oldest = [3, 19];
  const advice = { debian: "cmake", fedora: "cmake", macos: "brew install cmake" };
  const { error, stdout } = run("cmake", ["--version"]);
  const version = /version (\d+)\.(\d+)/.exec(stdout ?? "");
  if (error || !version)
    fail(
      missing(`CMake ${oldest.join(".")} or later is needed to build the native addon, and there is no \`cmake\` in PATH.`, advice),
    );
  const [major, minor] = [Number(version[1]), Number(version[2])];
  if (major < oldest[0] || (major === oldest[0] && minor < oldest[1]))
    fail(missing(`CMake ${oldest.join(".")} or later is needed to build the native addon, and this is ${major}.${minor}.`, advice));
}

function checkMake() {
  if (process.platform === "win32") return;
  if (["ninja", "make", "gmake"].some((tool) => !run(tool, ["--version"]).error)) return;
  const advice = { debian: "make", fedora: "make", macos: "xcode-select --install" };
  fail(missing("CMake needs `make` or `ninja` to build the native addon, and there is neither in PATH.", advice));
}

/** Compiles a small C++20 program with the compiler that CMake would take: the first of CXX, c++, g++, clang++. */
function checkCompiler() {
  if (process.platform === "win32") return; // CMake finds Visual Studio by means of its own, and says so where it is missing.
  const advice = { debian: "g++ make", fedora: "gcc-c++ make", macos: "xcode-select --install" };
  const source =
    "#include <concepts>\n#include <vector>\ntemplate <std::integral T> T twice(T x) { return 2 * x; }\nint main() { return twice(0); }\n";
  const candidates = process.env.CXX ? [process.env.CXX] : ["c++", "g++", "clang++"];
  for (const candidate of candidates) {
    const [command, ...args] = candidate.split(" ");
    const { error, status, stderr } = run(command, [...args, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"], { input: source });
    if (error) continue;
    if (status === 0) return;
    fail(
      missing(
        `a C++20 compiler is needed to build the native addon, and \`${candidate}\` is not one (GCC 10, Clang 13 or later are):\n${stderr.trim()}`,
        advice,
      ),
    );
  }
  fail(
    missing(
      `a C++20 compiler is needed to build the native addon, and there is no ${candidates.map((c) => `\`${c}\``).join(" or ")} in PATH.`,
      advice,
    ),
  );
}

function findCMakeJs() {
  try {
    return path.join(path.dirname(require.resolve("cmake-js/package.json")), "bin", "cmake-js");
  } catch {
    return fail("revnet: its dependency cmake-js is not installed, which runs CMake: run `npm install`.");
  }
}

/** `args`: of cmake-js, beside the command. */
function buildNative(...args) {
  checkCMake();
  checkCompiler();
  checkMake();
  const cmakeJs = findCMakeJs();
  const env = {
    ...process.env,
    CMAKE_BUILD_PARALLEL_LEVEL: process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(os.availableParallelism()),
  };
  for (const command of ["configure", "build"]) {
    const { status } = run(process.execPath, [cmakeJs, command, "--log-level", "error", ...args], { stdio: "inherit", env });
    if (status !== 0) fail("revnet: the native addon could not be built; what CMake or the compiler said is above.");
  }
}

/** `project`: a tsconfig, relative to the root. */
function compile(project) {
  let compiler;
  try {
    compiler = require.resolve("typescript/bin/tsc", { paths: [root] });
  } catch {
    fail(
      "revnet: TypeScript is missing, which builds a clone of this repository: run `npm install` (with development dependencies).",
    );
  }
  if (run(process.execPath, [compiler, "-p", project], { stdio: "inherit" }).status !== 0)
    fail(`revnet: ${project} does not compile.`);
}

const targets = {
  native: () => buildNative(),
  emulated: () => buildNative("--out", "build-emulated", "--CDREVNET_EMULATION=ON"),
  typescript() {
    compile("tsconfig.json");
    const main = path.join(root, "dist", "cli", "main.js");
    if (fs.existsSync(main)) fs.chmodSync(main, 0o755);
  },
  tests: () => compile("test/tsconfig.json"),
};

const asked = process.argv.slice(2);
for (const name of asked.length > 0 ? asked : ["native", "typescript"]) {
  if (!Object.hasOwn(targets, name)) fail(`revnet: unknown target '${name}'; expected ${Object.keys(targets).join(", ")}`);
  targets[name]();
}

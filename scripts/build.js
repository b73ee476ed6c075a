#!/usr/bin/env node
/**
 * Builds what a fresh clone or an installed package lacks: `node scripts/build.js [native] [typescript] [tests] [emulated] [clang] [arm64]`.
 *   native      the addon, with CMake and a C++20 compiler; downloads nothing (npm runs this as the `install` script)
 *   typescript  lib/ to dist/ (in a clone; the published package brings dist/ along)
 *   tests       test/ to dist-test/
 *   emulated    the addon with CUDA emulated on the processor (test/emulation), in build-emulated/, for tests
 *   clang       the addon without CUDA, by clang++ (or CXX), in build-clang/, to compare its bits
 *   arm64       the addon for arm64 Linux, by a cross compiler (cmake/aarch64-linux-gnu.cmake), in build-arm64/
 * REVNET_CUDA=off leaves CUDA out even where there is a toolkit; CXX names the compiler; CMAKE_BUILD_PARALLEL_LEVEL sets the number of
 * jobs. A build folder that other tools, another place or other sources have left is noticed and built anew (build-folder.js).
 */

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { empty, hashSources, staleness, writeStamp } = require("./build-folder.js");

const root = path.resolve(__dirname, "..");
/** What CMake's lists, its patterns or the generators take for something else than a part of a path. Paired brackets are none. */
const UNBUILDABLE = /[;$"|?:\\]|\p{Cc}/u;
/** The environment's part in what is compiled and how. */
const ENVIRONMENT = [
  ...[
    "CXXFLAGS",
    "LDFLAGS",
    "CPPFLAGS",
    "CUDACXX",
    "CUDAHOSTCXX",
    "CUDAFLAGS",
    "CUDA_PATH",
    "CUDAToolkit_ROOT",
    "CMAKE_TOOLCHAIN_FILE",
  ],
  ...["CMAKE_PREFIX_PATH", "MACOSX_DEPLOYMENT_TARGET", "SDKROOT"],
];

/**
 * The command that repeats this build. Never one by the package's name: where npm has taken the package back, that would fetch whatever
 * the registry has under this name.
 */
function again() {
  const { npm_lifecycle_event: script, npm_command: command } = process.env;
  if (script === "install") return command === "rebuild" ? "npm rebuild" : "repeat the installation";
  if (script?.startsWith("build")) return `npm run ${script}`;
  const file = path.relative(process.cwd(), __filename);
  return `node ${/[^\w./@+-]/.test(file) ? JSON.stringify(file) : file} native`;
}

/** What to say where a tool is missing: what it is, how to get it, how to go on. */
function missing(what, { debian, fedora, macos }) {
  return [
    `revnet: ${what}`,
    `  Debian, Ubuntu:  apt-get install ${debian}`,
    `  Fedora, RHEL:    dnf install ${fedora}`,
    `  macOS:           ${macos}`,
    `  Then build again: ${again()}`,
  ].join("\n");
}

/** Paths and variables may hold what a terminal acts on. */
const shown = (text) => text.replace(/(?!\n)\p{Cc}/gu, (character) => JSON.stringify(character).slice(1, -1));

/** Ends the build: these are messages for people, a stack would only bury them. */
function fail(message) {
  console.error(`\n${shown(message)}\n`);
  process.exit(1);
}

function run(command, args, options = {}) {
  return spawnSync(command, args, { cwd: root, encoding: "utf8", ...options });
}

/** @returns its version */
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
  return stdout.split("\n", 1)[0];
}

/** @returns CMake's generator: Ninja where there is one */
function checkMake() {
  if (process.env.CMAKE_GENERATOR) return process.env.CMAKE_GENERATOR;
  if (!run("ninja", ["--version"]).error) return "Ninja";
  if (["make", "gmake"].some((tool) => !run(tool, ["--version"]).error)) return "Unix Makefiles";
  const advice = { debian: "make", fedora: "make", macos: "xcode-select --install" };
  fail(missing("CMake needs `make` or `ninja` to build the native addon, and there is neither in PATH.", advice));
}

/** Where PATH has a program; undefined: nowhere. */
function find(program) {
  const places = program.includes(path.sep) ? [path.resolve(program)] : [];
  for (const folder of (process.env.PATH ?? "").split(path.delimiter)) places.push(path.join(folder, program));
  return places.find((file) => fs.statSync(file, { throwIfNoEntry: false })?.isFile());
}

/**
 * Compiles a small C++20 program with the compiler that CMake would take: the first of CXX, c++, g++, clang++.
 * @returns the program, what CXX adds to it, and its version
 */
function checkCompiler(chosen = process.env.CXX) {
  const advice = { debian: "g++ make", fedora: "gcc-c++ make", macos: "xcode-select --install" };
  const source =
    "#include <concepts>\n#include <vector>\ntemplate <std::integral T> T twice(T x) { return 2 * x; }\nint main() { return twice(0); }\n";
  const candidates = chosen ? [chosen] : ["c++", "g++", "clang++"];
  for (const candidate of candidates) {
    const [command, ...args] = find(candidate) ? [candidate] : candidate.trim().split(/ +/);
    const { error, status, stderr } = run(command, [...args, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"], { input: source });
    if (error) continue;
    if (status === 0)
      return { file: find(command) ?? command, args, version: run(command, [...args, "--version"]).stdout?.split("\n", 1)[0] };
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

/** The folder of a package that the addon is compiled with. */
function findPackage(name, from = root) {
  try {
    return path.dirname(require.resolve(`${name}/package.json`, { paths: [from] }));
  } catch {
    return fail(`revnet: its dependency ${name} is not installed, which the native addon is compiled with: run \`npm install\`.`);
  }
}

function checkPaths(...folders) {
  for (const folder of folders) {
    const found = UNBUILDABLE.exec(folder) ?? /[[\]]/.exec(folder.replace(/\[[^[\]]*\]/g, ""));
    if (found)
      fail(
        `revnet: the native addon cannot be built in '${folder}': CMake does not take '${found[0]}' in a path. Install into another folder.`,
      );
  }
}

/** That the addon is more than a file: it loads into this Node.js, and is of this version. */
function checkAddon(file) {
  const source =
    "const { version } = require(process.argv[1]).buildInfo(); if (version !== process.argv[2]) throw Error('it is of version ' + version)";
  const { version } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
  const { status, stderr } = run(process.execPath, ["-e", source, file, version]);
  if (status === 0 || /ERR_DLOPEN_DISABLED/.test(stderr)) return undefined;
  return /^\w*Error: .*/m.exec(stderr)?.[0] ?? stderr.trim();
}

/**
 * `output`: the build folder, in the root. `args`: of cmake-js, beside the command. `cxx`: the compiler. `cuda`: REVNET_CUDA, where the
 * environment's does not matter. `foreign`: another processor's addon, which cannot be loaded here.
 */
function buildNative(output, args = [], { cxx, cuda, foreign = false } = {}) {
  if (process.platform === "win32")
    fail("revnet does not support Windows itself: install it inside WSL2, where it runs as on Linux (https://aka.ms/wslinstall).");
  const cmake = checkCMake();
  const compiler = checkCompiler(cxx);
  const generator = checkMake();
  const [cmakeJs, headers] = [findPackage("cmake-js"), findPackage("node-addon-api")];
  const apiHeaders = findPackage("node-api-headers", cmakeJs);
  const folder = path.join(root, output);
  checkPaths(root, headers, apiHeaders);
  if (fs.existsSync(folder) && !fs.statSync(folder).isDirectory())
    fail(`revnet: '${folder}' is a file, where the folder of the build is to be: remove it.`);

  const chosen = ["--generator", generator, `--CDREVNET_NODE_ADDON_API=${headers}`, ...args];
  // With what CXX adds, CMake has to read it itself; cmake-js wants both or neither.
  if (compiler.args.length === 0 && !foreign) chosen.push("--cxx", compiler.file, "--cc", compiler.file);
  const settings = {
    processor: `${process.platform}-${process.arch}`,
    CMake: cmake,
    generator,
    compiler,
    headers: [headers, apiHeaders],
    options: args,
    environment: Object.fromEntries(ENVIRONMENT.map((name) => [name, process.env[name]])),
  };
  const sources = hashSources(root, [
    "CMakeLists.txt",
    "cmake",
    "native",
    ...(output === "build-emulated" ? ["test/emulation"] : []),
  ]);
  try {
    const stale = staleness(folder, root, JSON.parse(JSON.stringify(settings)), sources);
    if (stale) {
      console.error(shown(`revnet: the build folder ${stale}; everything is compiled anew`));
      chosen.push(...empty(folder));
    }
  } catch (error) {
    fail(`revnet: the folder of the build, '${folder}', cannot be used: ${error.message}`);
  }

  const hadCache = fs.existsSync(path.join(folder, "CMakeCache.txt"));
  const jobs = process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(os.availableParallelism());
  const step = (command) =>
    run(process.execPath, [path.join(cmakeJs, "bin", "cmake-js"), command, "--log-level", "error", "--out", folder, ...chosen], {
      stdio: "inherit",
      env: { ...process.env, CMAKE_BUILD_PARALLEL_LEVEL: jobs, ...(cuda && { REVNET_CUDA: cuda }) },
    }).status === 0;
  const build = () => {
    if (!step("configure")) return "revnet: the native addon could not be configured; what CMake said is above.";
    writeStamp(folder, root, settings, sources);
    if (!step("build")) return "revnet: the native addon could not be built; what CMake or the compiler said is above.";
    if (foreign) return undefined;
    const problem = checkAddon(path.join(folder, "Release", "revnet.node"));
    return problem && `revnet: the native addon was built, but cannot be loaded: ${problem}`;
  };
  let failure = build();
  // In a clone a failure is more likely to be the sources', and compiling all of them again would not help.
  if (failure && hadCache && root.split(path.sep).includes("node_modules")) {
    console.error("revnet: the build folder may be damaged; everything is compiled anew");
    chosen.push(...empty(folder));
    failure = build();
  }
  if (failure) fail(failure);
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
  native: () => buildNative("build"),
  emulated: () => buildNative("build-emulated", ["--CDREVNET_EMULATION=ON"]),
  clang: () => buildNative("build-clang", [], { cxx: process.env.CXX ?? "clang++", cuda: "off" }),
  arm64: () =>
    buildNative("build-arm64", [`--CDCMAKE_TOOLCHAIN_FILE=${path.join(root, "cmake", "aarch64-linux-gnu.cmake")}`], {
      cxx: process.env.REVNET_ARM64_CXX ?? "aarch64-linux-gnu-g++",
      cuda: "off",
      foreign: true,
    }),
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

#!/usr/bin/env node
/**
 * Packs what is built here for a machine with a GPU but neither Node.js nor npm: build-bundle/revnet-bundle.tar.xz, which
 * unpacks to a folder with run.sh (docs/gpu-testing.md). In it are this Node.js, the addon, the compiled package and those of
 * its tests that need no other program, and gpu-check.sh.
 *
 *   npm run bundle [-- --add PATH ...]   files or folders that gpu-check.sh is to be given there, such as a peer or images: in extra/
 */

const { execFileSync, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { parseArgs } = require("node:util");

const root = path.resolve(__dirname, "..");
const output = path.join(root, "build-bundle");
const folder = path.join(output, "revnet-bundle");
const archive = path.join(output, "revnet-bundle.tar.xz");
const maxBytes = 60e6;

/** Suites of test/ that need nothing but the addon, and the modules that they and the package use. */
const suites = ["binding", "cuda", "data", "network", "ops", "support", "training", "verify"];
const modules = [...packageModules(), "chai", "fast-check", "mocha"];
/** Of those suites, what compiles the addon. */
const compiling = ["cuda/emulated.test.js", "cuda/emulated.test.js.map"];
const golden = process.env.REVNET_GOLDEN_DIR ?? path.join(root, "..", "shared", "golden");

const runScript = `#!/bin/sh
# revnet on a machine with a GPU and nothing else. Results are printed; nothing outside the current folder is written.
#   ./run.sh doctor                  what this machine offers
#   ./run.sh test [MOCHA OPTIONS]    the tests, on every device there is; e.g. --grep cuda
#   ./run.sh bench [OPTIONS]         times training steps; --help says more
#   ./run.sh COMMAND [OPTIONS]       any other command of revnet, such as train
#   ./run.sh node SCRIPT             a script, run by the Node.js that is packed here
#   scripts/gpu-check.sh OUT         checks and measures it all, within minutes; --help says more
case "$0" in */*) here=\${0%/*} ;; *) here=. ;; esac
here=$(CDPATH= cd -- "$here" && pwd) || exit 1
# The C++ library that the addon was linked with, only where this machine's own will not do: it may need a newer system.
"$here/node" -e 'process.dlopen({ exports: {} }, process.argv[1])' "$here/build/Release/revnet.node" 2>/dev/null ||
  export LD_LIBRARY_PATH="$here/lib\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export REVNET_GOLDEN_DIR="\${REVNET_GOLDEN_DIR-$here/golden}"
case "\${1-}" in
  test) shift; cd "$here" && exec ./node node_modules/mocha/bin/mocha.js "$@" ;;
  node) shift; exec "$here/node" "$@" ;;
  "") sed -n 's/^#   //p' "$0" ;;
  *) exec "$here/node" "$here/dist/cli/main.js" "$@" ;;
esac
`;

function fail(message) {
  console.error(`bundle: ${message}`);
  process.exit(1);
}

/** What the package needs when it runs: its dependencies but those that compile the addon, and the optional ones that are here. */
function packageModules() {
  const { dependencies, optionalDependencies } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
  const needed = Object.keys(dependencies).filter((name) => name !== "cmake-js" && name !== "node-addon-api");
  return [...needed, ...Object.keys(optionalDependencies).filter((name) => findModule(name, root))];
}

function copy(name, to = name) {
  fs.cpSync(path.join(root, name), path.join(folder, to), { recursive: true, dereference: true });
}

/** The golden files, where there are any: the tests that need them are skipped without. */
function copyGolden() {
  const to = path.join(folder, "golden");
  fs.mkdirSync(to);
  for (const name of fs.existsSync(golden) ? fs.readdirSync(golden) : [])
    if (name.endsWith(".safetensors")) fs.copyFileSync(path.join(golden, name), path.join(to, name));
}

/** A module's folder: where Node.js would find it from `from`; undefined where it is not installed. */
function findModule(name, from) {
  for (let at = from; ; at = path.dirname(at)) {
    const candidate = path.join(at, "node_modules", name);
    if (fs.existsSync(path.join(candidate, "package.json"))) return candidate;
    if (at === path.dirname(at)) return undefined;
  }
}

/** The folders of modules, relative to the root, and those of all that they need. */
function moduleFolders(names, from = root, found = new Set()) {
  for (const name of names) {
    const at = findModule(name, from) ?? fail(`the module '${name}' is not installed: run npm install`);
    const relative = path.relative(root, at);
    if (found.has(relative)) continue;
    found.add(relative);
    const { dependencies = {}, optionalDependencies = {} } = JSON.parse(fs.readFileSync(path.join(at, "package.json"), "utf8"));
    // Often one for each platform, of which npm installs this one's.
    const optional = Object.keys(optionalDependencies);
    moduleFolders([...Object.keys(dependencies), ...optional.filter((other) => findModule(other, at))], at, found);
  }
  return found;
}

/** Libraries that the addon and Node.js load, by name: those of the C++ compiler, which an older system may lack. */
function compilerLibraries() {
  const addon = path.join(root, "build", "Release", "revnet.node");
  const libraries = execFileSync("ldd", [addon, process.execPath], { encoding: "utf8" }).matchAll(
    /(lib(?:stdc\+\+|gcc_s)\.so\.\d+) => (\S+)/g,
  );
  return new Map([...libraries].map(([, name, file]) => [name, file]));
}

/** Unpacks the archive where no module of this clone can be found, and lets it load its tests. */
function check() {
  const elsewhere = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-bundle-"));
  try {
    execFileSync("tar", ["-xJf", archive, "-C", elsewhere]);
    const run = path.join(elsewhere, path.basename(folder), "run.sh");
    const { status, stdout, stderr } = spawnSync(run, ["test", "--dry-run"], { encoding: "utf8" });
    if (status !== 0) throw new Error(`its tests do not load:\n${stdout.slice(-2000)}${stderr.slice(-2000)}`);
  } finally {
    fs.rmSync(elsewhere, { recursive: true });
  }
}

function main() {
  const { add: added } = parseArgs({ options: { add: { type: "string", multiple: true, default: [] } } }).values;
  for (const file of added) if (!fs.existsSync(file)) fail(`--add: there is no ${file}`);
  if (process.platform !== "linux") fail("bundles are for Linux, and made on it");
  for (const built of ["build/Release/revnet.node", "dist/cli/main.js", "dist-test/test/ops"])
    if (!fs.existsSync(path.join(root, built))) fail(`${built} is missing: run npm run build, and npm run pretest for the tests`);
  const { cuda, cudaArchitectures } = require(path.join(root, "build", "Release", "revnet.node")).buildInfo();

  fs.rmSync(output, { recursive: true, force: true });
  fs.mkdirSync(path.join(folder, "lib"), { recursive: true });
  for (const name of ["LICENSE", "package.json", ".mocharc.json", "assets", "bench", "dist", "models", "dist-test/lib"]) copy(name);
  for (const name of ["scripts/gpu-check.sh", "scripts/gpu-check"]) copy(name);
  for (const file of added)
    fs.cpSync(file, path.join(folder, "extra", path.basename(file)), { recursive: true, dereference: true });
  copy("build/Release/revnet.node");
  for (const suite of suites) if (fs.existsSync(path.join(root, "dist-test", "test", suite))) copy(`dist-test/test/${suite}`);
  for (const name of compiling) fs.rmSync(path.join(folder, "dist-test", "test", name), { force: true });
  for (const name of moduleFolders(modules)) copy(name);
  copyGolden();
  fs.copyFileSync(fs.realpathSync(process.execPath), path.join(folder, "node"));
  fs.chmodSync(path.join(folder, "node"), 0o755);
  for (const [name, file] of compilerLibraries()) fs.copyFileSync(fs.realpathSync(file), path.join(folder, "lib", name));
  fs.writeFileSync(path.join(folder, "run.sh"), runScript, { mode: 0o755 });

  execFileSync("tar", ["--owner=0", "--group=0", "-C", output, "-cJf", archive, path.basename(folder)], {
    env: { ...process.env, XZ_OPT: "-6 -T0" },
  });
  const { size } = fs.statSync(archive);
  const megabytes = (size / 1e6).toFixed(1);
  if (size > maxBytes) fail(`${archive} takes ${megabytes} MB, and is to take at most ${maxBytes / 1e6}`);
  check();
  console.log(
    `${path.relative(root, archive)}: ${megabytes} MB, CUDA ${cuda ? `${cuda} for ${cudaArchitectures.join(", ")}` : "not in it"}`,
  );
}

main();

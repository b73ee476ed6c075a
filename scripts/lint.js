#!/usr/bin/env node
/** Checks format and lint of TypeScript, JavaScript and JSON (Biome) and the format of C++ (clang-format); --write repairs. */

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const write = process.argv.includes("--write");

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error?.code === "ENOENT") return undefined;
  if (error) throw error;
  return status === 0;
}

function nativeSources() {
  return ["native", "test/emulation", "test/native"].flatMap((folder) =>
    fs
      .readdirSync(path.join(root, folder), { recursive: true })
      .filter((name) => /\.(cc|h|cu|cuh)$/.test(name))
      .map((name) => path.join(folder, name)),
  );
}

const biome = require.resolve("@biomejs/biome/bin/biome", { paths: [root] });
let clean = run(process.execPath, [biome, "check", ...(write ? ["--write"] : ["--error-on-warnings"]), "."]);
const formatted = run("clang-format", [...(write ? ["-i"] : ["--dry-run", "-Werror"]), ...nativeSources()]);
if (formatted === undefined) console.warn("clang-format is not installed: the format of the C++ sources was not checked");
else clean = clean && formatted;
process.exit(clean ? 0 : 1);

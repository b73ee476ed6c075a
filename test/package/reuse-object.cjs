#!/usr/bin/env node
/**
 * Stands before the compiler (CMAKE_CXX_COMPILER_LAUNCHER) while the packed addon is built for a test: where the repository's own build
 * has compiled the same source with the same options, its object is taken, which spares minutes. REVNET_TEST_REUSE names the
 * repository, whose build the test has found to be current. Configuring, linking and whatever differs are done for real.
 */
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

const [compiler, ...args] = process.argv.slice(2);
const after = (list, flag) => list[list.indexOf(flag) + 1];

/** What decides the object: all but where things lie. */
function options(list) {
  const places = ["-o", "-c", "-isystem", "-MF", "-MT", "-MQ"];
  const flags = list.filter((arg, i) => !places.includes(arg) && !places.includes(list[i - 1]));
  return flags.filter((arg) => !/^-(I|MD$|MMD$)/.test(arg)).join(" ");
}

/** The repository's object for this source; undefined if there is none, or one made with other options. */
function twin() {
  const source = after(args, "-c")?.replace(/^.*?\/(?=native\/)/, "");
  const build = path.join(process.env.REVNET_TEST_REUSE, "build");
  const commands = JSON.parse(fs.readFileSync(path.join(build, "compile_commands.json"), "utf8"));
  const entry = commands.find(({ file }) => source !== undefined && file.endsWith(`/${source}`));
  // What CMake writes here is quoted for a shell; of what is compared, only definitions have quotes.
  const [, ...other] = entry?.command.replace(/\\"/g, '"').split(/ +/) ?? [];
  if (!entry || options(other) !== options(args)) return undefined;
  const object = path.join(entry.directory, after(other, "-o"));
  return fs.existsSync(object) ? object : undefined;
}

let object;
try {
  object = twin();
} catch {
  // Then it is compiled.
}
if (object) {
  fs.copyFileSync(object, after(args, "-o"));
  const dependencies = args.includes("-MF") ? after(args, "-MF") : undefined;
  if (dependencies) fs.writeFileSync(dependencies, `${after(args, "-o")}: ${after(args, "-c")}\n`);
  fs.appendFileSync(process.env.REVNET_TEST_REUSE_LOG, `${after(args, "-c")}\n`);
} else {
  process.exitCode = spawnSync(compiler, args, { stdio: "inherit" }).status ?? 1;
}

/**
 * revnet build: compiles the native addon where installing did not, so it must not need the addon itself. What compiles is
 * scripts/build.js, which `npm install` runs too.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import path from "node:path";
import { RevNetError } from "../errors.js";
import { native } from "../native/index.js";
import { packageRoot } from "../package.js";
import { defineCommand, JSON_FLAG } from "./command.js";
import { print, printError, printJson } from "./output.js";

export const build = defineCommand({
  name: "build",
  summary: "Compiles the native addon, as installing the package does unless install scripts are blocked. Needs CMake and C++20.",
  positionals: "",
  arity: [0, 0],
  flags: JSON_FLAG,
  async run({ json }) {
    const root = packageRoot();
    const script = path.join(root, "scripts", "build.js");
    if (!existsSync(script)) throw new RevNetError("ERR_FILE", `'${script}' is missing; reinstall the package`);
    printError(`compiling the native addon in ${root}; this takes one to two minutes, and several more with CUDA`);
    // What CMake and the compiler say is not the command's result.
    const child = spawn(process.execPath, [script, "native"], { stdio: ["ignore", process.stderr, process.stderr] });
    const [status] = (await once(child, "close")) as [number | null];
    // The script has said what is wrong and what to do.
    if (status !== 0) return 1;
    const info = native.buildInfo();
    if (json) printJson(info);
    else print(`built: revnet ${info.version}, ${info.compiler}, ${info.cuda ? `CUDA ${info.cuda}` : "without CUDA"}`);
    return 0;
  },
});

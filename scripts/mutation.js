#!/usr/bin/env node
/**
 * Mutation testing of lib/ by StrykerJS: `npm run test:mutation -- lib/formats lib/training/best.ts`. Changes the code at one place at a
 * time, runs the suites of its folder, and prints which share of the changes they noticed, by file and by folder.
 *   --survivors  lists the changes that went unnoticed as well
 * REVNET_MUTATION_JOBS processes run at a time, 1 by default. It is beside CI, since it takes from minutes (lib/formats) to hours.
 */

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const root = path.resolve(__dirname, "..");

/**
 * The suites that are to notice a change. Left out are those that start processes, in which a change would not be seen, and those that
 * train for so long that running them once for each change would take days.
 */
const SUITES = {
  "lib/data": ["data/!(download|image-folder|shapes).test.js"],
  "lib/files": ["files/*.test.js"],
  "lib/formats": ["formats/*.test.js"],
  "lib/schedules": ["training/schedule.test.js"],
  "lib/report": ["report/*.test.js", "formats/tfevents.test.js"],
  "lib/cli": ["cli/!(cli|data|export|names).test.js"],
  "lib/training": ["training/!(checkpoints|fuzz|image-folder|kill|resident|training|verification|writes).test.js"],
};

const suitesOf = (file) => SUITES[Object.keys(SUITES).find((folder) => file.startsWith(`${folder}/`))] ?? [];

function sourcesOf(argument) {
  const at = path.resolve(root, argument);
  const names = fs.statSync(at).isDirectory() ? fs.readdirSync(at).map((name) => path.join(at, name)) : [at];
  // What runs on threads of its own is out of sight.
  return names
    .filter((name) => name.endsWith(".ts") && !name.endsWith("-worker.ts"))
    .map((name) => path.relative(root, name).split(path.sep).join("/"));
}

async function mutate(files) {
  const { Stryker } = await import("@stryker-mutator/core");
  const suites = [...new Set(files.flatMap(suitesOf))].map((suite) => `dist-test/test/${suite}`);
  return new Stryker({
    mutate: files,
    testRunner: "mocha",
    mochaOptions: { "no-config": true, "no-package": true, spec: suites },
    buildCommand: "node scripts/build.js tests",
    coverageAnalysis: "perTest",
    // What is done once, when a module is loaded, cannot be changed without a new process for each change.
    ignoreStatic: true,
    ignorePatterns: ["/build*", "/dist*", "/native", "/runs", "/docs", "/data"],
    concurrency: Number(process.env.REVNET_MUTATION_JOBS ?? 1),
    timeoutMS: 3_000,
    reporters: ["json", "progress-append-only"],
    jsonReporter: { fileName: path.join(os.tmpdir(), `revnet-mutation-${process.pid}.json`) },
    tempDirName: ".stryker-tmp",
    logLevel: "error",
  }).runMutationTest();
}

const NOTICED = ["Killed", "Timeout"];
const COUNTED = [...NOTICED, "Survived", "NoCoverage"];

function row(name, results) {
  const counted = results.filter(({ status }) => COUNTED.includes(status));
  const of = (...statuses) => counted.filter(({ status }) => statuses.includes(status)).length;
  const score = counted.length > 0 ? `${((100 * of(...NOTICED)) / counted.length).toFixed(1)} %` : "-";
  const numbers = [score, of(...NOTICED), of("Survived"), of("NoCoverage")].map((cell) => String(cell).padStart(10)).join("");
  return name.padEnd(36) + numbers;
}

async function main() {
  const survivors = process.argv.includes("--survivors");
  const files = process.argv
    .slice(2)
    .filter((argument) => !argument.startsWith("--"))
    .flatMap(sourcesOf);
  if (files.length === 0) throw new Error("expected files or folders of lib/, such as lib/formats");
  process.env.CHROMIUM = "";
  process.env.REVNET_ADDON ??= path.join(root, "build/Release/revnet.node");
  process.chdir(root);
  const results = await mutate(files);
  console.log("".padEnd(36) + ["score", "noticed", "survived", "not run"].map((cell) => cell.padStart(10)).join(""));
  const relative = results.map((result) => ({ ...result, file: path.relative(root, result.fileName).split(path.sep).join("/") }));
  for (const file of files)
    console.log(
      row(
        file,
        relative.filter((result) => result.file === file),
      ),
    );
  for (const folder of new Set(files.map((file) => path.posix.dirname(file))))
    console.log(
      row(
        `${folder}/`,
        relative.filter(({ file }) => path.posix.dirname(file) === folder),
      ),
    );
  if (!survivors) return;
  for (const { file, location, mutatorName, replacement, status } of relative)
    if (COUNTED.includes(status) && !NOTICED.includes(status))
      console.log(
        `${file}:${location.start.line + 1}:${location.start.column + 1} ${status} ${mutatorName}: ${replacement?.replace(/\s+/g, " ").slice(0, 90)}`,
      );
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});

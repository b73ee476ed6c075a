#!/usr/bin/env node
/**
 * Builds the native tests under AddressSanitizer and UndefinedBehaviorSanitizer, in build-native/, and runs them. Arguments
 * go to the test program: the names (or parts of names) of the tests to run.
 */

const { spawn, spawnSync } = require("node:child_process");
const os = require("node:os");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const build = path.join(root, "build-native");

function run(command, args) {
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error) throw error;
  if (status !== 0) {
    console.error(`\n${path.basename(command)} ${signal ? `was ended by ${signal}` : `ended with status ${status}`}`);
    process.exit(1);
  }
}

run("cmake", [
  "-S",
  ".",
  "-B",
  build,
  "-DREVNET_ADDON=OFF",
  "-DREVNET_TESTS=ON",
  "-DREVNET_EMULATION=ON",
  "-DCMAKE_BUILD_TYPE=Debug",
  "--log-level=WARNING",
]);
run("cmake", ["--build", build, "--parallel", process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(os.availableParallelism())]);
// A test asks for more memory than there is, and expects the error.
const sanitizers = { ASAN_OPTIONS: "allocator_may_return_null=1:detect_leaks=1", UBSAN_OPTIONS: "print_stacktrace=1" };
const asked = process.argv.slice(2);
const processes = asked.length > 0 ? 1 : Math.min(os.availableParallelism(), 4);
for (let shard = 0; shard < processes; shard++) {
  const args = ["--shard", String(shard), String(processes), ...asked];
  const child = spawn(path.join(build, "revnet_native_tests"), args, { cwd: root, env: { ...process.env, ...sanitizers } });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  child.on("close", (status, signal) => {
    process.stdout.write(output);
    if (status === 0) return;
    console.error(`\nshard ${shard} of the native tests ${signal ? `was ended by ${signal}` : `ended with status ${status}`}`);
    process.exitCode = 1;
  });
}

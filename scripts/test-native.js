#!/usr/bin/env node
/**
 * Builds the native tests under AddressSanitizer and UndefinedBehaviorSanitizer, in build-native/, and runs them. Arguments
 * go to the test program: the names (or parts of names) of the tests to run.
 */

const { spawnSync } = require("node:child_process");
const os = require("node:os");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const build = path.join(root, "build-native");

function run(command, args, env = {}) {
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: "inherit", env: { ...process.env, ...env } });
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
run(path.join(build, "revnet_native_tests"), process.argv.slice(2), {
  // A test asks for more memory than there is, and expects the error.
  ASAN_OPTIONS: "allocator_may_return_null=1:detect_leaks=1",
  UBSAN_OPTIONS: "print_stacktrace=1",
});

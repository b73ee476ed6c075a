/** The op cases of `revnet doctor --verify` in bfloat16, for tools that watch a process: node ops.js DEVICE. Exits 1 where one is wrong. */
const path = require("node:path");

const dist = path.resolve(__dirname, "../../dist/verify");
const { Budget, resultOf } = require(path.join(dist, "check.js"));
const { opChecks } = require(path.join(dist, "ops.js"));
const { subjectOf } = require(path.join(dist, "verify.js"));

async function main() {
  const checks = opChecks(subjectOf({ device: process.argv[2], precision: "bfloat16" }));
  // The convolutions by themselves are large, and in residual functions and reversible blocks too.
  for (const check of checks.filter(({ name }) => !name.startsWith("op convolution"))) {
    const { status, detail } = await resultOf(check, new Budget(600));
    console.log(`${status} ${check.name}: ${detail}`);
    if (status !== "PASS") process.exitCode = 1;
  }
}

void main();

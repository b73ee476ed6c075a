/** The op cases of `revnet doctor --verify`, for tools that watch a process: node ops.js DEVICE [PRECISION]. Exits 1 where one is wrong. */
const path = require("node:path");

const dist = path.resolve(__dirname, "../../dist/verify");
const { Budget, resultOf } = require(path.join(dist, "check.js"));
const { opChecks } = require(path.join(dist, "ops.js"));
const { subjectOf } = require(path.join(dist, "verify.js"));

async function main() {
  const [, , device, precision = "bfloat16"] = process.argv;
  const checks = opChecks(subjectOf({ device, precision }));
  // Convolutions by themselves have the largest cases: last, in case the time does not suffice.
  const large = checks.filter(({ name }) => name.startsWith("op convolution"));
  for (const check of [...checks.filter((other) => !large.includes(other)), ...large]) {
    const { status, detail } = await resultOf(check, new Budget(600));
    console.log(`${status} ${check.name}: ${detail}`);
    if (status !== "PASS") process.exitCode = 1;
  }
}

void main();

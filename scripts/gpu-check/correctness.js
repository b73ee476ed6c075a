/** The parts of gpu-check that say whether results are right. All but the first run at the same time: none of them measures a time. */
const path = require("node:path");
const { lastLine } = require("./text.js");

const ROOT = path.resolve(__dirname, "../..");
const REVNET = [process.execPath, path.join(ROOT, "dist", "cli", "main.js")];
const TESTS = path.join(ROOT, "dist-test", "test");
const PRECISIONS = ["bfloat16", "tf32", "float32"];
/** Processes that end in mid-step: how many in each way, and how many at once. */
const [EXITS, EXITS_AT_ONCE] = [25, 12];

const script = (name, ...args) => [process.execPath, path.join(__dirname, name), ...args];

async function verify(part, { device }) {
  // The last line of a budget that is over comes before the limit.
  const budget = Math.max(1, part.secondsLeft - 15);
  const onLine = (line) => line.startsWith("{") && part.record({ line: JSON.parse(line) });
  const command = [...REVNET, "doctor", "--verify", "--device", device, "--json", "--budget", String(budget)];
  return (await part.command("doctor --verify", command, { onLine })).status === 0;
}

/** The tests that name CUDA, in processes of their own: the ops take by far the longest. */
const SUITES = [
  ...PRECISIONS.map((precision) => ({
    name: `ops, ${precision}`,
    files: ["ops/backends.test.js"],
    grep: `the cuda backend ${precision}`,
  })),
  { name: "updates", files: ["ops/updates.test.js"], grep: "cuda" },
  ...["network", "training"].map((folder) => ({ name: folder, files: [`${folder}/*.test.js`], grep: "cuda" })),
  { name: "cuda", files: ["cuda/backend.test.js", "cuda/precision.test.js"], grep: "cuda|CUDA" },
];

async function suites(part) {
  const mocha = part.require(path.join(ROOT, "node_modules", "mocha", "bin", "mocha.js"));
  part.require(TESTS);
  const ok = await Promise.all(
    SUITES.map(async ({ name, files, grep }) => {
      const args = [mocha, "--no-config", "--timeout", "120000", "--grep", grep, ...files.map((file) => path.join(TESTS, file))];
      const { status, stdout } = await part.command(name, [process.execPath, ...args], { env: { NO_COLOR: "1" } });
      const counts = countTests(stdout);
      part.record({ suite: name, ...counts });
      return status === 0 && counts.passing > 0;
    }),
  );
  return ok.every(Boolean);
}

/** Counted by the lines of the tests, which a run that is cut off has printed too; mocha's own list of failures comes after "passing". */
function countTests(output) {
  const [tests] = output.split(/^ +\d+ passing/m);
  return {
    passing: tests.match(/^ +✔ /gm)?.length ?? 0,
    failures: [...tests.matchAll(/^ +\d+\) (.*)$/gm)].map(([, title]) => title),
    pending: tests.match(/^ +- /gm)?.length ?? 0,
  };
}

async function sanitizer(part, { device }) {
  const program = part.program("compute-sanitizer");
  const runs = ["memcheck", "racecheck"].flatMap((tool) => PRECISIONS.map((precision) => ({ tool, precision })));
  const ok = await Promise.all(
    runs.map(async ({ tool, precision }) => {
      const command = [program, "--tool", tool, "--error-exitcode", "3", ...script("ops.js", device, precision)];
      const { status, stdout } = await part.command(`${tool}, ${precision}`, command);
      if (status !== null) part.record({ tool, precision, ok: status === 0, ...sanitizerReport(stdout) });
      return status === 0;
    }),
  );
  return ok.every(Boolean);
}

/** How many ops were checked, and the checker's last word. */
const sanitizerReport = (report) => ({
  ops: report.match(/^PASS /gm)?.length ?? 0,
  said: lastLine(report, /SUMMARY/).replace(/^=+ /, ""),
});

async function hashes(part, { device }) {
  const onLine = (line) => line.startsWith("{") && part.record(JSON.parse(line));
  return (await part.command("hashes.js", script("hashes.js", device), { onLine })).status === 0;
}

async function exits(part, { device }) {
  const jobs = ["exit", "dispose"].flatMap((how) => Array.from({ length: EXITS }, (_, i) => ({ how, milliseconds: 3 * (i + 1) })));
  const seen = { exit: { ended: 0, failures: [] }, dispose: { ended: 0, failures: [] } };
  const work = async () => {
    for (let job = jobs.shift(); job; job = jobs.shift()) {
      const what = `${job.how} after ${job.milliseconds} ms`;
      const { status, stderr } = await part.command(what, script("exit.js", device, job.how, String(job.milliseconds)));
      if (status === 0) seen[job.how].ended++;
      else if (status !== null) seen[job.how].failures.push(`${what}: status ${status}, ${lastLine(stderr)}`);
    }
  };
  await Promise.all(Array.from({ length: EXITS_AT_ONCE }, work));
  for (const [how, { ended, failures }] of Object.entries(seen)) part.record({ how, ended, failures });
  return Object.values(seen).every(({ ended }) => ended === EXITS);
}

module.exports = { exits, hashes, sanitizer, sanitizerReport, suites, verify };

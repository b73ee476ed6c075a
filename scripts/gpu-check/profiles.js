/** The parts of gpu-check that ask NVIDIA's profiler, ncu, and what they read in its reports. */
const path = require("node:path");

const NCU = ["--clock-control", "none"];
const BATCH_SIZES = [100, 1024];
/** Of a step's kernels, those that take the most time. */
const LARGEST = 24;

/** A kernel's name without namespaces, return type and arguments, but with those of its template. ncu drops the bracket of "<unnamed>". */
function kernelName(heading) {
  const bare = heading.replace(/revnet::cuda::|<?unnamed>::|\(anonymous namespace\)::/g, "").replace(/^\s*void /, "");
  return /^\s*(\w+(?:<[^()]*>)?)/.exec(bare)?.[1] ?? heading.trim();
}

// ---- A whole step ----------------------------------------------------------------------------------------------------------------

async function step(part, { device, batchSizes = BATCH_SIZES }) {
  const program = part.program("ncu");
  let ok = true;
  for (const batchSize of batchSizes) {
    const metrics = ["--csv", "--metrics", "gpu__time_duration.sum,dram__bytes.sum", "--graph-profiling", "node"];
    const script = [process.execPath, path.join(__dirname, "step.js"), device, "revnet-38", String(batchSize)];
    const what = `revnet-38, batch ${batchSize}`;
    const { status, stdout } = await part.command(what, [program, ...NCU, ...metrics, ...script, "bfloat16", "reversible", "1"]);
    const launches = launchesOf(stdout);
    if (launches.length > 0) part.record({ what, ...stepTable(launches) });
    ok &&= status === 0 && launches.length > 0;
  }
  return ok;
}

/** A quoted CSV line's fields. */
const fields = (line) => [...line.matchAll(/"((?:[^"]|"")*)"(?:,|$)/g)].map(([, text]) => text.replaceAll('""', '"'));
const MICROSECONDS = { ns: 1e-3, us: 1, ms: 1e3, s: 1e6, nsecond: 1e-3, usecond: 1, msecond: 1e3, second: 1e6 };
const MEGABYTES = { byte: 1e-6, Kbyte: 1e-3, Mbyte: 1, Gbyte: 1e3 };

/** The launches in ncu's CSV of a step, which has a line for each launch and metric, and other output around them. */
function launchesOf(csv) {
  const lines = csv.split("\n").filter((line) => line.startsWith('"'));
  const [head, ...rows] = lines.map(fields);
  const launches = new Map();
  for (const row of rows) {
    const of = Object.fromEntries(head.map((name, i) => [name, row[i]]));
    if (!launches.has(of.ID)) launches.set(of.ID, { kernel: kernelName(of["Kernel Name"]), grid: of["Grid Size"] });
    const launch = launches.get(of.ID);
    const value = Number(of["Metric Value"].replaceAll(",", ""));
    if (of["Metric Name"] === "gpu__time_duration.sum") launch.microseconds = value * MICROSECONDS[of["Metric Unit"]];
    if (of["Metric Name"] === "dram__bytes.sum") launch.megabytes = value * MEGABYTES[of["Metric Unit"]];
  }
  return [...launches.values()];
}

/** All launches together, then by kernel, and by kernel and grid those that take the most time. */
function stepTable(launches) {
  const all = sums(launches);
  const grouped = (key) => {
    const groups = new Map();
    for (const launch of launches) groups.set(key(launch), [...(groups.get(key(launch)) ?? []), launch]);
    const rows = [...groups.values()].map((group) => ({ ...sums(group), of: group[0] }));
    rows.sort((a, b) => b.microseconds - a.microseconds);
    return rows.map(({ of, ...row }) => ({ ...row, share: row.microseconds / all.microseconds, kernel: of.kernel, grid: of.grid }));
  };
  const family = ({ kernel }) => kernel.replace(/<.*/, "");
  return {
    ...all,
    kernels: grouped(family).map(({ grid, ...row }) => ({ ...row, kernel: family(row) })),
    largest: grouped(({ kernel, grid }) => `${kernel} ${grid}`).slice(0, LARGEST),
  };
}

const sums = (launches) => ({
  launches: launches.length,
  microseconds: launches.reduce((sum, { microseconds }) => sum + microseconds, 0),
  megabytes: launches.reduce((sum, { megabytes }) => sum + megabytes, 0),
});

// ---- Single kernels --------------------------------------------------------------------------------------------------------------

/** `--set detailed` has no warp states; details "all" print the stall reasons one by one. */
const SECTIONS = ["SpeedOfLight", "ComputeWorkloadAnalysis", "LaunchStats", "Occupancy", "WarpStateStats"];

async function profile(part, { device, batchSizes = BATCH_SIZES }) {
  const program = part.program("ncu");
  let ok = true;
  for (const batchSize of batchSizes) {
    const sections = [...SECTIONS.flatMap((name) => ["--section", name]), "--print-details", "all"];
    const script = [process.execPath, path.join(__dirname, "profiled.js"), device, String(batchSize)];
    const what = `one residual function, batch ${batchSize}`;
    const { status, stdout } = await part.command(what, [program, ...NCU, ...sections, ...script]);
    const kernels = kernelsOf(stdout);
    if (kernels.length > 0) part.record({ what, kernels });
    ok &&= status === 0 && kernels.length > 0;
  }
  return ok;
}

const METRICS = [
  "Duration",
  "DRAM Throughput",
  "Achieved Occupancy",
  "Registers Per Thread",
  "Issue Slots Busy",
  "Executed Ipc Active",
];

/** What ncu's report in text says of each kernel: the metrics above, and what its warps wait for most. */
function kernelsOf(report) {
  const kernels = [];
  // A kernel's heading has its name with namespaces and arguments, its grid, its block and its context.
  for (const text of report.split(/^(?= {2}\S.*, Context \d+, Stream \d+)/m).slice(1)) {
    const heading = text.slice(0, text.indexOf("\n"));
    const kernel = { kernel: kernelName(heading), grid: /\([\d, ]+\)(?=x\()/.exec(heading)[0] };
    const stalls = [];
    for (const line of text.split("\n")) {
      const [, name, unit, value] = /^ +(\S+(?: \S+)*) {2,}(?:(\S+) +)?([\d.,]+) *$/.exec(line) ?? [];
      if (METRICS.includes(name)) kernel[name] ??= unit ? `${value} ${unit}` : value;
      // A warp that could run but was not chosen, or that runs, does not wait.
      const reason = /^Stall (?!Not Selected|Selected)(.+)$/.exec(name ?? "")?.[1];
      if (reason) stalls.push({ reason, cycles: Number(value.replaceAll(",", "")) });
    }
    stalls.sort((a, b) => b.cycles - a.cycles);
    const advice = /spends ([\d.]+) cycles being stalled (.+?)\. /s.exec(`${text.replace(/\s+/g, " ")} `);
    if (stalls.length > 0) kernel.stall = `${stalls[0].reason}, ${stalls[0].cycles}`;
    else if (advice) kernel.stall = `${advice[2]}, ${advice[1]}`;
    kernels.push(kernel);
  }
  return kernels;
}

module.exports = { METRICS, kernelsOf, launchesOf, profile, step, stepTable };

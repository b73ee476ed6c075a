/** summary.md of gpu-check: what each part came to, and its tables in the form of docs/performance.md. */
const { METRICS } = require("./profiles.js");

const table = (head, rows) =>
  rows.length === 0
    ? []
    : [
        `| ${head.join(" | ")} |`,
        `|${head.map((_, i) => (i === 0 ? "---" : "---:")).join("|")}|`,
        ...rows.map((row) => `| ${row.join(" | ")} |`),
        "",
      ];

const of = (results, part) => results.filter((result) => result.part === part && result.status === undefined);

function verifyTable(results) {
  const lines = of(results, "verify").map(({ line }) => line);
  const head = lines.find(({ description }) => description);
  const rows = lines
    .filter(({ check }) => check)
    .map(({ check, status, seconds, detail }) => [check, status, `${seconds.toFixed(1)} s`, detail]);
  return [...(head ? [`${head.device}: ${head.description}`, ""] : []), ...table(["check", "", "time", "seen"], rows)];
}

/** A row for each mode of each run: ours, and where it was timed in turns with ours, the peer. */
function timesTable(results, part) {
  const rows = of(results, part)
    .filter(({ timings }) => timings)
    .flatMap(({ batchSize, precision, peer, timings }) =>
      timings
        .filter(({ name }) => name === "ours")
        .map(({ model, activations, median }) => {
          const other = timings.find(
            (timing) => timing.name === "peer" && timing.model === model && timing.activations === activations,
          );
          const ratio = other ? (median / other.median).toFixed(2) : "";
          return [
            `${model}, batch ${batchSize}, ${activations}`,
            precision,
            median.toFixed(2),
            other?.median.toFixed(2) ?? "",
            peer ?? "",
            ratio,
          ];
        }),
    );
  const notes = of(results, part).flatMap(({ note }) => (note ? [note] : []));
  return [
    ...table(["step", "precision", "ours, ms", "peer, ms", "peer", "ours / peer"], rows),
    ...notes.flatMap((note) => [note, ""]),
  ];
}

/** Where a step's time went: by kernel, then by kernel and grid. */
function stepTables(results) {
  return of(results, "step").flatMap(({ what, launches, microseconds, megabytes, kernels, largest }) => [
    `${what}: ${launches} launches, ${microseconds.toFixed(0)} us in kernels, ${megabytes.toFixed(0)} MB of DRAM`,
    "",
    ...table(
      ["kernel", ...LAUNCH_COLUMNS],
      kernels.map((row) => [row.kernel, ...launchCells(row)]),
    ),
    ...table(
      ["kernel", "grid", ...LAUNCH_COLUMNS],
      largest.map((row) => [row.kernel, row.grid, ...launchCells(row)]),
    ),
  ]);
}

const LAUNCH_COLUMNS = ["launches", "us", "share", "us each", "MB each", "GB/s"];
const launchCells = ({ launches, microseconds, megabytes, share }) => [
  launches,
  microseconds.toFixed(1),
  `${(100 * share).toFixed(1)} %`,
  (microseconds / launches).toFixed(1),
  (megabytes / launches).toFixed(2),
  ((1000 * megabytes) / microseconds).toFixed(0),
];

const SECTIONS = {
  verify: verifyTable,
  suites: (results) => {
    const counts = of(results, "suites");
    return [
      ...table(
        ["suite", "passing", "failing", "pending"],
        counts.map(({ suite, passing, failures, pending }) => [suite, passing, failures.length, pending]),
      ),
      ...counts.flatMap(({ suite, failures }) => failures.flatMap((title) => [`- ${suite}: ${title}`, ""])),
    ];
  },
  sanitizer: (results) =>
    table(
      ["tool", "precision", "", "ops", "said"],
      of(results, "sanitizer").map(({ tool, precision, ok, ops, said }) => [
        tool,
        precision,
        ok ? "clean" : "NOT CLEAN",
        ops,
        said,
      ]),
    ),
  hashes: (results) =>
    table(
      ["model, precision", "steps", "reversible", "stored", "runs", "different", ""],
      of(results, "hashes").map(({ model, precision, steps, reversible, stored, runs, different, ok }) => [
        `${model}, ${precision}`,
        steps,
        reversible.slice(0, 12),
        stored.slice(0, 12),
        runs,
        different,
        ok ? "equal" : "NOT EQUAL",
      ]),
    ),
  exits: (results) =>
    of(results, "exits").flatMap(({ how, ended, failures }) => [
      `${how}: ${ended} ended well, ${failures.length} did not`,
      "",
      ...failures.flatMap((failure) => [`- ${failure}`, ""]),
    ]),
  peers: (results) =>
    of(results, "peers").flatMap(({ note, ready, of: all }) => [note ?? `${ready} of ${all} peers got ready in time`, ""]),
  times: (results) => timesTable(results, "times"),
  imagenet: (results) => timesTable(results, "imagenet"),
  step: stepTables,
  profile: (results) =>
    of(results, "profile").flatMap(({ what, kernels }) => [
      what,
      "",
      ...table(
        ["kernel", "grid", ...METRICS, "waits most for, cycles an instruction"],
        kernels.map((each) => [each.kernel, each.grid, ...METRICS.map((name) => each[name] ?? ""), each.stall ?? ""]),
      ),
    ]),
  train: (results) =>
    of(results, "train").flatMap(({ model, validation, note, seconds }) => [
      validation
        ? `${model}, step ${validation.step}: test error ${(100 * validation.error).toFixed(2)} %, ${seconds} s`
        : [model, note, seconds && `${seconds} s`].filter(Boolean).join(", "),
      "",
    ]),
};

/** @param results of all parts so far, in their order; a part that has ended has one with its status */
function summary(results) {
  const machine = results.find((result) => result.machine)?.machine;
  const parts = [...new Set(results.flatMap(({ part }) => part ?? []))];
  const ended = results.filter(({ status }) => status !== undefined);
  return [
    "# gpu-check",
    "",
    ...(machine ? [machine, ""] : []),
    ...table(
      ["part", "", "time", ""],
      ended.map(({ part, status, seconds, reason = "" }) => [part, status, `${seconds} s`, reason.split("\n")[0]]),
    ),
    ...parts.flatMap((part) => {
      const lines = SECTIONS[part]?.(results) ?? [];
      return lines.length === 0 ? [] : [`## ${part}`, "", ...lines];
    }),
  ].join("\n");
}

module.exports = { summary };

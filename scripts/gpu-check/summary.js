/** summary.md of gpu-check: what each part came to, and its tables in the form of docs/performance.md. */

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

const SECTIONS = {
  verify: verifyTable,
  suites: (results) =>
    of(results, "suites").flatMap(({ passing, failures, pending }) => [
      `${passing} passing, ${failures.length} failing, ${pending} pending`,
      "",
      ...failures.map((title) => `- ${title}`),
      "",
    ]),
  sanitizer: (results) =>
    table(
      ["tool", "", "said"],
      of(results, "sanitizer").map(({ tool, ok, said }) => [tool, ok ? "clean" : "NOT CLEAN", said]),
    ),
  times: (results) => timesTable(results, "times"),
  imagenet: (results) => timesTable(results, "imagenet"),
  profile: (results) => {
    const columns = ["Duration", "DRAM Throughput", "Registers Per Thread", "Achieved Occupancy"];
    const kernels = of(results, "profile").flatMap((result) => result.kernels);
    return table(
      ["kernel", ...columns, "stalls most"],
      kernels.map((kernel) => [kernel.kernel, ...columns.map((name) => kernel[name] ?? ""), kernel.stall ?? ""]),
    );
  },
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
  const parts = [...new Set(results.map(({ part }) => part))];
  const ended = results.filter(({ status }) => status !== undefined);
  return [
    "# gpu-check",
    "",
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

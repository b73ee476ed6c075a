/** Several runs side by side: what each was asked for, and what became of it. */
import { bytes, throughput } from "../text.js";
import { type Html, html } from "./html.js";
import type { RunFiles } from "./run-files.js";
import {
  activationsOf,
  alarms,
  figure,
  NOTHING,
  percentage,
  section,
  type Tile,
  table,
  tileList,
  whole,
  words,
} from "./sections.js";

/** Of config.json, by the path of its keys; undefined: it has none there. */
const setting = ({ settings }: RunFiles, ...keys: string[]): unknown =>
  keys.reduce((value: unknown, key) => (value as Record<string, unknown> | undefined | null)?.[key], settings);
/** What is compared: what a run was asked for, and what became of it; undefined: its summary is missing. */
const COMPARED: [string, (run: RunFiles) => string | Html | undefined][] = [
  ["model", ({ config }) => config.model.name],
  ["kind", ({ summary, config }) => ({ revnet: "RevNet", resnet: "ResNet" })[summary?.kind ?? config.model.kind ?? ""]],
  ["data", (run) => words(setting(run, "data"))],
  ["seed", (run) => words(setting(run, "seed"))],
  ["learning rate", (run) => words(setting(run, "optimizer", "learningRate"))],
  ["schedule", (run) => words(setting(run, "schedule", "type"))],
  ["batch size", ({ config }) => whole(config.batchSize)],
  ["activations", (run) => activationsOf(run)],
  ["streams", ({ summary: s }) => s && (s.kind === "resnet" ? NOTHING : s.streams)],
  ["precision", ({ summary: s }) => s?.precision],
  ["gradients of streams", (run) => words(setting(run, "streamGradients"))],
  ["device", ({ summary: s }) => s?.device],
  ["steps", ({ summary: s }) => s && whole(s.steps)],
  ["parameters", ({ summary: s }) => s && whole(s.parameters)],
  ["training loss", ({ summary: s }) => s && figure(s.trainLoss)],
  ["validation error", ({ summary: s }) => s && percentage(s.validationError ?? null)],
  ["test loss", ({ summary: s }) => s && figure(s.testLoss)],
  ["test error", ({ summary: s }) => s && percentage(s.testError)],
  ["throughput", ({ summary: s }) => s && throughput(s.imagesPerSecond)],
  ["activation memory", ({ summary: s }) => s && bytes(s.memory.activations)],
  ["memory in all", ({ summary: s }) => s && bytes(s.memory.total)],
  ["reconstruction", ({ summary: s }) => ({ true: "exact", false: "not exact" })[String(s?.reconstruction.exact)]],
  ["values out of range", ({ summary: s }) => s && whole(s.reconstruction.outOfRange)],
  ["weights", ({ summary: s }) => s && html`<code title="${s.weightsSha256}">${s.weightsSha256.slice(0, 12)}</code>`],
];

/** Runs as columns; those whose weights are the same are said to be. */
export function comparison(runs: readonly RunFiles[], names: readonly string[]): Html {
  const rows = COMPARED.map(([name, show]) => [name, ...runs.map((run) => show(run) ?? NOTHING)]);
  const hashes = new Map<string, string[]>();
  for (const [i, { summary }] of runs.entries())
    if (summary) hashes.set(summary.weightsSha256, [...(hashes.get(summary.weightsSha256) ?? []), names[i]!]);
  const alarming = runs.flatMap(({ summary, brokenImages }, i) =>
    alarms(summary?.reconstruction.outOfRange ?? 0, brokenImages.size).map(
      ([name, value, more]): Tile => [`${name}: ${names[i]}`, value, more],
    ),
  );
  const same = [...hashes.values()].filter((group) => group.length > 1);
  return section(
    "comparison",
    "Runs",
    ...(alarming.length > 0 ? [tileList(alarming)] : []),
    table([["", ...names], ...rows], "comparison"),
    ...same.map((group) => html`<p>The weights of ${group.join(", ")} are the same, bit for bit.</p>`),
  );
}

/**
 * revnet bench: training steps of our own modes and, beside them, of a peer. Rounds alternate between all contenders, so that
 * whatever else the machine does falls on each alike; only ratios of one run mean something.
 */
import { spawn } from "node:child_process";
import { RevNetError } from "../errors.js";
import { resolveModel } from "../network/models.js";
import { createNetwork, type Network } from "../network/network.js";
import { ACTIVATIONS, type Activations } from "../network/recorder.js";
import type { NetworkSpec } from "../network/spec.js";
import { processorCount } from "../processors.js";
import { stepStatistics } from "../training/summary.js";
import { stepTimer } from "../verify/timing.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { deviceOptions, TRAINING_DEVICE_FLAGS } from "./flags.js";
import { count, print, printError, printJson, table } from "./output.js";

/** One thing to time: `round` runs some steps and returns their median duration in milliseconds. */
interface Contender {
  name: "ours" | "peer";
  model: string;
  activations: Activations;
  round(): Promise<number>;
}

interface Timing {
  name: Contender["name"];
  model: string;
  activations: Activations;
  /** Median over rounds of a round's median, and the extremes of these. */
  median: number;
  fastest: number;
  slowest: number;
}

export const bench = defineCommand({
  name: "bench",
  summary: "Times training steps, reversible and stored, and a PyTorch peer in turns with them.",
  positionals: "[MODEL...]",
  arity: [0, Number.POSITIVE_INFINITY],
  flags: {
    "batch-size": { type: "integer", help: "images of a step (default 100)" },
    steps: { type: "integer", help: "timed steps of a round (default 10)" },
    rounds: { type: "integer", help: "rounds (default 3)" },
    peer: {
      type: "string",
      value: "FILE.py",
      help: "script with the command `time MODEL --batch N --steps K --threads T [--stored]`",
    },
    "peer-flags": { type: "string", value: "FLAGS", help: "more of the peer's own, such as '--compile --bf16'" },
    python: { type: "string", value: "PROGRAM", help: "runs the peer (default python3)" },
    ...TRAINING_DEVICE_FLAGS,
    ...JSON_FLAG,
  },
  async run(
    {
      batchSize = 100,
      steps = 10,
      rounds = 3,
      peer,
      peerFlags = "",
      python = "python3",
      device,
      precision = "float32",
      streamGradients,
      threads = processorCount(),
      json,
    },
    names,
  ) {
    for (const [flag, value] of Object.entries({ "batch-size": batchSize, steps, rounds, threads }))
      if (value < 1) throw new UsageError(`--${flag} expects a positive integer, got ${value}`);
    const specs = (names.length > 0 ? names : ["revnet-38", "resnet-32"]).map((name) => resolveModel(name));
    const networks: Network[] = [];
    const contenders: Contender[] = [];
    try {
      for (const spec of specs)
        for (const activations of spec.kind === "revnet" ? ACTIVATIONS : (["stored"] as const)) {
          const on = deviceOptions({ device, precision, streamGradients, threads });
          const network = await createNetwork(spec, { ...on, seed: 0 });
          networks.push(network);
          contenders.push(await ours(network, activations, batchSize, steps));
          if (peer !== undefined)
            contenders.push(
              peerContender({ peer, peerFlags, python, device: network.device, spec, activations, batchSize, steps, threads }),
            );
        }
      const timings = await alternate(contenders, rounds, json ? printError : print);
      const conditions = { batchSize, steps, rounds, threads, precision, device: networks[0]!.deviceChoice };
      const gradients = streamGradients !== undefined && { streamGradients };
      if (json) printJson({ ...conditions, ...gradients, timings, ratios: ratios(timings) });
      else report({ ...conditions, ...gradients }, timings);
      return 0;
    } finally {
      for (const network of networks) network.dispose();
    }
  },
});

async function ours(network: Network, activations: Activations, batchSize: number, steps: number): Promise<Contender> {
  const time = await stepTimer(network, activations, batchSize);
  return {
    name: "ours",
    model: network.spec.name,
    activations,
    round: async () => stepStatistics(await time(steps)).median,
  };
}

interface PeerOptions {
  peer: string;
  peerFlags: string;
  python: string;
  device: string;
  spec: NetworkSpec;
  activations: Activations;
  batchSize: number;
  steps: number;
  threads: number;
}

function peerContender({ peer, peerFlags, python, device, spec, activations, batchSize, steps, threads }: PeerOptions): Contender {
  const args = [peer, "time", spec.name, "--batch", String(batchSize), "--steps", String(steps), "--threads", String(threads)];
  if (device.startsWith("cuda")) args.push("--device", "cuda");
  if (activations === "stored" && spec.kind === "revnet") args.push("--stored");
  args.push(...peerFlags.split(" ").filter((flag) => flag !== ""));
  return {
    name: "peer",
    model: spec.name,
    activations,
    async round() {
      const output = await capture(python, args);
      const median = /median ([\d.]+) ms/.exec(output)?.[1];
      if (median === undefined)
        throw new RevNetError(
          "ERR_PEER",
          `${python} ${args.join(" ")}: no "median ... ms" in its output: ${output.trim().slice(0, 500)}`,
        );
      return Number(median);
    },
  };
}

/** What a program writes to its standard output. Rejects with ERR_PEER where it cannot run or fails. */
function capture(program: string, args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (errors = (errors + text).slice(-2000)));
    child.on("error", (cause) =>
      reject(new RevNetError("ERR_PEER", `cannot run ${program}: ${cause.message}; choose another with --python`, { cause })),
    );
    child.on("close", (status, signal) => {
      if (status === 0) resolve(output);
      else
        reject(
          new RevNetError(
            "ERR_PEER",
            `${program} ${args.join(" ")} ended with ${signal ?? `status ${status}`}: ${errors.trim().split("\n").join(" | ")}`,
          ),
        );
    });
  });
}

async function alternate(contenders: readonly Contender[], rounds: number, log: (line: string) => void): Promise<Timing[]> {
  const medians = contenders.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, contender] of contenders.entries()) medians[i]!.push(await contender.round());
    log(
      `round ${round + 1}/${rounds}: ${contenders.map(({ name, model, activations }, i) => `${model} ${activations} (${name}) ${medians[i]![round]!.toFixed(2)} ms`).join(", ")}`,
    );
  }
  return contenders.map(({ name, model, activations }, i) => {
    const { median } = stepStatistics(medians[i]!);
    return { name, model, activations, median, fastest: Math.min(...medians[i]!), slowest: Math.max(...medians[i]!) };
  });
}

/** Ours over the peer's, and our reversible over our stored steps. */
function ratios(timings: readonly Timing[]): { what: string; ratio: number }[] {
  const find = (name: Timing["name"], model: string, activations: Activations) =>
    timings.find((timing) => timing.name === name && timing.model === model && timing.activations === activations)?.median;
  const result: { what: string; ratio: number }[] = [];
  for (const { model, activations, median } of timings.filter(({ name }) => name === "ours")) {
    const peer = find("peer", model, activations);
    if (peer !== undefined) result.push({ what: `${model} ${activations}: ours / peer`, ratio: median / peer });
    const stored = activations === "reversible" ? find("ours", model, "stored") : undefined;
    if (stored !== undefined) result.push({ what: `${model}: ours reversible / ours stored`, ratio: median / stored });
  }
  return result;
}

function report(
  conditions: {
    batchSize: number;
    steps: number;
    rounds: number;
    threads: number;
    precision: string;
    streamGradients?: string;
    device: string;
  },
  timings: readonly Timing[],
): void {
  const { batchSize, steps, rounds, threads, precision, streamGradients, device } = conditions;
  const stored = streamGradients === undefined ? "" : ` (gradients of streams in ${streamGradients})`;
  print([
    "",
    `batch size ${batchSize}, ${count(threads, "thread")}, ${count(rounds, "round")} of ${count(steps, "step")} in turns, ${precision}${stored} on ${device}; milliseconds a step`,
    "",
    ...table([
      ["model", "activations", "", "median", "fastest", "slowest"],
      ...timings.map(({ model, activations, name, median, fastest, slowest }) => [
        model,
        activations,
        name,
        median.toFixed(2),
        fastest.toFixed(2),
        slowest.toFixed(2),
      ]),
    ]),
  ]);
  for (const { what, ratio } of ratios(timings)) print(`${what}: ${ratio.toFixed(2)}`);
}

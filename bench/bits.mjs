/**
 * Does every processor and compiler train to the same bits? Three networks, with each instruction set that the addons have, on one
 * thread and on two, reversible and with stored activations. Prints a table of docs/numerics.md; exits with 1 where weights differ.
 *
 *   node bench/bits.mjs CIFAR_DIR [ADDON...] [--network NAME...]
 *
 * CIFAR_DIR holds CIFAR-10's binary files. ADDON is the path of an addon, by default this machine's; one for arm64 runs under
 * qemu-aarch64 (CONTRIBUTING.md), for some 9 minutes.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { resolveModel, trainRevNet } from "revnet";
import arm64 from "../scripts/arm64.js";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { network: { type: "string", multiple: true }, train: { type: "string" } },
});
const [dataDir, ...addons] = positionals;
if (addons.length === 0) addons.push(fileURLToPath(new URL("../build/Release/revnet.node", import.meta.url)));

/** Drawn by integers alone, which are the same everywhere. */
function noise(count, shape, classes) {
  const pixels = count * shape.reduce((a, b) => a * b);
  const images = Uint8Array.from({ length: pixels }, (_, i) => Math.imul(i + 1, 2654435761) >>> 24);
  return { count, images, labels: Int32Array.from({ length: count }, (_, i) => i % classes) };
}

/** What is trained, by its name: options of trainRevNet. */
const NETWORKS = {
  "revnet-shapes": () => ({
    model: fileURLToPath(new URL("../examples/revnet-shapes.json", import.meta.url)),
    data: "shapes",
    trainCount: 100,
    testCount: 10,
    seed: 3,
    batchSize: 10,
    steps: 5,
  }),
  "revnet-38": () => ({ model: "revnet-38", data: "cifar-10", dataDir, testCount: 10, batchSize: 2, steps: 20 }),
  "revnet-56": () => {
    const [shape, classes] = [[64, 64, 3], 10];
    const names = Array.from({ length: classes }, (_, label) => `class ${label}`);
    const data = { name: "noise", shape, classes: names, train: noise(20, shape, classes), test: noise(2, shape, classes) };
    return { model: resolveModel("revnet-56", { input: shape, classes }), data, batchSize: 2, steps: 2 };
  },
};

/** As the paper trains: that the runs are short and their batches small makes no difference. */
const AS_PUBLISHED = { scaleLearningRate: false, preciseBatchNorm: false };

/** What ELF files of arm64 have in their header, as a number of two bytes. */
const ELF_ARM64 = 183;

/** Node.js for an addon's processor: the program and its first arguments. */
function nodeFor(addon) {
  const header = readFileSync(addon).subarray(0, 20);
  const isArm64 = header.toString("latin1", 1, 4) === "ELF" && header.readUInt16LE(18) === ELF_ARM64;
  if (!isArm64 || process.arch === "arm64") return [process.execPath];
  const node = arm64.emulatedNode();
  if (typeof node === "string") throw new Error(`${addon} is for arm64, and ${node}`);
  return node;
}

/** What a process of that Node.js prints. */
function output([program, ...first], args, environment = {}) {
  const { error, status, stdout, stderr } = spawnSync(program, [...first, ...args], {
    encoding: "utf8",
    env: { ...process.env, ...environment },
  });
  if (error || status !== 0) throw error ?? new Error(`${args.join(" ")} ended with ${status}:\n${stderr}`);
  return stdout.trim();
}

if (values.train) {
  // One run, in a process of its own, since a process has one addon.
  const { network, ...options } = JSON.parse(values.train);
  const run = await trainRevNet({ ...NETWORKS[network](), ...AS_PUBLISHED, ...options, device: "cpu" });
  console.log(run.summary.weightsSha256);
} else {
  /** Digits of weightsSha256, by network and column. */
  const cells = new Map();
  const columns = [];
  const networks = values.network ?? Object.keys(NETWORKS);
  for (const addon of addons.map((file) => path.resolve(file))) {
    const node = nodeFor(addon);
    const info = ["-p", "JSON.stringify(require(process.argv[1]).buildInfo())", addon];
    const { compiler, isas } = JSON.parse(output(node, info));
    for (const isa of isas) {
      const column = `${isa}, ${compiler}`;
      columns.push(column);
      for (const network of networks)
        for (const activations of ["reversible", "stored"])
          for (const threads of [1, 2]) {
            const args = [fileURLToPath(import.meta.url), dataDir, "--train", JSON.stringify({ network, activations, threads })];
            const digits = output(node, args, { REVNET_ADDON: addon, REVNET_ISA: isa }).slice(0, 16);
            console.error(`${network}, ${column}, ${activations}, threads: ${threads}: ${digits}`);
            const cell = `${network}\n${column}`;
            cells.set(cell, (cells.get(cell) ?? new Set()).add(digits));
          }
    }
  }
  console.log(`| run | ${columns.join(" | ")} |\n|${"---|".repeat(columns.length + 1)}`);
  for (const network of networks) {
    const row = columns.map((column) => [...cells.get(`${network}\n${column}`)]);
    console.log(`| ${network} | ${row.map((all) => all.map((digits) => `\`${digits.slice(0, 8)}\``).join(", ")).join(" | ")} |`);
    if (new Set(row.flat()).size > 1) process.exitCode = 1;
  }
}

/**
 * What a training step costs on a GPU by arithmetic alone: for every kernel that it launches, the bytes it has to move through
 * device memory at least (each tensor once, whatever the caches do) and its multiplications and additions. From
 * them, for each card, the floor: the least time that this takes; and beside it a model of what launches add.
 *
 *   node bench/roofline.mjs MODEL... [--batch-size 100] [--activations reversible] [--precision tf32] [--gap 1.3e-6] [--tail 2e-6]
 *                           [--stream-gradients float32]
 *
 * The model: a kernel starts `gap` seconds after the one before it ends; one whose last block adds up what all blocks left takes
 * `tail` more; and a grid that does not fill its last wave of blocks takes as long as if it did. Gap and tail are assumptions.
 * Bandwidths are what copies reached on these cards; rates of matrix units are the data sheet's at the 0.6 that mma.sync can reach.
 * This is no measurement: it is what measurements are to be compared with.
 */
import { parseArgs } from "node:util";
import modelsModule from "../dist/network/models.js";
import rooflineModule from "../dist/verify/roofline.js";

const RATES = { float32: 60e12, tf32: 0.6 * 494e12, bfloat16: 0.6 * 989e12 };
const CARDS = [
  { name: "H100", bandwidth: 3.0e12, multiprocessors: 132 },
  { name: "H200", bandwidth: 4.3e12, multiprocessors: 132 },
];

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    "batch-size": { type: "string", default: "100" },
    activations: { type: "string", default: "reversible" },
    precision: { type: "string", default: "tf32" },
    gap: { type: "string", default: "1.3e-6" },
    tail: { type: "string", default: "2e-6" },
    "stream-gradients": { type: "string" },
  },
});
const n = Number(values["batch-size"]);
const rate = RATES[values.precision];
const storage = rooflineModule.storageOf(values.precision, values["stream-gradients"]);
const [gap, tail] = [Number(values.gap), Number(values.tail)];

/** Blocks that a multiprocessor holds at a time: the launch bounds of convolveKernel. */
const RESIDENT = 2;

/** Seconds of a kernel on a card, at least, and by the model. */
function times({ bytes, flops = 0, blocks = Infinity, tail: tails }, { bandwidth, multiprocessors }) {
  const least = Math.max(bytes / bandwidth, flops / rate);
  const waves = blocks / (RESIDENT * multiprocessors);
  // Multiprocessors without a block idle all the time; the others do in the last wave.
  const idle = blocks < multiprocessors ? multiprocessors / blocks : waves > 1 && waves < Infinity ? Math.ceil(waves) / waves : 1;
  return { least, modelled: gap + least * idle + (tails ? tail : 0) };
}

const gigabytes = (bytes) => (bytes / 1e9).toFixed(3);
const milliseconds = (seconds) => (seconds * 1e3).toFixed(3);

for (const model of positionals.length > 0 ? positionals : ["revnet-38"]) {
  const spec = modelsModule.resolveModel(model);
  const { kernels, ops } = rooflineModule.stepKernels(spec, n, values.activations, storage);

  const rows = new Map();
  const none = () => ({ launches: 0, bytes: 0, flops: 0, times: CARDS.map(() => ({ least: 0, modelled: 0 })) });
  const all = none();
  for (const kernel of kernels) {
    const row = rows.get(kernel.kernel) ?? none();
    rows.set(kernel.kernel, row);
    for (const sums of [row, all]) {
      sums.launches++;
      sums.bytes += kernel.bytes;
      sums.flops += kernel.flops ?? 0;
      for (const [i, card] of CARDS.entries()) {
        const { least, modelled } = times(kernel, card);
        sums.times[i].least += least;
        sums.times[i].modelled += modelled;
      }
    }
  }
  const columns = CARDS.flatMap(({ name }) => [`${name}: floor, ms`, "model, ms"]);
  console.log(`\n${model}, batch ${n}, ${values.activations}, ${values.precision}: ${ops} ops\n`);
  console.log(`| kernel | launches | GB | GFLOP | ${columns.join(" | ")} |\n|---|${"---:|".repeat(3 + columns.length)}`);
  const print = (name, { launches, bytes, flops, times }) => {
    const cells = times.flatMap(({ least, modelled }) => [milliseconds(least), milliseconds(modelled)]);
    console.log(`| ${[name, launches, gigabytes(bytes), (flops / 1e9).toFixed(2), ...cells].join(" | ")} |`);
  };
  for (const [name, row] of [...rows].sort(([, a], [, b]) => b.times[0].modelled - a.times[0].modelled)) print(name, row);
  print("all", all);
}

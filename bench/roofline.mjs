/**
 * What a training step costs on a GPU by arithmetic alone: for every kernel that it launches, the bytes it has to move through
 * device memory at least (each tensor once, whatever the caches do) and its multiplications and additions. With a GPU's limits,
 * the least time that this takes.
 *
 *   node bench/roofline.mjs MODEL... [--batch-size 100] [--activations reversible] [--precision tf32] [--bandwidth 4.8e12]
 *                           [--flops N] [--launch 2.5e-6]
 *
 * `bandwidth` in bytes/s, `flops` of convolutions a second, `launch`: the least time that a kernel of a graph takes, in seconds. The
 * defaults are the data sheet's numbers of an H200, its matrix units at the 0.6 that mma.sync can reach of them. This is no
 * measurement: it is what measurements are to be compared with.
 */
import { parseArgs } from "node:util";
import modelsModule from "../dist/network/models.js";
import rooflineModule from "../dist/verify/roofline.js";

const RATES = { float32: 60e12, tf32: 0.6 * 494e12, bfloat16: 0.6 * 989e12 };

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    "batch-size": { type: "string", default: "100" },
    activations: { type: "string", default: "reversible" },
    precision: { type: "string", default: "tf32" },
    bandwidth: { type: "string", default: "4.8e12" },
    flops: { type: "string" },
    launch: { type: "string", default: "2.5e-6" },
  },
});
const n = Number(values["batch-size"]);
const bandwidth = Number(values.bandwidth);
const rate = Number(values.flops ?? RATES[values.precision]);
const launch = Number(values.launch);

const gigabytes = (bytes) => (bytes / 1e9).toFixed(3);
const milliseconds = (seconds) => (seconds * 1e3).toFixed(3);

for (const model of positionals.length > 0 ? positionals : ["revnet-38"]) {
  const spec = modelsModule.resolveModel(model);
  const { kernels, ops } = rooflineModule.stepKernels(spec, n, values.activations);

  const rows = new Map();
  for (const kernel of kernels) {
    const { bytes, flops = 0 } = kernel;
    const row = rows.get(kernel.kernel) ?? { launches: 0, bytes: 0, flops: 0, least: 0 };
    rows.set(kernel.kernel, {
      launches: row.launches + 1,
      bytes: row.bytes + bytes,
      flops: row.flops + flops,
      least: row.least + Math.max(launch, bytes / bandwidth, flops / rate),
    });
  }
  const sum = (key) => [...rows.values()].reduce((total, row) => total + row[key], 0);
  console.log(`\n${model}, batch ${n}, ${values.activations}, ${values.precision}: ${ops} ops\n`);
  console.log("| kernel | launches | GB | GFLOP | least time, ms |\n|---|---:|---:|---:|---:|");
  for (const [kernel, row] of [...rows].sort(([, a], [, b]) => b.least - a.least))
    console.log(
      `| ${kernel} | ${row.launches} | ${gigabytes(row.bytes)} | ${(row.flops / 1e9).toFixed(2)} | ${milliseconds(row.least)} |`,
    );
  console.log(
    `| all | ${sum("launches")} | ${gigabytes(sum("bytes"))} | ${(sum("flops") / 1e9).toFixed(2)} | ${milliseconds(sum("least"))} |`,
  );
}

#!/usr/bin/env node
/**
 * Compiles the CUDA sources for two generations of GPUs and reads what ptxas says of each kernel. Fails on any warning, on a
 * register spill or a stack frame, and where docs/cuda-kernels.md, made by the same nvcc, says something else; --write makes
 * it anew. Also fails on what machine-code.js finds, where there is an nvdisasm (NVDISASM, or in PATH). Where there is no nvcc it
 * says so and succeeds.
 */

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const machineCode = require("./machine-code.js");

const root = path.resolve(__dirname, "..");
const report = path.join(root, "docs", "cuda-kernels.md");
/** The oldest with the matrix instructions and asynchronous copies that kernels use, and the newest that is tuned for. */
const architectures = ["sm_80", "sm_90a"];
const write = process.argv.includes("--write");

const nvcc = process.env.CUDACXX ?? ["nvcc", "/usr/local/cuda/bin/nvcc"].find((name) => !spawnSync(name, ["--version"]).error);
if (nvcc === undefined) {
  console.log("check:cuda: there is no nvcc here, so the CUDA sources were not checked (set CUDACXX, or add it to PATH)");
  process.exit(0);
}
const version = /release [\d.]+, V([\d.]+)/.exec(spawnSync(nvcc, ["--version"], { encoding: "utf8" }).stdout)?.[1];

/** What nvcc and ptxas say while they compile `source`, and the machine code for the newest architecture by kernel. */
function compile(source) {
  const targets = architectures.map((name) => `-gencode=arch=${name.replace("sm", "compute")},code=${name}`);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-cuda-"));
  try {
    const options = [
      "-std=c++20",
      "-fmad=false",
      "--expt-relaxed-constexpr",
      "-O3",
      "-Inative",
      "-Xcompiler=-Wall,-Wextra",
      "-Xptxas=-v",
      "--threads=2",
      "--keep",
      `--keep-dir=${folder}`,
    ];
    const args = [...options, ...targets, "-c", source, "-o", path.join(folder, "object.o")];
    const { status, stdout, stderr, error } = spawnSync(nvcc, args, { cwd: root, encoding: "utf8", maxBuffer: 2 ** 28 });
    if (error) throw error;
    // As --keep names them.
    const cubin = path.join(folder, `${path.basename(source, ".cu")}.${architectures.at(-1).replace("sm", "compute")}.cubin`);
    const code = machineCode.nvdisasm !== undefined && status === 0 ? machineCode.disassemble(cubin) : new Map();
    return { status, output: stdout + stderr, code };
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

/** By kernel and architecture: { name, architecture, registers, shared, stack, spills }. */
function readKernels(output) {
  const kernels = [];
  for (const line of output.split("\n")) {
    const entry = /Compiling entry function '(\w+)' for '(\w+)'/.exec(line);
    if (entry) kernels.push({ name: entry[1], architecture: entry[2], registers: 0, shared: 0, stack: 0, spills: 0 });
    const frame = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (frame && kernels.length > 0)
      Object.assign(kernels.at(-1), { stack: Number(frame[1]), spills: Number(frame[2]) + Number(frame[3]) });
    const used = /Used (\d+) registers/.exec(line);
    if (used)
      Object.assign(kernels.at(-1), { registers: Number(used[1]), shared: Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0) });
  }
  return kernels;
}

/** As the sources call them: without namespaces and parameters. */
function readableNames(kernels) {
  const names = [...new Set(kernels.map(({ name }) => name))];
  const { stdout, error } = spawnSync("c++filt", { input: names.join("\n"), encoding: "utf8" });
  if (error) throw error;
  const readable = stdout.split("\n").map((name) =>
    name
      .replace(/^void /, "")
      .replace(/revnet::(cuda::)?|\(anonymous namespace\)::/g, "")
      .replace(/\((?:int|bool|unsigned int)\)/g, "")
      .replace(/\(Writing\)/g, "")
      .replace(/\((?!anonymous).*$/, ""),
  );
  return new Map(names.map((name, i) => [name, readable[i]]));
}

/** A file's kernels as a table, one line each. */
function section(source, kernels) {
  const names = readableNames(kernels);
  const rows = new Map();
  for (const kernel of kernels) {
    const row = rows.get(kernel.name) ?? { registers: {}, shared: 0, stack: 0, spills: 0 };
    row.registers[kernel.architecture] = kernel.registers;
    for (const key of ["shared", "stack", "spills"]) row[key] = Math.max(row[key], kernel[key]);
    rows.set(kernel.name, row);
  }
  const lines = [...rows]
    .map(([name, { registers, shared, stack, spills }]) => {
      const counts = architectures.map((architecture) => registers[architecture] ?? "-");
      return `| \`${names.get(name)}\` | ${[...counts, shared, stack, spills].join(" | ")} |`;
    })
    .sort();
  const header = `| kernel | ${architectures.map((name) => `registers, ${name}`).join(" | ")} | static shared bytes | stack bytes | spill bytes |`;
  return [`## ${source}`, "", header, `|---|${"---|".repeat(architectures.length + 3)}`, ...lines, ""].join("\n");
}

const faults = [];
const sections = [];
for (const file of fs.readdirSync(path.join(root, "native", "cuda")).sort()) {
  if (!file.endsWith(".cu")) continue;
  const source = `native/cuda/${file}`;
  const { status, output, code } = compile(source);
  const kernels = readKernels(output);
  if (status !== 0) faults.push(`${source} does not compile:\n${output.trim()}`);
  for (const line of output.split("\n")) if (/\bwarning\b/i.test(line)) faults.push(`${source}: ${line.trim()}`);
  const names = readableNames(kernels);
  for (const { name, architecture, stack, spills } of kernels)
    if (stack > 0 || spills > 0)
      faults.push(`${source}: ${names.get(name)} (${architecture}): ${stack} bytes of stack, ${spills} bytes spilled`);
  for (const { name, architecture, registers } of kernels)
    if (architecture === architectures.at(-1) && code.has(name))
      for (const fault of machineCode.faultsOf(names.get(name), code.get(name), registers))
        faults.push(`${source}: ${names.get(name)}: ${fault}`);
  if (kernels.length > 0) sections.push(section(source, kernels));
}

const text = `# CUDA kernels

What ptxas of nvcc ${version} says of each kernel; \`npm run check:cuda -- --write\` makes this file, and \`npm run check:cuda\` checks it.
Shared memory is mostly dynamic, and shows in the head comments of the sources together with bytes, arithmetic and launch shapes.

${sections.join("\n")}`;
const written = fs.existsSync(report) ? fs.readFileSync(report, "utf8") : "";
if (write) fs.writeFileSync(report, text);
else if (written.includes(`nvcc ${version} `) && written !== text)
  faults.push("docs/cuda-kernels.md is not what this compiler says: npm run check:cuda -- --write");

for (const fault of faults) console.error(`check:cuda: ${fault}`);
if (machineCode.nvdisasm === undefined)
  console.log("check:cuda: there is no nvdisasm here, so the machine code was not read (set NVDISASM, or add it to PATH)");
if (faults.length === 0) console.log(`check:cuda: no warning, no spill and no stack frame, for ${architectures.join(" and ")}`);
process.exit(faults.length === 0 ? 0 : 1);

/**
 * What check-cuda.js asks of the machine code of the kernels that take most of a step's time. Registers and spills do not show whether a
 * thread's loads wait for one another, or what is worked out again for each tile: two faults that cost more time than any other, and
 * that the sources looked free of.
 */

const { spawnSync } = require("node:child_process");

/** The kernels. */
const kernels = /^(convolveKernel|backwardLayerKernel|endAndConvolveKernel|weightsGradientKernel)</;
/** Leaves room for two blocks of 256 threads on a multiprocessor. */
const mostRegisters = 128;
/** Layouts for wide kernels have a block for themselves. */
const alone = /, false>/;
/** Of 16 bytes, of a thread, from different addresses to different registers: `kLoads` of native/cuda/patch.cuh. */
const loadsUnderWay = 6;

const nvdisasm =
  process.env.NVDISASM ?? ["nvdisasm", "/usr/local/cuda/bin/nvdisasm"].find((name) => !spawnSync(name, ["--version"]).error);

/** By kernel's mangled name its instructions: { text } or, for what branches lead to, { label }. */
function disassemble(cubin) {
  const { status, stdout, stderr, error } = spawnSync(nvdisasm, ["-c", cubin], { encoding: "utf8", maxBuffer: 2 ** 30 });
  if (error || status !== 0) throw new Error(`nvdisasm: ${error?.message ?? stderr}`);
  const functions = new Map();
  let lines;
  for (const line of stdout.split("\n")) {
    const start = /^\.text\.(\w+):/.exec(line);
    if (start) {
      lines = [];
      functions.set(start[1], lines);
    }
    const label = /^(\.L_\w+):/.exec(line);
    if (label) lines?.push({ label: label[1] });
    const instruction = /^\s+\/\*[0-9a-f]+\*\/\s+(.*?)\s*;/.exec(line);
    if (instruction) lines?.push({ text: instruction[1] });
  }
  return functions;
}

/** The code between where a branch leads and the branch, for each branch that leads back. */
function loopsOf(lines) {
  const at = new Map(lines.map(({ label }, i) => [label, i]));
  return lines.flatMap(({ text }, i) => {
    const target = at.get(/\bBRA.*`\((\.L_\w+)\)/.exec(text ?? "")?.[1]);
    return target !== undefined && target < i ? [lines.slice(target, i + 1)] : [];
  });
}

/** The most loads of 16 bytes that come before anything is stored to shared memory or waited for, each to registers of its own. */
function mostLoads(loop) {
  let most = 0;
  let registers = new Set();
  for (const { text = "" } of loop) {
    const load = /\bLDG\.E\.128\b.*? (R\d+),/.exec(text);
    if (load && !registers.has(load[1])) registers.add(load[1]);
    else if (load || /\b(STS|BAR)\b/.test(text)) registers = new Set(load ? [load[1]] : []);
    most = Math.max(most, registers.size);
  }
  return most;
}

/** What is wrong with a kernel: nothing, or a line for each fault. */
function faultsOf(name, lines, registers) {
  if (!kernels.test(name)) return [];
  const faults = [];
  const loops = loopsOf(lines);
  const multiplies = ({ text = "" }) => /\b[HF](MMA|FMA)\b/.test(text);
  const divides = ({ text = "" }) => /\bI2F\.(U32\.)?RP\b/.test(text);
  if (!alone.test(name) && registers > mostRegisters)
    faults.push(`${registers} registers, where ${mostRegisters} leave room for two blocks`);
  const loads = Math.max(0, ...loops.map(mostLoads));
  if (loads < loadsUnderWay) faults.push(`at most ${loads} loads of a thread are under way, not ${loadsUnderWay}`);
  if (loops.some((loop) => loop.some(multiplies) && loop.some(divides))) faults.push("a loop over tiles divides integers");
  return faults;
}

module.exports = { nvdisasm, disassemble, faultsOf };

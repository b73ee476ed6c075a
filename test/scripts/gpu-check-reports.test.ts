/** scripts/gpu-check reads what NVIDIA's tools print: excerpts of their reports about this package on an H100 (ncu 2025.3). */
import path from "node:path";
import { expect } from "chai";

const SCRIPTS = path.join(__dirname, "../../../scripts/gpu-check");

interface Launch {
  kernel: string;
  grid: string;
  microseconds: number;
  megabytes: number;
}
interface StepTable {
  launches: number;
  microseconds: number;
  megabytes: number;
  kernels: { kernel: string; launches: number }[];
  largest: (Launch & { launches: number; share: number })[];
}
const { kernelsOf, launchesOf, stepTable } = require(path.join(SCRIPTS, "profiles.js")) as {
  kernelsOf(report: string): Record<string, string>[];
  launchesOf(csv: string): Launch[];
  stepTable(launches: Launch[]): StepTable;
};
const { sanitizerReport } = require(path.join(SCRIPTS, "correctness.js")) as { sanitizerReport(report: string): object };
const { summary } = require(path.join(SCRIPTS, "summary.js")) as { summary(results: object[]): string };

const STEP = `==WARNING== Note: Running with unmodified GPU clocks. If not controlled otherwise, profiling results may be inconsistent.
==PROF== Connected to process 1596 (/tmp/b/revnet-bundle/node)
50952c24425e7a3f6402b76461347ca795c30595ce5abf0dab57eb1eaf724426
==PROF== Disconnected from process 1596
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"
"1","1596","node","127.0.0.1","unnamed>::prepareKernel(const PrepareJob *)","1","13","(256, 1, 1)","(36, 73, 1)","0","9.0","Command line profiler metrics","dram__bytes.sum","byte","1,875,712"
"1","1596","node","127.0.0.1","unnamed>::prepareKernel(const PrepareJob *)","1","13","(256, 1, 1)","(36, 73, 1)","0","9.0","Command line profiler metrics","gpu__time_duration.sum","ns","9,248"
"2","1596","node","127.0.0.1","void unnamed>::convolveKernel<Bfloat16, 32>(unnamed>::Pass)","1","13","(128, 1, 1)","(512, 1, 1)","0","9.0","Command line profiler metrics","dram__bytes.sum","byte","1,313,792"
"2","1596","node","127.0.0.1","void unnamed>::convolveKernel<Bfloat16, 32>(unnamed>::Pass)","1","13","(128, 1, 1)","(512, 1, 1)","0","9.0","Command line profiler metrics","gpu__time_duration.sum","ns","67,488"
"3","1596","node","127.0.0.1","void unnamed>::convolveKernel<Bfloat16, 32>(unnamed>::Pass)","1","13","(128, 1, 1)","(512, 1, 1)","0","9.0","Command line profiler metrics","dram__bytes.sum","Mbyte","2"
"3","1596","node","127.0.0.1","void unnamed>::convolveKernel<Bfloat16, 32>(unnamed>::Pass)","1","13","(128, 1, 1)","(512, 1, 1)","0","9.0","Command line profiler metrics","gpu__time_duration.sum","us","32.512"
"48","1596","node","127.0.0.1","void unnamed>::normGradientSums<4, unnamed>::AverageGradient>(NormGradientArguments, T2, Tiling, long, ChannelPartials, unsigned int *)","1","13","(256, 1, 1)","(44, 1, 1)","0","9.0","Command line profiler metrics","dram__bytes.sum","byte","1,507,072"
"48","1596","node","127.0.0.1","void unnamed>::normGradientSums<4, unnamed>::AverageGradient>(NormGradientArguments, T2, Tiling, long, ChannelPartials, unsigned int *)","1","13","(256, 1, 1)","(44, 1, 1)","0","9.0","Command line profiler metrics","gpu__time_duration.sum","ns","20,416"
`;

/** The parts about warp states are in ncu's format, but with other figures: the run that the rest is from had not asked for them. */
const FUNCTION = `==PROF== Profiling "convolveKernel" - 1: 0%....50%....100% - 20 passes
==PROF== Disconnected from process 2339
[2339] node@127.0.0.1
  unnamed>::prepareKernel(const PrepareJob *) (3, 5, 1)x(256, 1, 1), Context 1, Stream 13, Device 0, CC 9.0
    Warning: Data collection happened without fixed GPU frequencies. Profiling results may be inconsistent.
    Section: GPU Speed Of Light Throughput
    ----------------------- ----------- ------------
    Metric Name             Metric Unit Metric Value
    ----------------------- ----------- ------------
    DRAM Throughput                   %         0.33
    Duration                         us         3.90
    ----------------------- ----------- ------------

    OPT   This kernel grid is too small to fill the available resources on this device, resulting in only 0.0 full      
          waves across all SMs. Look at Launch Statistics for more details.                                             

    Section: Warp State Statistics
    OPT   Est. Speedup: 32.11%                                                                                          
          On average, each warp of this workload spends 7.8 cycles being stalled waiting for a scoreboard dependency on 
          a L1TEX (local, global, surface, texture) operation. Find the instruction producing the data being waited     
          upon to identify the culprit.                                                                                 

  void unnamed>::convolveKernel<Bfloat16, 16>(unnamed>::Pass) (512, 1, 1)x(128, 1, 1), Context 1, Stream 13, Device 0, CC 9.0
    Section: GPU Speed Of Light Throughput
    ----------------------- ----------- ------------
    Metric Name             Metric Unit Metric Value
    ----------------------- ----------- ------------
    Elapsed Cycles                cycle       59,643
    DRAM Throughput                   %         6.43
    Duration                         us     1,030.85
    ----------------------- ----------- ------------

    Section: Compute Workload Analysis
    -------------------- ----------- ------------
    Metric Name          Metric Unit Metric Value
    -------------------- ----------- ------------
    Executed Ipc Active   inst/cycle         1.19
    Issue Slots Busy               %        13.82
    -------------------- ----------- ------------

    Section: Launch Statistics
    -------------------------------- --------------- ---------------
    Metric Name                          Metric Unit    Metric Value
    -------------------------------- --------------- ---------------
    Registers Per Thread             register/thread             121
    # SMs                                         SM             132
    -------------------------------- --------------- ---------------

    Section: Occupancy
    ------------------------------- ----------- ------------
    Metric Name                     Metric Unit Metric Value
    ------------------------------- ----------- ------------
    Theoretical Occupancy                     %           25
    Achieved Occupancy                        %        21.26
    ------------------------------- ----------- ------------

    Section: Warp State Statistics
    ------------------------ ----------- ------------
    Metric Name              Metric Unit Metric Value
    ------------------------ ----------- ------------
    Selected                        inst         1.00
    Stall Barrier                   inst         0.75
    Stall Long Scoreboard           inst        18.31
    Stall Not Selected              inst        40.10
    Stall Wait                      inst         1.88
    ------------------------ ----------- ------------
`;

describe("gpu-check reads", () => {
  it("the launches of a step, and adds them up by kernel and grid", () => {
    const launches = launchesOf(STEP);
    const { megabytes, ...first } = launches[0]!;
    expect(first).to.deep.equal({ kernel: "prepareKernel", grid: "(36, 73, 1)", microseconds: 9.248 });
    expect(megabytes).to.be.closeTo(1.875712, 1e-9);
    const table = stepTable(launches);
    expect(table.launches).to.equal(4);
    expect(table.microseconds).to.be.closeTo(9.248 + 67.488 + 32.512 + 20.416, 1e-9);
    expect(table.largest.map(({ kernel, launches: count }) => `${kernel} ${count}`)).to.deep.equal([
      "convolveKernel<Bfloat16, 32> 2",
      "normGradientSums<4, AverageGradient> 1",
      "prepareKernel 1",
    ]);
    expect(table.kernels.map(({ kernel, launches: count }) => `${kernel} ${count}`)).to.deep.equal([
      "convolveKernel 2",
      "normGradientSums 1",
      "prepareKernel 1",
    ]);
    expect(table.largest[0]!.megabytes).to.be.closeTo(1.313792 + 2, 1e-9);
    expect(summary([{ part: "step", what: "revnet-38", ...table }])).to.include(
      "| convolveKernel<Bfloat16, 32> | (512, 1, 1) | 2 | 100.0 | 77.1 % | 50.0 | 1.66 | 33 |",
    );
  });

  it("no launches where a profiler says only why it cannot work", () => {
    expect(launchesOf("==ERROR== Failed to initialize the profiler\n")).to.deep.equal([]);
    expect(kernelsOf("==ERROR== Failed to initialize the profiler\n")).to.deep.equal([]);
  });

  it("kernels one by one: what each metric is, and what its warps wait for", () => {
    expect(kernelsOf(FUNCTION)).to.deep.equal([
      {
        kernel: "prepareKernel",
        grid: "(3, 5, 1)",
        Duration: "3.90 us",
        "DRAM Throughput": "0.33 %",
        stall: "waiting for a scoreboard dependency on a L1TEX (local, global, surface, texture) operation, 7.8",
      },
      {
        kernel: "convolveKernel<Bfloat16, 16>",
        grid: "(512, 1, 1)",
        Duration: "1,030.85 us",
        "DRAM Throughput": "6.43 %",
        "Executed Ipc Active": "1.19 inst/cycle",
        "Issue Slots Busy": "13.82 %",
        "Registers Per Thread": "121 register/thread",
        "Achieved Occupancy": "21.26 %",
        stall: "Long Scoreboard, 18.31",
      },
    ]);
  });

  it("how many ops the checkers watched, and their last word", () => {
    const ops = [
      "========= COMPUTE-SANITIZER",
      "PASS op batchNormRelu, bfloat16: 3 cases, largest error 0.17 x tolerance",
      "PASS op shortcut, bfloat16: 3 cases, largest error 0.03 x tolerance",
    ].join("\n");
    const memcheck = `${ops}\n========= ERROR SUMMARY: 0 errors\n`;
    expect(sanitizerReport(memcheck)).to.deep.equal({ ops: 2, said: "ERROR SUMMARY: 0 errors" });
    const racecheck = `${ops}\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n`;
    expect(sanitizerReport(racecheck)).to.deep.equal({
      ops: 2,
      said: "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)",
    });
  });
});

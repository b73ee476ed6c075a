/** revnet doctor: what there is, and with --verify whether it works. */
import { arch, cpus, platform, release, totalmem } from "node:os";
import { native } from "../native/index.js";
import { chooseDevice, type DeviceOptions } from "../network/device.js";
import { processorCount } from "../processors.js";
import { bitsOf, COMMON_BITS } from "../verify/bits.js";
import type { CheckResult } from "../verify/check.js";
import { checksOf, subjectOf, verify } from "../verify/verify.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { DEVICE_FLAGS, deviceOptions } from "./flags.js";
import { bytes, print, printJson, printJsonLine, table } from "./output.js";

export const doctor = defineCommand({
  name: "doctor",
  summary:
    'What this machine and this build offer, and which device "auto" chooses. Exits 0 if training is possible; with --verify, which tries ' +
    "a device out, if nothing was found wrong with it.",
  positionals: "",
  arity: [0, 0],
  flags: {
    verify: { type: "boolean", help: "compare a device with the float64 reference, and measure it; a line for each check" },
    budget: { type: "number", value: "SECONDS", help: "time for --verify, after which checks are skipped (default 120)" },
    ...DEVICE_FLAGS,
    ...JSON_FLAG,
  },
  async run({ verify: asked, budget, json = false, ...device }) {
    if (asked) return verifyDevice(deviceOptions(device), budget ?? 120, json);
    const unused = Object.entries({ budget, ...device }).find(([, value]) => value !== undefined);
    if (unused) throw new UsageError(`--${unused[0]} goes with --verify`);
    const build = native.buildInfo();
    const devices = native.devices();
    const { options, reason } = chooseDevice({});
    const trainable = devices.some(({ name, available }) => available && name === options.device);
    const { isa = "auto" } = chooseDevice({ device: "cpu" }).options;
    const bits = await bitsOf({ device: "cpu", threads: 1, isa });
    const machine = {
      node: process.version,
      platform: `${platform()} ${release()} ${arch()}`,
      cpu: cpus()[0]?.model.trim() ?? "unknown",
      threads: processorCount(),
      memory: totalmem(),
    };
    if (json) {
      printJson({
        ...machine,
        build,
        isa: isa === "auto" ? build.isas[0] : isa,
        commonBits: bits === COMMON_BITS,
        devices,
        auto: options.device,
        reason,
        trainable,
      });
    } else {
      const rows = [
        ["node", machine.node],
        ["platform", machine.platform],
        ["processor", machine.cpu],
        ["threads", String(machine.threads)],
        ["memory", bytes(machine.memory)],
        ["addon", `${build.version}, ${build.compiler}, Node-API ${build.napiVersion}`],
        [
          "CUDA",
          build.cuda === null ? "not in this build" : `${build.cuda}, for architectures ${build.cudaArchitectures.join(", ")}`,
        ],
        ["CUDA driver", build.cudaDriver === null ? "none found" : `knows CUDA up to ${build.cudaDriver}`],
        ["instructions", `${isa === "auto" ? build.isas[0] : `${isa}, by REVNET_ISA`}, of ${build.isas.join(", ")}`],
        [
          "bits",
          bits === COMMON_BITS
            ? `the common ones: the CPU trains to the weights that every other one trains to (${bits.slice(0, 12)})`
            : `NOT the common ones: the CPU trains to other weights (${bits.slice(0, 12)}) than others do (${COMMON_BITS.slice(0, 12)})`,
        ],
        ...devices.map(({ name, available, description }) => [
          `device ${name}`,
          `${available ? "available" : "not available"}: ${description}`,
        ]),
        ["auto", reason],
      ];
      print(table([["", ""], ...rows]).slice(1));
      print(["", trainable ? "Training is possible." : "Training is not possible: no device is available."]);
    }
    return trainable ? 0 : 1;
  },
});

/** Each check's line is printed as it ends: a verification that is cut off has said what it saw until then. */
async function verifyDevice(options: DeviceOptions, seconds: number, json: boolean): Promise<number> {
  if (!(seconds > 0)) throw new UsageError(`--budget expects a positive number of seconds, got ${seconds}`);
  const subject = subjectOf(options);
  const { device, precisions } = subject;
  const description =
    native.devices().find(({ name }) => name === device.device || name === `${device.device}:0`)?.description ?? device.device;
  const width = Math.max(...checksOf(subject).map(({ name }) => name.length));
  if (json) printJsonLine({ device: device.device, description, precisions });
  else print(`${device.device}: ${description}; ${precisions.join(", ")}`);
  const counts: Record<CheckResult["status"], number> = { PASS: 0, FAIL: 0, SKIPPED: 0 };
  for await (const result of verify(subject, seconds)) {
    ++counts[result.status];
    if (json) printJsonLine(result);
    else
      print(
        `${result.status.padEnd(7)}  ${result.check.padEnd(width)}  ${result.seconds.toFixed(1).padStart(5)} s  ${result.detail}`,
      );
  }
  const { PASS: passed, FAIL: failed, SKIPPED: skipped } = counts;
  if (json) printJsonLine({ passed, failed, skipped });
  else print(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  return failed > 0 ? 1 : 0;
}

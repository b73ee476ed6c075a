/** revnet doctor */
import { arch, availableParallelism, cpus, platform, release, totalmem } from "node:os";
import { native } from "../native/index.js";
import { chooseDevice } from "../network/device.js";
import { defineCommand, JSON_FLAG } from "./command.js";
import { bytes, print, printJson, table } from "./output.js";

export const doctor = defineCommand({
  name: "doctor",
  summary: 'What this machine and this build offer, and which device "auto" chooses. Exits 0 if training is possible.',
  positionals: "",
  arity: [0, 0],
  flags: JSON_FLAG,
  async run({ json }) {
    const build = native.buildInfo();
    const devices = native.devices();
    const { options, reason } = chooseDevice({});
    const trainable = devices.some(({ name, available }) => available && name === options.device);
    const machine = {
      node: process.version,
      platform: `${platform()} ${release()} ${arch()}`,
      cpu: cpus()[0]?.model.trim() ?? "unknown",
      threads: availableParallelism(),
      memory: totalmem(),
    };
    if (json) {
      printJson({ ...machine, build, devices, auto: options.device, reason, trainable });
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
        ["instructions", build.isas.join(", ") || "none beyond the portable code"],
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

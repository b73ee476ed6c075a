/** The bits of training on the CPU, which are the same whatever the processor, its instruction set, the compiler and the C library. */
import { createHash } from "node:crypto";
import type { DeviceOptions } from "../native/index.js";
import { createNetwork } from "../network/network.js";
import type { NetworkSpec } from "../network/spec.js";
import { type Budget, type Check, Failure, type Subject } from "./check.js";
import { trainedHash } from "./networks.js";

/** What `bitsOf` gives on every processor with every build; a change of it changes the weights of everybody's runs. */
export const COMMON_BITS = "ee0566671044317dbcd8da9b6903274befb50d04f8b39f5f9c959391a46be857";

const common = { input: [16, 18, 3], classes: 5, strides: [1, 2] } as const;
/** Channels that fill vectors, pairs of them, and parts of one; kernels of each size; both stems. */
const NETWORKS: readonly NetworkSpec[] = [
  { ...common, name: "bits", kind: "revnet", stem: "cifar", filters: [16, 20, 72], units: [2, 2], bottleneck: false },
  { ...common, name: "bits-bottleneck", kind: "revnet", stem: "imagenet", filters: [32, 8, 18], units: [2, 2], bottleneck: true },
  { ...common, name: "bits-resnet", kind: "resnet", stem: "cifar", filters: [5, 17, 33], units: [1, 2], bottleneck: false },
];
const [STEPS, BATCH] = [3, 5];

/** SHA-256 of the weights that these networks have after some steps of training. */
export async function bitsOf(device: Omit<DeviceOptions, "precision">, budget?: Budget): Promise<string> {
  const hash = createHash("sha256");
  for (const [i, spec] of NETWORKS.entries()) {
    budget?.require(`${i} of ${NETWORKS.length} networks`);
    const network = createNetwork(spec, device);
    const train = () => trainedHash(network, "reversible", STEPS, BATCH);
    try {
      hash.update(await (budget ? budget.within(network, train) : train()));
    } finally {
      network.dispose();
    }
  }
  return hash.digest("hex");
}

/** Of the CPU alone: GPUs sum in another order, and the reference in float64. */
export function bitsChecks({ device, precisions }: Subject): Check[] {
  if (device.device !== "cpu" || !precisions.includes("float32")) return [];
  return [
    {
      name: "common bits, float32",
      async run(budget) {
        const sha256 = await bitsOf(device, budget);
        if (sha256 !== COMMON_BITS)
          throw new Failure(`trained weights ${sha256.slice(0, 12)}, elsewhere ${COMMON_BITS.slice(0, 12)}`, { sha256 });
        return {
          detail: `${NETWORKS.length} networks' trained weights ${sha256.slice(0, 12)}, as everywhere`,
          figures: { sha256 },
        };
      },
    },
  ];
}

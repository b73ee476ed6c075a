/** Flags that several commands share. */
import type { DeviceOptions, Precision, StreamGradients } from "../network/device.js";
import type { Flags, FlagValues } from "./command.js";

export const DEVICE_FLAGS = {
  device: { type: "string", value: "NAME", help: "auto (default), cpu, cuda, cuda:N or reference" },
  precision: { type: "string", value: "NAME", help: "float32 (default); on a GPU also tf32 or bfloat16, for convolutions" },
  threads: { type: "integer", help: "CPU threads (default: one for each core); results do not depend on it" },
} as const satisfies Flags;

/** For commands with a backward pass. */
export const TRAINING_DEVICE_FLAGS = {
  ...DEVICE_FLAGS,
  "stream-gradients": {
    type: "string",
    value: "NAME",
    help: "how they are stored with --precision bfloat16: bfloat16 (default) or float32",
  },
} as const satisfies Flags;

/** Whether they make sense, the network finds out. */
export function deviceOptions(flags: FlagValues<typeof TRAINING_DEVICE_FLAGS>): DeviceOptions {
  const { device = "auto", precision, streamGradients, threads } = flags;
  return {
    device,
    precision: precision as Precision | undefined,
    streamGradients: streamGradients as StreamGradients | undefined,
    threads,
  };
}

export const DATA_FLAGS = {
  data: { type: "string", value: "NAME", help: "shapes, cifar-10, cifar-100 or image-folder" },
  "data-dir": { type: "string", value: "DIR", help: "folder of the data set's files" },
  "train-count": { type: "integer", help: "training images: how many shapes to draw, or the first N" },
  "test-count": { type: "integer", help: "test images, likewise" },
  "validation-share": {
    type: "number",
    help: "share of each class's training images held out for validation (default: 0.1 of an image-folder without val/ and test/)",
  },
  "broken-images": {
    type: "string",
    value: "skip|fail",
    help: "image-folder: whether to go on without images that cannot be decoded (default skip)",
  },
} as const satisfies Flags;

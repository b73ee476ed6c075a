/** Flags that several commands share. */
import type { Flags } from "./command.js";

export const DEVICE_FLAGS = {
  device: { type: "string", value: "NAME", help: "auto (default), cpu, cuda, cuda:N or reference" },
  threads: { type: "integer", help: "CPU threads (default: one for each core); results do not depend on it" },
} as const satisfies Flags;

export const DATA_FLAGS = {
  data: { type: "string", value: "NAME", help: "shapes, cifar-10 or cifar-100" },
  "data-dir": { type: "string", value: "DIR", help: "folder of the data set's files" },
  "train-count": { type: "integer", help: "training images: how many shapes to draw, or the first N" },
  "test-count": { type: "integer", help: "test images, likewise" },
} as const satisfies Flags;

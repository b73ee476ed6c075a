/** Which device a network runs on, and why. */
import type { DeviceOptions as NativeOptions } from "../../binding.js";
import { RevNetError } from "../errors.js";
import { native } from "../native/index.js";
import { processorCount } from "../processors.js";
import { checkBoolean, checkChoice, checkInteger, describe, unknownMessage } from "../validation.js";

/** Where a network runs. */
export interface DeviceOptions {
  /** "auto" (default): CUDA if there is one, otherwise the CPU. "cpu", "cuda", "cuda:N", "reference" (float64, slow). */
  readonly device?: string | undefined;
  /** CPU threads; default: one for each processor that the system offers. */
  readonly threads?: number | undefined;
  /**
   * CPU instruction set: "avx512", "avx2", "neon", "portable"; default "auto": the widest, or the one that the environment variable
   * REVNET_ISA names. All give the same bits.
   */
  readonly isa?: string | undefined;
  /**
   * What convolutions multiply: "float32" (default), or operands rounded to "tf32" or "bfloat16" for a GPU's tensor cores. With
   * "bfloat16" hidden tensors and gradients of streams are also stored in 2 bytes. Sums, weights, statistics and streams stay what
   * they are.
   */
  readonly precision?: Precision | undefined;
  /** How gradients of streams are stored with the precision "bfloat16": "bfloat16" (default) or "float32". Others store "float32". */
  readonly streamGradients?: StreamGradients | undefined;
  /** For tests: activations start each run as NaN, so that whatever is read before it is written shows. */
  readonly poison?: boolean | undefined;
}

export const PRECISIONS = ["float32", "tf32", "bfloat16"] as const;
export type Precision = (typeof PRECISIONS)[number];

/** How gradients of streams may be stored. */
export const STREAM_GRADIENTS = ["float32", "bfloat16"] as const;
export type StreamGradients = (typeof STREAM_GRADIENTS)[number];
/** The default. */
export const streamGradientsOf = (precision: Precision): StreamGradients => (precision === "bfloat16" ? "bfloat16" : "float32");

export const DEVICE_KEYS = ["device", "threads", "isa", "precision", "streamGradients", "poison"] as const;

export interface DeviceChoice {
  readonly options: NativeOptions;
  /** For people: the device and the reason. */
  readonly reason: string;
}

const CODE = "ERR_INVALID_ARGUMENT";
const MAX_THREADS = 1024;
const ISAS = ["auto", "avx512", "avx2", "neon", "portable"] as const;

/** @throws RevNetError ERR_INVALID_ARGUMENT for a name that is no device's. Whether the device is there, the session finds out. */
export function chooseDevice(options: DeviceOptions): DeviceChoice {
  const { device = "auto", threads, isa, precision, streamGradients, poison } = options;
  if (typeof device !== "string") throw new RevNetError(CODE, `device: expected a name, got ${describe(device)}`);
  if (!/^(auto|cpu|reference|cuda(:\d{1,3})?)$/.test(device))
    throw new RevNetError(CODE, `device: ${unknownMessage("device", device, ["auto", "cpu", "cuda", "cuda:0", "reference"])}`);
  const instructions = isa ?? (process.env.REVNET_ISA || undefined);
  const rest = {
    threads: threads === undefined ? processorCount() : checkInteger(threads, 1, MAX_THREADS, "threads", CODE),
    ...(instructions !== undefined && { isa: checkChoice(instructions, ISAS, isa === undefined ? "REVNET_ISA" : "isa", CODE) }),
    ...(precision !== undefined && { precision: checkChoice(precision, PRECISIONS, "precision", CODE) }),
    ...(streamGradients !== undefined && {
      streamGradients: checkChoice(streamGradients, STREAM_GRADIENTS, "streamGradients", CODE),
    }),
    ...(poison !== undefined && { poison: checkBoolean(poison, "poison", CODE) }),
  };
  if (device !== "auto") return { options: { device, ...rest }, reason: `${device}, as asked for` };
  const devices = native.devices();
  const cuda = devices.find(({ name, available }) => available && name.startsWith("cuda"));
  if (cuda)
    return { options: { device: cuda.name, ...rest }, reason: `${cuda.name}, chosen since there is one: ${cuda.description}` };
  const absence = devices.find(({ name }) => name.startsWith("cuda"))?.description;
  return { options: { device: "cpu", ...rest }, reason: `cpu, chosen since there is no CUDA device to use: ${absence}` };
}

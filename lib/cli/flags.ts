/** Flags that several commands share: those of trainRevNet's options. */

import type { Flag } from "../kinds.js";
import type { DeviceOptions, Precision, StreamGradients } from "../network/device.js";
import { type GivenOf, OPTIONS, type OptionName, type Options } from "../training/options.js";
import type { FlagValues } from "./command.js";

/** `streamGradients` as a flag: `stream-gradients`. */
type Kebab<S extends string> = S extends `${infer Head}${infer Tail}`
  ? `${Lowercase<Head>}${Tail extends Uncapitalize<Tail> ? "" : "-"}${Kebab<Tail>}`
  : S;
type FlagOf<Given> = Flag & { readonly type: Given extends number ? "number" : Given extends boolean ? "boolean" : "string" };

/** Of options with one flag each, of the same name. */
const flagsOf = <Name extends OptionName>(...names: Name[]): { [K in Name as Kebab<K>]: FlagOf<GivenOf<Options[K]>> } =>
  Object.assign({}, ...names.map((name) => OPTIONS[name].flags(name)));

export const DEVICE_FLAGS = flagsOf("device", "precision", "threads");

/** For commands with a backward pass. */
export const TRAINING_DEVICE_FLAGS = { ...DEVICE_FLAGS, ...flagsOf("streamGradients") };

export const DATA_FLAGS = flagsOf("data", "dataDir", "trainCount", "testCount", "validationShare", "brokenImages");

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

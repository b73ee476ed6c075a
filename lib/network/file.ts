/**
 * model.safetensors: parameters and running statistics by name, with the spec and the preprocessing as JSON in the
 * metadata. The tensors alone load into a PyTorch module of the same structure, and its state_dict loads here.
 */
import { types } from "node:util";
import { Pacer } from "../data/pacer.js";
import { RevNetError } from "../errors.js";
import { parseJson } from "../files/json.js";
import { readSafetensors, type Tensor, writeSafetensors } from "../formats/safetensors.js";
import { STATE_NAMES } from "../optimizers/index.js";
import { areFinite, describe } from "../validation.js";
import type { ParameterTensor } from "./host.js";
import { checkPreprocessing, imageElements, type Preprocessing } from "./images.js";
import { checkSpec, type NetworkSpec } from "./spec.js";

/** Whether a checkpoint's tensor is an optimizer's. Checkpoints load as models, without these. */
export const isOptimizerState = (tensor: string): boolean => STATE_NAMES.some((name) => tensor.startsWith(`${name}.`));

/** `format` in a checkpoint's metadata; every byte of such a file is under its digest. */
export const CHECKPOINT_FORMAT = "revnet-checkpoint";

export interface ModelFile {
  readonly spec: NetworkSpec;
  /** undefined where the file does not say. */
  readonly preprocessing: Preprocessing | undefined;
  readonly classNames: readonly string[] | undefined;
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float32Array | Float64Array }>;
}

export async function writeModel(
  file: string,
  metadata: Record<string, string>,
  tensors: ReadonlyMap<string, ParameterTensor>,
): Promise<void> {
  await writeSafetensors(file, tensors, metadata);
}

type Described = Pick<ModelFile, "spec" | "classNames"> & { readonly preprocessing: Preprocessing };

export function modelMetadata({ spec, preprocessing: { mean, scale }, classNames }: Described): Record<string, string> {
  // A constant mean image, above all that of zeros, is one number; one that differs by channel alone, a number for each.
  const channels = spec.input[2];
  const constant = mean.every((value) => value === mean[0]);
  const perChannel = mean.every((value, i) => value === mean[i % channels]);
  const shown = constant ? mean[0] : Array.from(perChannel ? mean.subarray(0, channels) : mean);
  return {
    spec: JSON.stringify(spec),
    preprocessing: JSON.stringify({ mean: shown, scale }),
    ...(classNames && { classes: JSON.stringify(classNames) }),
  };
}

/** @param given the spec, where the file carries none (or to use instead of its own) */
export async function readModel(file: string, given?: NetworkSpec): Promise<ModelFile> {
  const { metadata, tensors } = await readSafetensors(file, { digest: (of) => of.get("format") === CHECKPOINT_FORMAT });
  const what = `'${file}'`;
  const carried = metadata.get("spec");
  if (given === undefined && carried === undefined)
    throw new RevNetError(
      "ERR_INVALID_FILE",
      `${what} has no 'spec' in its metadata; pass the option spec with the model it belongs to`,
    );
  const spec = given ?? checkSpec(parse(carried!, `${what}: metadata 'spec'`), `${what}: spec`);
  return {
    spec,
    preprocessing: readPreprocessing(spec, metadata.get("preprocessing"), what),
    classNames: readClassNames(spec, metadata.get("classes"), what),
    tensors: await modelTensors(tensors, what),
  };
}

function readPreprocessing(spec: NetworkSpec, text: string | undefined, what: string): Preprocessing | undefined {
  if (text === undefined) return undefined;
  const value = parse(text, `${what}: metadata 'preprocessing'`);
  const { mean, ...rest } = typeof value === "object" && value !== null ? (value as { mean?: unknown }) : { mean: undefined };
  return checkPreprocessing(spec, { ...rest, mean: meanImage(spec, mean) }, "ERR_INVALID_FILE");
}

/** From one number, one for each channel, or one for each value. */
function meanImage(spec: NetworkSpec, mean: unknown): unknown {
  const elements = imageElements(spec);
  const channels = spec.input[2];
  if (typeof mean === "number") return new Float32Array(elements).fill(mean);
  if (!Array.isArray(mean) || mean.length !== channels) return mean;
  return Array.from({ length: elements }, (_, i) => mean[i % channels] as unknown);
}

function readClassNames(spec: NetworkSpec, text: string | undefined, what: string): readonly string[] | undefined {
  if (text === undefined) return undefined;
  return checkClassNames(spec, parse(text, `${what}: metadata 'classes'`), `${what}: classes`, "ERR_INVALID_FILE");
}

/** @throws RevNetError ERR_INVALID_ARGUMENT, or `code` */
export function checkClassNames(spec: NetworkSpec, value: unknown, what: string, code = "ERR_INVALID_ARGUMENT"): readonly string[] {
  if (!Array.isArray(value) || value.length !== spec.classes || !value.every((name) => typeof name === "string"))
    throw new RevNetError(code, `${what}: expected ${spec.classes} names, got ${describe(value)}`);
  return Object.freeze([...value]);
}

async function modelTensors(tensors: ReadonlyMap<string, Tensor>, what: string): Promise<ModelFile["tensors"]> {
  const found = new Map<string, { shape: readonly number[]; data: Float32Array | Float64Array }>();
  const pacer = new Pacer();
  for (const [name, { shape, data }] of tensors) {
    // PyTorch's count of batches serves a mode of its BatchNorm that no RevNet uses.
    if (name.endsWith(".num_batches_tracked") || isOptimizerState(name)) continue;
    if (!(types.isFloat32Array(data) || types.isFloat64Array(data)))
      throw new RevNetError("ERR_INVALID_FILE", `${what}: tensor '${name}' is not floating-point`);
    if (!areFinite(data))
      throw new RevNetError("ERR_INVALID_FILE", `${what}: tensor '${name}' has values that are NaN, infinite or beyond 2^64`);
    found.set(name, { shape, data });
    await pacer.breathe();
  }
  return found;
}

const parse = (text: string, what: string): unknown => parseJson(text, what, "ERR_INVALID_FILE");

/** What the bits of a run depend on: a run can be resumed with the same, and with nothing else. */
import { createHash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { type AnyDataset, type AnySplit, isStreamed } from "../data/dataset.js";
import { Pacer } from "../data/pacer.js";
import { RevNetError } from "../errors.js";
import type { Network } from "../network/network.js";
import type { Settings } from "./options.js";
import { identityOfSettings } from "./settings.js";

/** Values by the name of their option, as JSON has them. */
export type Identity = Readonly<Record<string, unknown>>;

/**
 * The options that say they are part of it (options.ts), the data, and what trains on it. Not in it, since they do not change the bits: threads, the
 * folder and the source of the data, where and how often the run is validated and kept.
 */
export async function identityOf(settings: Settings, dataset: AnyDataset, network: Network, steps: number): Promise<Identity> {
  const { recipe: _, ...model } = network.spec;
  const identity = {
    model,
    data: dataset.name,
    trainCount: dataset.train.count,
    ...(dataset.validation && { validationCount: dataset.validation.count }),
    testCount: dataset.test.count,
    images: await sha256(dataset),
    steps,
    device: network.device.replace(/:.*/, ""),
    ...identityOfSettings(settings, network.spec, steps),
  };
  return JSON.parse(JSON.stringify(identity)) as Identity;
}

/**
 * @param except options that may differ
 * @throws RevNetError ERR_RESUME_MISMATCH naming each option that differs, what it was and what it is
 */
export function checkIdentity(file: string, was: Identity, is: Identity, except: readonly string[] = []): void {
  const [before, now] = [flatten(was), flatten(is)];
  const changed = [...new Set([...before.keys(), ...now.keys()])].filter(
    (name) => !except.includes(name) && !isDeepStrictEqual(before.get(name), now.get(name)),
  );
  if (changed.length === 0) return;
  const list = changed.map((name) => `${name}: was ${show(before.get(name))}, now ${show(now.get(name))}`);
  throw new RevNetError(
    "ERR_RESUME_MISMATCH",
    `the run of '${file}' cannot go on with other options, since it would not be the same run: ${list.join("; ")}. ` +
      "Give the options it began with, or another outDir for a new run",
  );
}

/** `optimizer.momentum` and so on, so that the option that differs is named and not all of its group. */
function flatten(identity: Identity): Map<string, unknown> {
  const flat = new Map<string, unknown>();
  for (const [name, value] of Object.entries(identity))
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      for (const [key, inner] of Object.entries(value)) flat.set(`${name}.${key}`, inner);
    else flat.set(name, value);
  return flat;
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "not given";
  return text.length > 100 ? `${text.slice(0, 100)}...` : text;
}

async function sha256({ train, validation, test }: AnyDataset): Promise<string> {
  const hash = createHash("sha256");
  const pacer = new Pacer();
  const update = async (split: AnySplit) => {
    if (isStreamed(split)) {
      hash.update(split.fingerprint);
      return;
    }
    const { images, labels } = split;
    for (const bytes of [images, new Uint8Array(labels.buffer, labels.byteOffset, labels.byteLength)])
      for (let at = 0; at < bytes.length; at += 1 << 20) {
        hash.update(bytes.subarray(at, at + (1 << 20)));
        await pacer.breathe();
      }
  };
  await update(train);
  if (validation) await update(validation);
  await update(test);
  return hash.digest("hex");
}

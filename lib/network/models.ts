/**
 * Where a spec comes from: a published network by name (models/NAME.json), a JSON file by path, or an object. A file may
 * extend another, by name or by path, and override some of its keys; nested objects (the recipe) are merged key by key.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { RevNetError } from "../errors.js";
import { parseJson } from "../files/json.js";
import { decodeText, readFileSync } from "../files/open.js";
import { packageRoot } from "../package.js";
import { describe, unknownMessage } from "../validation.js";
import { checkSpec, type NetworkSpec, SPEC_KEYS } from "./spec.js";

/** A spec, or the keys that differ from the one it extends. */
export type ModelDefinition = Partial<NetworkSpec> & { readonly extends?: string };
/** A published model's name, a path to a JSON file (with a slash, or ending in .json), or a spec. */
export type Model = string | NetworkSpec | ModelDefinition;

const MAX_FILE_BYTES = 1 << 20;
const MAX_CHAIN = 32; // files that extend one another

/** Names of the models that come with the package, in alphabetical order with numbers as numbers. */
export function modelNames(): string[] {
  const { compare } = new Intl.Collator("en", { numeric: true });
  return publishedNames().sort(compare);
}

const publishedNames = (): string[] =>
  fs
    .readdirSync(modelsFolder())
    .filter((file) => file.endsWith(".json"))
    .map((file) => path.basename(file, ".json"));

/**
 * @param overrides keys to set on top, such as `{ classes: 100 }`
 * @throws RevNetError ERR_UNKNOWN_MODEL (with the nearest name), ERR_INVALID_SPEC, ERR_FILE (unreadable)
 */
export function resolveModel(model: Model, overrides: Partial<NetworkSpec> = {}): NetworkSpec {
  if (typeof model !== "string" && (model === null || typeof model !== "object"))
    throw new RevNetError("ERR_INVALID_SPEC", `model: expected a name, a path to a JSON file or a spec, got ${describe(model)}`);
  const what = typeof model === "string" ? `model '${model.slice(0, 200)}'` : "model";
  const definition = typeof model === "string" ? readModel(model, process.cwd(), []) : inherit({ ...model }, process.cwd(), []);
  return checkSpec({ ...definition, ...overrides }, what);
}

type Definition = Record<string, unknown>;

/** `chain`: the files that led here, to refuse a cycle. */
function readModel(name: string, from: string, chain: readonly string[]): Definition {
  const file = locate(name, from);
  if (chain.includes(file))
    throw new RevNetError(
      "ERR_INVALID_SPEC",
      `model '${name}' extends itself: ${[...chain, file].map((f) => path.basename(f)).join(" -> ")}`,
    );
  if (chain.length >= MAX_CHAIN)
    throw new RevNetError("ERR_INVALID_SPEC", `model '${name}': extends: expected a chain of at most ${MAX_CHAIN} files`);
  return inherit(parse(file), path.dirname(file), [...chain, file]);
}

function inherit(definition: Definition, from: string, chain: readonly string[]): Definition {
  const { extends: base, ...own } = definition;
  if (base === undefined) return own;
  if (typeof base !== "string")
    throw new RevNetError("ERR_INVALID_SPEC", `model: extends: expected a model's name or path, got ${describe(base)}`);
  return merge(readModel(base, from, chain), own);
}

function merge(base: Definition, own: Definition): Definition {
  const isPlain = (value: unknown): value is Definition => typeof value === "object" && value !== null && !Array.isArray(value);
  const merged = { ...base };
  for (const [key, value] of Object.entries(own)) {
    const inherited = merged[key];
    // A schedule of another type shares no keys with the one it replaces.
    const replaces = isPlain(value) && isPlain(inherited) && value.type !== undefined && value.type !== inherited.type;
    merged[key] = isPlain(value) && isPlain(inherited) && !replaces ? merge(inherited, value) : value;
  }
  return merged;
}

/** A name with a slash or ending in .json is a path, relative to `from`; all others are published models. */
function locate(name: string, from: string): string {
  if (name.endsWith(".safetensors"))
    throw new RevNetError(
      "ERR_INVALID_SPEC",
      `model '${name}': expected a published model's name or the path of a JSON file; this is a network's parameters, whose spec \`revnet inspect --json\` prints`,
    );
  if (name.endsWith(".json") || name.includes("/") || name.includes(path.sep)) return path.resolve(from, name);
  // A collator takes some 20 ms to make: names are sorted for messages alone.
  if (!publishedNames().includes(name))
    throw new RevNetError(
      "ERR_UNKNOWN_MODEL",
      `${unknownMessage("model", name, modelNames())} (a model of your own: the path of its JSON file)`,
    );
  return path.join(modelsFolder(), `${name}.json`);
}

function parse(file: string): Definition {
  const text = decodeText(readFileSync(file, { what: "model file", limit: MAX_FILE_BYTES }));
  const value = parseJson(text, `model file '${file}'`, "ERR_INVALID_SPEC");
  if (value === null || typeof value !== "object" || Array.isArray(value))
    throw new RevNetError("ERR_INVALID_SPEC", `model file '${file}': expected an object with the keys ${SPEC_KEYS.join(", ")}`);
  return value as Definition;
}

const modelsFolder = (): string => path.join(packageRoot(), "models");

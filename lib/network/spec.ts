/**
 * What a user says about a network: its family and sizes, as plain data. Everything else (topology, parameters, programs)
 * follows from it. A spec is checked once, here, so that the code behind it may rely on every constraint.
 */
import { RevNetError } from "../errors.js";
import { checkBoolean, checkChoice, checkInteger, checkKeys, describe } from "../validation.js";
import { checkRecipe, type Recipe } from "./recipe.js";

/** A network's family and sizes, as in models/*.json. */
export interface NetworkSpec {
  /** 1 to 100 characters, for people. */
  readonly name: string;
  /** "revnet": two coupled streams; "resnet": one. */
  readonly kind: "revnet" | "resnet";
  /** "cifar": conv3x3, BN, ReLU; "imagenet": conv7x7 stride 2, BN, ReLU, max pool 3x3 stride 2. */
  readonly stem: "cifar" | "imagenet";
  /** [height, width, channels] of an image. */
  readonly input: readonly [number, number, number];
  /** 2 or more. */
  readonly classes: number;
  /** Channels of the stem, then of each stage over both streams together; a bottleneck stage is 4 times as wide. */
  readonly filters: readonly number[];
  /** Blocks of each stage. */
  readonly units: readonly number[];
  /** Stride of each stage's first block. */
  readonly strides: readonly number[];
  /** Residual functions of three convolutions (1x1, 3x3, 1x1) instead of two (3x3). */
  readonly bottleneck: boolean;
  /** How the network is meant to be trained; options override it. */
  readonly recipe?: Recipe;
}

export const SPEC_KEYS = [
  "name",
  "kind",
  "stem",
  "input",
  "classes",
  "filters",
  "units",
  "strides",
  "bottleneck",
  "recipe",
] as const;

const CODE = "ERR_INVALID_SPEC";
const MAX_EDGE = 8192; // kMaxEdge of native/core/convolution.h: image edges and channels
const MAX_CLASSES = 65536;
const MAX_STAGES = 16;
const MAX_UNITS = 1024; // blocks, of a stage and of all stages together
const MAX_STRIDE = 2;
const MAX_IMAGE = 2 ** 26; // values of an image
const MAX_PARAMETERS = 2 ** 30;
/** Multiplications of one image's forward pass: minutes to hours for a single image on any device, so nobody means more. */
const MAX_MULTIPLICATIONS = 2 ** 46;
/** Block width over filters in a bottleneck stage, and block width over that of its 3x3 convolution. */
export const BOTTLENECK_EXPANSION = 4;

/** Widths over all streams: the stem's, then each stage's. */
export function widths(spec: Pick<NetworkSpec, "filters" | "bottleneck">): number[] {
  return spec.filters.map((filters, i) => (i > 0 && spec.bottleneck ? filters * BOTTLENECK_EXPANSION : filters));
}

/** Height and width where the stages begin; the stem of an ImageNet network halves them twice. */
export function stemOutput(spec: Pick<NetworkSpec, "stem" | "input">): [number, number] {
  const shrink = (size: number) => (spec.stem === "imagenet" ? Math.ceil(Math.ceil(size / 2) / 2) : size);
  return [shrink(spec.input[0]), shrink(spec.input[1])];
}

/**
 * Returns `value` as a spec, frozen and with nothing but the spec's keys.
 * @throws RevNetError ERR_INVALID_SPEC naming the key, what it was and what was expected.
 */
export function checkSpec(value: unknown, what = "model"): NetworkSpec {
  checkKeys(value, SPEC_KEYS, what, CODE);
  for (const key of SPEC_KEYS)
    if (key !== "recipe" && value[key] === undefined) throw new RevNetError(CODE, `${what}: '${key}' is missing`);
  const at = (key: string) => `${what}: ${key}`;
  if (typeof value.name !== "string" || value.name.length < 1 || value.name.length > 100)
    throw new RevNetError(CODE, `${at("name")}: expected a string of 1 to 100 characters, got ${describe(value.name)}`);

  const units = integers(value.units, 1, MAX_STAGES, 1, MAX_UNITS, at("units"));
  const blocks = units.reduce((sum, count) => sum + count, 0);
  if (blocks > MAX_UNITS)
    throw new RevNetError(CODE, `${at("units")}: expected at most ${MAX_UNITS} blocks in all stages together, got ${blocks}`);
  checkLengths(value, units.length, what);
  const recipe = value.recipe === undefined ? undefined : checkRecipe(value.recipe, at("recipe"));
  const spec: NetworkSpec = {
    name: value.name,
    kind: checkChoice(value.kind, ["revnet", "resnet"], at("kind"), CODE),
    stem: checkChoice(value.stem, ["cifar", "imagenet"], at("stem"), CODE),
    input: Object.freeze(integers(value.input, 3, 3, 1, MAX_EDGE, at("input")) as [number, number, number]),
    classes: checkInteger(value.classes, 2, MAX_CLASSES, at("classes"), CODE),
    filters: Object.freeze(integers(value.filters, units.length + 1, units.length + 1, 1, MAX_EDGE, at("filters"))),
    units: Object.freeze(units),
    strides: Object.freeze(integers(value.strides, units.length, units.length, 1, MAX_STRIDE, at("strides"))),
    bottleneck: checkBoolean(value.bottleneck, at("bottleneck"), CODE),
    ...(recipe && { recipe }),
  };
  checkWidths(spec, what);
  if (!spec.bottleneck) checkPoolShortcuts(spec, what);
  if (spec.input[0] * spec.input[1] * spec.input[2] > MAX_IMAGE)
    throw new RevNetError(CODE, `${at("input")}: an image may have at most ${MAX_IMAGE} values`);
  const { parameters, multiplications } = costAtLeast(spec);
  if (parameters > MAX_PARAMETERS)
    throw new RevNetError(CODE, `${what}: more than ${MAX_PARAMETERS} parameters, which is the most that is possible`);
  if (multiplications > MAX_MULTIPLICATIONS)
    throw new RevNetError(
      CODE,
      `${what}: an image would take ${multiplications.toExponential(1)} multiplications; expected at most ${MAX_MULTIPLICATIONS.toExponential(1)}`,
    );
  return Object.freeze(spec);
}

/** Lower bounds that are nearly the counts: the residual functions' convolutions, which are nearly everything. */
function costAtLeast(spec: NetworkSpec): { parameters: number; multiplications: number } {
  const streams = spec.kind === "revnet" ? 2 : 1;
  // `from` is the width that reaches the block: a stage's first block reads the one before it.
  const ofBlock = (from: number, width: number) => {
    const [k0, k] = [from / streams, width / streams];
    const inner = k / BOTTLENECK_EXPANSION;
    return streams * (spec.bottleneck ? k0 * inner + 9 * inner ** 2 + inner * k : 9 * k0 * k + 9 * k ** 2);
  };
  const all = widths(spec);
  const cost = { parameters: all.at(-1)! * spec.classes, multiplications: 0 };
  let [h, w] = stemOutput(spec);
  for (const [i, units] of spec.units.entries()) {
    const weights = ofBlock(all[i]!, all[i + 1]!) + (units - 1) * ofBlock(all[i + 1]!, all[i + 1]!);
    [h, w] = [Math.ceil(h / spec.strides[i]!), Math.ceil(w / spec.strides[i]!)];
    cost.parameters += weights;
    // Each weight meets each pixel that its stage gives.
    cost.multiplications += weights * h * w;
  }
  return cost;
}

/** Which of the lists is the wrong one, only their author can tell: all are named. */
function checkLengths({ filters, strides }: Record<string, unknown>, stages: number, what: string): void {
  const entries = ({ length }: { length: number }) => `${length} ${length === 1 ? "entry" : "entries"}`;
  const have = `units has ${entries({ length: stages })}, so there ${stages === 1 ? "is 1 stage" : `are ${stages} stages`}`;
  if (Array.isArray(filters) && filters.length !== stages + 1)
    throw new RevNetError(
      CODE,
      `${what}: filters has ${entries(filters)}, but ${have}; expected filters to have ${stages + 1}: the stem's channels, then each stage's`,
    );
  if (Array.isArray(strides) && strides.length !== stages)
    throw new RevNetError(CODE, `${what}: strides has ${entries(strides)}, but ${have}; expected one stride for each stage`);
}

function integers(value: unknown, shortest: number, longest: number, low: number, high: number, what: string): number[] {
  const length = shortest === longest ? `${shortest}` : `${shortest} to ${longest}`;
  if (!Array.isArray(value) || value.length < shortest || value.length > longest)
    throw new RevNetError(CODE, `${what}: expected an array of ${length} integers, got ${describe(value)}`);
  return Array.from(value, (entry: unknown, i) => checkInteger(entry, low, high, `${what}[${i}]`, CODE));
}

function checkWidths(spec: NetworkSpec, what: string): void {
  for (const [i, width] of widths(spec).entries()) {
    if (width > MAX_EDGE)
      throw new RevNetError(
        CODE,
        `${what}: filters[${i}]: a bottleneck block is ${width} channels wide, at most ${MAX_EDGE} are possible`,
      );
    // The two halves of a RevNet are equally wide; in a bottleneck of half width 2f the 3x3 convolution has f / 2 channels.
    if (spec.kind === "revnet" && spec.filters[i]! % 2 !== 0)
      throw new RevNetError(
        CODE,
        `${what}: filters[${i}]: a revnet splits its channels in two, expected an even number, got ${spec.filters[i]}`,
      );
  }
}

/** Basic blocks change shape by average pooling and centred zero channels, which fit only some shapes. */
function checkPoolShortcuts(spec: NetworkSpec, what: string): void {
  const streams = spec.kind === "revnet" ? 2 : 1;
  let [h, w] = stemOutput(spec);
  for (const [i, stride] of spec.strides.entries()) {
    const grown = (spec.filters[i + 1]! - spec.filters[i]!) / streams;
    if (grown < 0 || grown % 2 !== 0)
      throw new RevNetError(
        CODE,
        `${what}: filters[${i + 1}]: the shortcut pads each of ${streams} stream(s) with zero channels equally on both sides, so it expects ` +
          `filters[${i}] = ${spec.filters[i]} plus a multiple of ${2 * streams}, got ${spec.filters[i + 1]}`,
      );
    if (h % stride !== 0 || w % stride !== 0)
      throw new RevNetError(
        CODE,
        `${what}: strides[${i}]: the shortcut averages ${stride}x${stride} pixels, but stage ${i} begins with ${h}x${w}; expected multiples of ${stride}`,
      );
    h /= stride;
    w /= stride;
  }
}

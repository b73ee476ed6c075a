/**
 * A spec spelled out: which convolutions, norms and shortcuts a network has, their shapes for one image, and the names of
 * their parameters (those of PyTorch modules built the same way, so that weights move between the two).
 *
 *   stem:   conv - BN - ReLU (- max pool), channels split over the streams
 *   block:  RevNet  y1 = s1(x1) + F(x2), y2 = s2(x2) + G(y1);   ResNet  y = s(x) + F(x)
 *   head:   BN - ReLU over the streams side by side, global average pool, linear
 */
import type * as binding from "../../binding.js";
import { BOTTLENECK_EXPANSION, type NetworkSpec, widths } from "./spec.js";

/** A convolution of one image; programs add the batch size. */
export type ConvolutionShape = Omit<binding.Convolution, "n">;
export interface Extent {
  readonly h: number;
  readonly w: number;
  readonly c: number;
}

/** Batch norm and ReLU; its parameters are `name`.{weight, bias, running_mean, running_var}. */
export interface NormLayer {
  readonly name: string;
  readonly channels: number;
  /** Values per channel and image that its statistics are over. */
  readonly pixels: number;
  /**
   * The tensors that it normalises side by side (the head of a RevNet has two), by the name of the layer or residual function
   * whose output they are: "stages.0.0.f" is y1 = x1 + F(x2). Norms that read the same tensor share its statistics.
   */
  readonly inputs: readonly string[];
}

/** (Norm -) convolution; its parameter is `name`.weight. */
export interface ConvolutionLayer {
  readonly name: string;
  readonly shape: ConvolutionShape;
  /** Of the input; absent only in the first layer of a network's first block. */
  readonly norm?: NormLayer;
}

/** F or G: two layers (3x3, 3x3), or three as a bottleneck (1x1, 3x3, 1x1). */
export interface ResidualFunction {
  readonly name: string;
  readonly layers: readonly ConvolutionLayer[];
}

export type Shortcut =
  | { readonly type: "identity" }
  /** Average pool stride x stride, then zero channels equally on both sides. */
  | { readonly type: "pool"; readonly input: Extent; readonly k: number; readonly stride: number }
  | { readonly type: "projection"; readonly convolution: ConvolutionLayer };

export interface Block {
  readonly stage: number;
  readonly index: number;
  /** Of one stream. */
  readonly input: Extent;
  readonly output: Extent;
  readonly f: ResidualFunction;
  /** RevNets only. */
  readonly g?: ResidualFunction;
  /** One for each stream. */
  readonly shortcuts: readonly Shortcut[];
  /** Keeps its shape and is a RevNet's: every block but a stage's first. */
  readonly reversible: boolean;
}

export interface Topology {
  readonly spec: NetworkSpec;
  readonly streams: 1 | 2;
  readonly stem: {
    readonly convolution: ConvolutionLayer;
    readonly norm: NormLayer;
    readonly maxPool: boolean;
    /** Of the convolution. */
    readonly output: Extent;
  };
  readonly blocks: readonly Block[];
  readonly head: {
    readonly norm: NormLayer;
    readonly linear: { readonly name: string; readonly in: number; readonly out: number };
    readonly input: Extent;
  };
}

export function convolutionOutput(shape: ConvolutionShape): Extent {
  const out = (size: number) => Math.floor((size + 2 * Math.floor(shape.kernel / 2) - shape.kernel) / shape.stride) + 1;
  return { h: out(shape.h), w: out(shape.w), c: shape.k };
}

export function buildTopology(spec: NetworkSpec): Topology {
  const streams = spec.kind === "revnet" ? 2 : 1;
  const [stemWidth, ...stageWidths] = widths(spec) as [number, ...number[]];

  const [h, w, c] = spec.input;
  const imagenet = spec.stem === "imagenet";
  const stemShape = { h, w, c, k: stemWidth, kernel: imagenet ? 7 : 3, stride: imagenet ? 2 : 1 };
  const stemOutput = convolutionOutput(stemShape);
  const pooled = (size: number) => (imagenet ? Math.floor((size - 1) / 2) + 1 : size);

  let input: Extent = { h: pooled(stemOutput.h), w: pooled(stemOutput.w), c: stemWidth / streams };
  const blocks: Block[] = [];
  for (const [stage, width] of stageWidths.entries()) {
    for (let index = 0; index < spec.units[stage]!; ++index) {
      const block = buildBlock(spec, stage, index, input, width / streams, blocks.at(-1));
      blocks.push(block);
      input = block.output;
    }
  }

  const last = blocks.at(-1)!;
  const features = input.c * streams;
  return {
    spec,
    streams,
    stem: {
      convolution: { name: "stem.conv", shape: stemShape },
      norm: { name: "stem.bn", channels: stemWidth, pixels: stemOutput.h * stemOutput.w, inputs: ["stem.conv"] },
      maxPool: imagenet,
      output: stemOutput,
    },
    blocks,
    head: {
      norm: {
        name: "head.bn",
        channels: features,
        pixels: input.h * input.w,
        inputs: [last.f.name, ...(last.g ? [last.g.name] : [])],
      },
      linear: { name: "head.fc", in: features, out: spec.classes },
      input,
    },
  };
}

function buildBlock(spec: NetworkSpec, stage: number, index: number, input: Extent, k: number, before: Block | undefined): Block {
  const prefix = `stages.${stage}.${index}`;
  const revnet = spec.kind === "revnet";
  const stride = index === 0 ? spec.strides[stage]! : 1;
  // F reads x2, which the block before wrote last. The stem ends in BN and ReLU already, so behind it F begins without.
  const f = residualFunction(`${prefix}.f`, spec.bottleneck, input, k, stride, before && (before.g ?? before.f).name);
  const output = convolutionOutput(f.layers.at(-1)!.shape);
  const names = revnet ? ["shortcut1", "shortcut2"] : ["shortcut"];
  return {
    stage,
    index,
    input,
    output,
    f,
    ...(revnet && { g: residualFunction(`${prefix}.g`, spec.bottleneck, output, k, 1, f.name) }),
    shortcuts: names.map((name) => shortcut(`${prefix}.${name}`, spec.bottleneck, input, k, stride)),
    reversible: revnet && index > 0,
  };
}

/** The stride sits in the first convolution. `source`: the tensor that it reads, for the first norm; absent: no first norm. */
function residualFunction(
  name: string,
  bottleneck: boolean,
  input: Extent,
  k: number,
  stride: number,
  source: string | undefined,
): ResidualFunction {
  const inner = bottleneck ? k / BOTTLENECK_EXPANSION : k;
  const kernels = bottleneck ? [1, 3, 1] : [3, 3];
  const layers: ConvolutionLayer[] = [];
  for (const [i, kernel] of kernels.entries()) {
    const shape = { ...input, k: i === kernels.length - 1 ? k : inner, kernel, stride: i === 0 ? stride : 1 };
    const norm = source && { name: `${name}.bn${i + 1}`, channels: input.c, pixels: input.h * input.w, inputs: [source] };
    source = `${name}.conv${i + 1}`;
    layers.push({ name: source, shape, ...(norm && { norm }) });
    input = convolutionOutput(shape);
  }
  return { name, layers };
}

function shortcut(name: string, bottleneck: boolean, input: Extent, k: number, stride: number): Shortcut {
  if (stride === 1 && input.c === k) return { type: "identity" };
  if (!bottleneck) return { type: "pool", input, k, stride };
  return { type: "projection", convolution: { name: `${name}.conv`, shape: { ...input, k, kernel: 1, stride } } };
}

/** Every batch norm, once, in the order of the forward pass. */
export function norms(topology: Topology): NormLayer[] {
  const inBlocks = topology.blocks.flatMap((block) =>
    [...block.f.layers, ...(block.g?.layers ?? [])].flatMap((layer) => layer.norm ?? []),
  );
  return [topology.stem.norm, ...inBlocks, topology.head.norm];
}

/** Every convolution of a block, in the order of its parameters. */
export function blockConvolutions(block: Block): ConvolutionLayer[] {
  const projections = block.shortcuts.flatMap((s) => (s.type === "projection" ? [s.convolution] : []));
  return [...block.f.layers, ...(block.g?.layers ?? []), ...projections];
}

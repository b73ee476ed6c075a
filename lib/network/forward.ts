/**
 * The forward pass as ops: stem, blocks, head. What the backward pass will need is handed over as a `Forward`, by buffer:
 * whatever it names lives until the backward pass has read it.
 */
import type { BufferId } from "../../binding.js";
import type { Activations, Recorder } from "./recorder.js";
import type { Block, ResidualFunction, Shortcut } from "./topology.js";

export interface BlockForward {
  readonly block: Block;
  /** The streams before and after, one or two. Equal where a reversible block worked in place. */
  readonly x: readonly BufferId[];
  readonly y: readonly BufferId[];
  /** F's and G's hidden tensors, where they are kept. */
  readonly hidden: readonly (readonly BufferId[])[];
  readonly inPlace: boolean;
}

export interface StemForward {
  /** The convolution's output [n][h][w][c], before its norm. */
  readonly y: BufferId;
  /** [n][h][w][c] of the max pool, where there is one. */
  readonly argmax: BufferId | undefined;
  readonly streams: readonly BufferId[];
}

export interface Forward {
  /** [n][h][w][c] normalised images. */
  readonly images: BufferId;
  readonly stem: StemForward;
  readonly blocks: readonly BlockForward[];
  /** [n][features], the input of the classifier. */
  readonly pooled: BufferId;
}

/** @returns the logits [n][classes], written to `logits`, and what the backward pass needs */
export function recordForward(r: Recorder, images: BufferId, logits: BufferId, activations: Activations): Forward {
  const stem = recordStem(r, images);
  const blocks: BlockForward[] = [];
  let streams = stem.streams;
  for (const block of r.topology.blocks) {
    const forward = recordBlock(r, block, streams, activations);
    blocks.push(forward);
    streams = forward.y;
  }
  return { images, stem, blocks, pooled: recordHead(r, streams, logits) };
}

export function recordStem(r: Recorder, images: BufferId): StemForward {
  const { convolution, norm, maxPool, output } = r.topology.stem;
  const y = r.local(convolution.name, "hidden", r.elements(output));
  r.emit({
    op: "convolutionForward",
    convolution: { n: r.n, ...convolution.shape },
    x: images,
    weight: r.buffers.weight(`${convolution.name}.weight`),
    y,
    ...(r.statistics === "batch" && { yStatistics: r.buffers.statistics(convolution.name) }),
  });
  const { input } = r.topology.blocks[0]!;
  const streams = Array.from({ length: r.topology.streams }, (_, i) => r.stream(`stem.x${i + 1}`, input));
  const read = { ...r.extent(output), ...r.buffers.norm(norm, 0, r.statistics), x: y, y: streams, ...outOfRange(r) };
  if (!maxPool) {
    r.emit({ op: "batchNormReluForward", ...read });
    return { y, argmax: undefined, streams };
  }
  const argmax = r.local("stem.argmax", "byte", r.elements({ h: input.h, w: input.w, c: output.c }));
  r.emit({ op: "maxPoolForward", ...read, argmax });
  return { y, argmax, streams };
}

/** Reversible blocks work in place and keep nothing; all others write new streams and keep their hidden tensors. */
export function recordBlock(r: Recorder, block: Block, x: readonly BufferId[], activations: Activations): BlockForward {
  const { f, g } = block;
  if (block.reversible && activations === "reversible") {
    const [stream1, stream2] = x as [BufferId, BufferId];
    r.emit({
      op: "reversibleForward",
      f: r.buffers.layers(f, r.n, r.statistics),
      g: r.buffers.layers(g!, r.n, r.statistics),
      computeStatistics: r.statistics === "batch",
      stream1,
      stream2,
      hidden: r.hidden(f),
      ...(r.statistics === "batch" && { statistics1: r.buffers.statistics(f.name), statistics2: r.buffers.statistics(g!.name) }),
      ...outOfRange(r),
    });
    return { block, x, y: x, hidden: [], inPlace: true };
  }
  if (!g) {
    const y = recordResidual(r, f, x[0]!, recordShortcuts(r, block, x)[0]!);
    return { block, x, y: [y.y], hidden: [y.hidden], inPlace: false };
  }
  const [first, second] = recordShortcuts(r, block, x) as [ShortcutResult, ShortcutResult];
  const y1 = recordResidual(r, f, x[1]!, first);
  const y2 = recordResidual(r, g, y1.y, second);
  return { block, x, y: [y1.y, y2.y], hidden: [y1.hidden, y2.hidden], inPlace: false };
}

/** Where a sum goes, and what is added to. */
interface ShortcutResult {
  readonly y: BufferId;
  readonly base: BufferId;
}

/** One after the other: a device may do both at once. */
function recordShortcuts(r: Recorder, { f, g, shortcuts, output }: Block, x: readonly BufferId[]): ShortcutResult[] {
  return (g ? [f, g] : [f]).map(({ name }, i) => {
    const y = r.stream(`${name}.y`, output);
    return { y, base: recordShortcut(r, shortcuts[i]!, x[i]!, y) };
  });
}

/** y = base + f(x) */
function recordResidual(r: Recorder, f: ResidualFunction, x: BufferId, { y, base }: ShortcutResult) {
  const hidden = r.hidden(f);
  r.emit({
    op: "residualForward",
    function: r.buffers.layers(f, r.n, r.statistics),
    computeStatistics: r.statistics === "batch",
    x,
    base,
    y,
    hidden,
    ...(r.statistics === "batch" && { yStatistics: r.buffers.statistics(f.name) }),
    ...outOfRange(r),
  });
  return { y, hidden };
}

/** Where the shortcut's result lies: written to `y`, or x itself where the shape is kept. */
function recordShortcut(r: Recorder, shortcut: Shortcut, x: BufferId, y: BufferId): BufferId {
  switch (shortcut.type) {
    case "identity":
      return x;
    case "pool":
      r.emit({ op: "shortcutForward", ...r.extent(shortcut.input), k: shortcut.k, stride: shortcut.stride, x, y });
      return y;
    case "projection": {
      const { name, shape } = shortcut.convolution;
      const weight = r.buffers.weight(`${name}.weight`);
      r.emit({ op: "convolutionForward", convolution: { n: r.n, ...shape }, x, weight, y, ...outOfRange(r) });
      return y;
    }
  }
}

function recordHead(r: Recorder, streams: readonly BufferId[], logits: BufferId): BufferId {
  const { norm, linear, input } = r.topology.head;
  const pooled = r.local("head.pooled", "real", r.n * linear.in);
  const parts = streams.map((x, i) => ({ x, ...r.buffers.norm(norm, i, r.statistics) }));
  r.emit({ op: "globalAveragePoolForward", ...r.extent(input), parts, y: pooled });
  r.emit({
    op: "linearForward",
    n: r.n,
    in: linear.in,
    out: linear.out,
    x: pooled,
    weight: r.buffers.weight(`${linear.name}.weight`),
    bias: r.buffers.weight(`${linear.name}.bias`),
    y: logits,
  });
  return pooled;
}

const outOfRange = (r: Recorder) => (r.outOfRange === undefined ? {} : { outOfRange: r.outOfRange });

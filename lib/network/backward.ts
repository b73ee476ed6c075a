/**
 * The backward pass as ops, in the reverse order of the forward pass. Gradients of streams are real tensors that blocks
 * change in place; gradients of parameters are overwritten, each by the one op that knows it.
 */
import type { BufferId } from "../../binding.js";
import type { BlockForward, Forward } from "./forward.js";
import type { Recorder } from "./recorder.js";
import type { ResidualFunction, Shortcut } from "./topology.js";

/** @param dlogits [n][classes] gradient of the loss */
export function recordBackward(r: Recorder, forward: Forward, logitsGradient: BufferId): void {
  let dy = recordHeadBackward(r, forward, logitsGradient);
  for (const block of [...forward.blocks].reverse()) dy = recordBlockBackward(r, block, dy);
  recordStemBackward(r, forward, dy);
}

/** @returns the gradients of the last block's streams */
function recordHeadBackward(r: Recorder, forward: Forward, dy: BufferId): BufferId[] {
  const { norm, linear, input } = r.topology.head;
  const pooledGradient = r.local("head.pooled.gradient", "real", r.n * linear.in);
  r.emit({
    op: "linearBackward",
    n: r.n,
    in: linear.in,
    out: linear.out,
    x: forward.pooled,
    weight: r.buffers.weight(`${linear.name}.weight`),
    dy,
    dx: pooledGradient,
    weightGradient: r.buffers.weightGradient(`${linear.name}.weight`),
    biasGradient: r.buffers.weightGradient(`${linear.name}.bias`),
  });
  const parts = forward.blocks.at(-1)!.y.map((x, i) => ({
    x,
    dx: r.gradient("head.gradient", input),
    ...r.buffers.norm(norm, i, "batch"),
    ...r.buffers.normGradient(norm, i),
  }));
  r.emit({ op: "globalAveragePoolBackward", ...r.extent(input), parts, dy: pooledGradient });
  return parts.map((part) => part.dx);
}

/** @returns the gradients of the block's inputs; where the shape is kept, they are the buffers `dy` */
function recordBlockBackward(r: Recorder, forward: BlockForward, dy: readonly BufferId[]): BufferId[] {
  const { block, x, y, hidden } = forward;
  const { f, g, shortcuts } = block;
  if (forward.inPlace) {
    r.emit({
      op: "reversibleBackward",
      f: r.buffers.layers(f, r.n, "batch"),
      g: r.buffers.layers(g!, r.n, "batch"),
      fGradient: r.buffers.layerGradients(f),
      gGradient: r.buffers.layerGradients(g!),
      stream1: y[0]!,
      stream2: y[1]!,
      gradient1: dy[0]!,
      gradient2: dy[1]!,
      hidden: r.hidden(f),
    });
    return [...dy];
  }
  if (!g) {
    // y = s(x) + F(x)
    const dx = recordShortcutBackward(r, shortcuts[0]!, x[0]!, dy[0]!);
    recordResidualBackward(r, f, x[0]!, hidden[0]!, dy[0]!, dx);
    return [dx];
  }
  // y2 = s2(x2) + G(y1), then y1 = s1(x1) + F(x2)
  const [x1, x2] = x as [BufferId, BufferId];
  const [dy1, dy2] = dy as [BufferId, BufferId];
  recordResidualBackward(r, g, y[0]!, hidden[1]!, dy2, dy1);
  const dx1 = recordShortcutBackward(r, shortcuts[0]!, x1, dy1);
  const dx2 = recordShortcutBackward(r, shortcuts[1]!, x2, dy2);
  recordResidualBackward(r, f, x2, hidden[0]!, dy1, dx2);
  return [dx1, dx2];
}

/** dx += (df/dx)^T dy */
function recordResidualBackward(
  r: Recorder,
  f: ResidualFunction,
  x: BufferId,
  hidden: readonly BufferId[],
  dy: BufferId,
  dx: BufferId,
): void {
  r.emit({
    op: "residualBackward",
    function: r.buffers.layers(f, r.n, "batch"),
    gradient: r.buffers.layerGradients(f),
    x,
    hidden: [...hidden],
    dy,
    dx,
  });
}

/** @returns the gradient of the shortcut's input: `dy` itself where the shape is kept */
function recordShortcutBackward(r: Recorder, shortcut: Shortcut, x: BufferId, dy: BufferId): BufferId {
  switch (shortcut.type) {
    case "identity":
      return dy;
    case "pool": {
      const dx = r.gradient("shortcut.gradient", shortcut.input);
      r.emit({ op: "shortcutBackward", ...r.extent(shortcut.input), k: shortcut.k, stride: shortcut.stride, dy, dx });
      return dx;
    }
    case "projection": {
      const { name, shape } = shortcut.convolution;
      const convolution = { n: r.n, ...shape };
      const weight = `${name}.weight`;
      const dx = r.gradient("shortcut.gradient", shape);
      r.emit({ op: "convolutionBackwardWeights", convolution, x, dy, weightGradient: r.buffers.weightGradient(weight) });
      r.emit({ op: "convolutionBackwardData", convolution, weight: r.buffers.weight(weight), dy, dx });
      return dx;
    }
  }
}

/** The gradient of the images is nobody's and is not computed. */
function recordStemBackward(r: Recorder, forward: Forward, streamGradients: readonly BufferId[]): void {
  const { convolution, norm, output } = r.topology.stem;
  const { y, argmax } = forward.stem;
  let dy = [...streamGradients];
  if (argmax !== undefined) {
    const pooled = r.gradient("stem.pool.gradient", output);
    r.emit({ op: "maxPoolBackward", ...r.extent(output), dy, argmax, dx: pooled });
    dy = [pooled];
  }
  const dx = r.gradient("stem.gradient", output);
  r.emit({
    op: "batchNormReluBackward",
    ...r.extent(output),
    ...r.buffers.norm(norm, 0, "batch"),
    ...r.buffers.normGradient(norm, 0),
    x: y,
    dy,
    dx,
  });
  r.emit({
    op: "convolutionBackwardWeights",
    convolution: { n: r.n, ...convolution.shape },
    x: forward.images,
    dy: dx,
    weightGradient: r.buffers.weightGradient(`${convolution.name}.weight`),
  });
}

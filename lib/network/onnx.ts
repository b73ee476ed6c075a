/**
 * A network as an ONNX graph, for inference: `images` [batch][height][width][channels] with values in [0, 255] to `logits`
 * and `probabilities` [batch][classes]. Batch norms use their running statistics, and parameters keep their names. Streams are
 * real numbers there: rounding them to fixed point, 2^-23 at most each time, is not part of the graph.
 */
import { types } from "node:util";
import { OnnxGraph } from "../formats/onnx.js";
import { EPSILON } from "./buffers.js";
import type { ParameterTensor } from "./host.js";
import type { Preprocessing } from "./images.js";
import type { Block, ConvolutionLayer, NormLayer, ResidualFunction, Shortcut, Topology } from "./topology.js";

/** Between `images` and the first convolution everything is [batch][channels][height][width], which ONNX's operators expect. */
export function onnxGraph(
  topology: Topology,
  preprocessing: Preprocessing,
  tensors: ReadonlyMap<string, ParameterTensor>,
): OnnxGraph {
  const { spec, blocks } = topology;
  const builder = new Builder(new OnnxGraph(spec.name), tensors);
  const images = builder.graph.input("images", ["batch", ...spec.input]);
  let streams = builder.stem(topology, builder.preprocess(images, spec.input, preprocessing));
  for (const block of blocks) streams = builder.block(block, streams);
  builder.head(topology.head, streams);
  builder.graph.output("logits", ["batch", spec.classes]);
  builder.graph.output("probabilities", ["batch", spec.classes]);
  return builder.graph;
}

/** Methods add nodes and return the name of the tensor that they end in. */
class Builder {
  constructor(
    readonly graph: OnnxGraph,
    private readonly tensors: ReadonlyMap<string, ParameterTensor>,
  ) {}

  preprocess(images: string, input: readonly number[], { mean, scale }: Preprocessing): string {
    const meanImage = this.graph.constant("preprocessing.mean", input, mean);
    const factor = this.graph.constant("preprocessing.scale", [], Float32Array.of(scale));
    const centred = this.graph.node("Sub", { name: "preprocessing.centred", inputs: [images, meanImage] });
    const scaled = this.graph.node("Mul", { name: "preprocessing.scaled", inputs: [centred, factor] });
    return this.graph.node("Transpose", { name: "normalised", inputs: [scaled], attributes: { perm: [0, 3, 1, 2] } });
  }

  stem({ stem: { convolution, norm, maxPool }, streams }: Topology, images: string): string[] {
    let x = this.normRelu(norm, this.convolution(convolution, images));
    if (maxPool) {
      const attributes = { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] };
      x = this.graph.node("MaxPool", { name: "stem.pool", inputs: [x], attributes });
    }
    if (streams === 1) return [x];
    const half = BigInt(norm.channels / 2);
    const sizes = this.graph.constant("stem.halves", [2], BigInt64Array.of(half, half));
    const outputs = ["stem.x1", "stem.x2"];
    this.graph.node("Split", { name: "stem.split", inputs: [x, sizes], outputs, attributes: { axis: 1 } });
    return outputs;
  }

  /** y1 = s1(x1) + F(x2), y2 = s2(x2) + G(y1); in a ResNet y = s(x) + F(x). */
  block({ stage, index, f, g, shortcuts }: Block, streams: readonly string[]): string[] {
    const name = `stages.${stage}.${index}`;
    const shortcut = (i: number) => this.shortcut(shortcuts[i]!, `${name}.shortcut${i + 1}`, streams[i]!);
    const add = (output: string, inputs: string[]) => this.graph.node("Add", { name: `${name}.${output}`, inputs });
    const y1 = add("y1", [shortcut(0), this.residual(f, streams.at(-1)!)]);
    return g ? [y1, add("y2", [shortcut(1), this.residual(g, y1)])] : [y1];
  }

  head({ norm, linear }: Topology["head"], streams: readonly string[]): void {
    const joined =
      streams.length === 1
        ? streams[0]!
        : this.graph.node("Concat", { name: "head.streams", inputs: streams, attributes: { axis: 1 } });
    const pooled = this.graph.node("GlobalAveragePool", { name: "head.pool", inputs: [this.normRelu(norm, joined)] });
    const features = this.graph.node("Flatten", { name: "head.features", inputs: [pooled], attributes: { axis: 1 } });
    const [weight, bias] = [this.parameter(`${linear.name}.weight`), this.parameter(`${linear.name}.bias`)];
    const inputs = [features, weight, bias];
    const logits = this.graph.node("Gemm", { name: linear.name, inputs, outputs: ["logits"], attributes: { transB: 1 } });
    this.graph.node("Softmax", { name: "probabilities", inputs: [logits], attributes: { axis: 1 } });
  }

  private residual({ layers }: ResidualFunction, x: string): string {
    for (const layer of layers) x = this.convolution(layer, layer.norm ? this.normRelu(layer.norm, x) : x);
    return x;
  }

  private shortcut(shortcut: Shortcut, name: string, x: string): string {
    switch (shortcut.type) {
      case "identity":
        return x;
      case "projection":
        return this.convolution(shortcut.convolution, x);
      case "pool": {
        const { input, k, stride } = shortcut;
        if (stride > 1) {
          const attributes = { kernel_shape: [stride, stride], strides: [stride, stride] };
          x = this.graph.node("AveragePool", { name: `${name}.pool`, inputs: [x], attributes });
        }
        if (k === input.c) return x;
        // How many to add before each dimension, then behind each.
        const more = BigInt((k - input.c) / 2);
        const pads = this.graph.constant(`${name}.pads`, [8], BigInt64Array.of(0n, more, 0n, 0n, 0n, more, 0n, 0n));
        return this.graph.node("Pad", { name: `${name}.pad`, inputs: [x, pads] });
      }
    }
  }

  private convolution({ name, shape: { kernel, stride } }: ConvolutionLayer, x: string): string {
    const padding = Math.floor(kernel / 2);
    return this.graph.node("Conv", {
      name,
      inputs: [x, this.parameter(`${name}.weight`)],
      attributes: {
        kernel_shape: [kernel, kernel],
        strides: [stride, stride],
        pads: [padding, padding, padding, padding],
      },
    });
  }

  private normRelu({ name }: NormLayer, x: string): string {
    const parameters = ["weight", "bias", "running_mean", "running_var"].map((part) => this.parameter(`${name}.${part}`));
    const attributes = { epsilon: { float: EPSILON } };
    const normalised = this.graph.node("BatchNormalization", { name, inputs: [x, ...parameters], attributes });
    return this.graph.node("Relu", { name: `${name}.relu`, inputs: [normalised] });
  }

  private parameter(name: string): string {
    const { shape, data } = this.tensors.get(name)!;
    return this.graph.constant(name, shape, types.isFloat32Array(data) ? data : new Float32Array(data));
  }
}

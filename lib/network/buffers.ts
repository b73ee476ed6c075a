/**
 * The buffers that a network holds on its device from start to end. The same table serves the session, which allocates it,
 * and memoryPlan, which only counts it; so what is planned and what is allocated cannot differ.
 */
import type { BufferId, BufferRecord, Layer, LayerGradient, Norm, NormGradient } from "../../binding.js";
import { ParameterLayout, type Segment } from "./parameters.js";
import { type NormLayer, norms, type ResidualFunction, type Topology } from "./topology.js";

/** BN's epsilon, of the authors' code. */
export const EPSILON = 1e-3;

/** "batch": training, with the statistics of the batch; "running": inference. */
export type StatisticsSource = "batch" | "running";

interface NormPart {
  readonly gamma: BufferId;
  readonly beta: BufferId;
  readonly running: BufferId;
}

export class NetworkBuffers {
  /** In the order of their ids. Grows; what was added stays. */
  readonly records: BufferRecord[] = [];
  readonly layout: ParameterLayout;
  /** [layout.elements] and [layout.runningElements], flat. */
  readonly parameters: BufferId;
  readonly running: BufferId;
  /** [h][w][c] mean image, in the units of the bytes. */
  readonly mean: BufferId;
  /** [layout.elements], once `addGradients` has been called. */
  gradients: BufferId | undefined;
  /** [layout.elements] each, by name, once `addState` has been called: what an optimizer keeps from step to step. */
  readonly state = new Map<string, BufferId>();

  private readonly weights = new Map<string, BufferId>();
  private readonly normParts = new Map<string, readonly NormPart[]>();
  private readonly batchStatistics = new Map<string, BufferId>();
  private readonly gradientViews = new Map<Segment, BufferId>();

  constructor(topology: Topology) {
    this.layout = new ParameterLayout(topology);
    const { layout } = this;
    this.parameters = this.add({ name: "parameters", type: "real", elements: layout.elements, category: "parameters" });
    this.running = this.add({ name: "running", type: "real", elements: layout.runningElements, category: "parameters" });
    const [h, w, c] = topology.spec.input;
    this.mean = this.add({ name: "mean", type: "real", elements: h * w * c, category: "data" });

    for (const entry of layout.entries.values())
      if (entry.kind !== "vector" || entry.name === `${topology.head.linear.name}.bias`)
        this.weights.set(entry.name, this.view(this.parameters, entry.name, entry.segments[0]!));
    for (const { name } of norms(topology)) {
      const parts = layout.norms.get(name)!.map(({ gamma, beta, running }) => ({
        gamma: this.view(this.parameters, `${name}.weight`, gamma),
        beta: this.view(this.parameters, `${name}.bias`, beta),
        running: this.view(this.running, `${name}.running`, running),
      }));
      this.normParts.set(name, parts);
    }
    this.addBatchStatistics(topology);
  }

  /** Adds a buffer; its id is its place in the table. */
  add(record: BufferRecord): BufferId {
    return this.records.push(record) - 1;
  }

  /** Gradients for programs that compute them. They are overwritten by each. */
  addGradients(): BufferId {
    if (this.gradients !== undefined) return this.gradients;
    this.gradients = this.add({ name: "gradients", type: "real", elements: this.layout.elements, category: "gradients" });
    for (const { name, buffer, segments } of this.layout.entries.values())
      if (buffer === "parameters")
        for (const segment of segments) this.gradientViews.set(segment, this.view(this.gradients, `${name}.gradient`, segment));
    return this.gradients;
  }

  /** Zeros at first; the same ones for a name that was there before. */
  addState(name: string): BufferId {
    const known = this.state.get(name);
    if (known !== undefined) return known;
    const added = this.add({ name, type: "real", elements: this.layout.elements, category: "optimizer" });
    this.state.set(name, added);
    return added;
  }

  /** A weight or bias by the name of its parameter. */
  weight(name: string): BufferId {
    return this.weights.get(name)!;
  }

  weightGradient(name: string): BufferId {
    return this.gradientViews.get(this.layout.entries.get(name)!.segments[0]!)!;
  }

  /** [2][c] mean and variance over the batch of the output of a layer or residual function. */
  statistics(tensor: string): BufferId {
    return this.batchStatistics.get(tensor)!;
  }

  runningStatistics(norm: NormLayer, part: number): BufferId {
    return this.normParts.get(norm.name)![part]!.running;
  }

  /** The operands of one part of a norm. */
  norm(norm: NormLayer, part: number, source: StatisticsSource): Norm {
    const { gamma, beta, running } = this.normParts.get(norm.name)![part]!;
    return { statistics: source === "batch" ? this.statistics(norm.inputs[part]!) : running, gamma, beta, epsilon: EPSILON };
  }

  normGradient(norm: NormLayer, part: number): NormGradient {
    const { gamma, beta } = this.layout.norms.get(norm.name)![part]!;
    return { gammaGradient: this.gradientViews.get(gamma)!, betaGradient: this.gradientViews.get(beta)! };
  }

  /** The layers of F or G for a batch of n images. */
  layers(f: ResidualFunction, n: number, source: StatisticsSource): Layer[] {
    return f.layers.map(({ name, shape, norm }) => ({
      convolution: { n, ...shape },
      weight: this.weight(`${name}.weight`),
      ...(norm && this.norm(norm, 0, source)),
    }));
  }

  layerGradients(f: ResidualFunction): LayerGradient[] {
    return f.layers.map(({ name, norm }) => ({
      weightGradient: this.weightGradient(`${name}.weight`),
      ...(norm && this.normGradient(norm, 0)),
    }));
  }

  /**
   * One [2][c] for each tensor that a norm reads: O(channels), written by the forward pass and read by the backward pass. They
   * are all that a reversible block keeps, and lie outside the planned activations, whose size must not grow with depth.
   */
  private addBatchStatistics(topology: Topology): void {
    const channels = new Map<string, number>();
    for (const norm of norms(topology)) for (const input of norm.inputs) channels.set(input, norm.channels / norm.inputs.length);
    let elements = 0;
    const segments = new Map<string, Segment>();
    for (const [tensor, c] of channels) {
      segments.set(tensor, { offset: elements, elements: 2 * c });
      elements += Math.ceil((2 * c) / 16) * 16;
    }
    const parent = this.add({ name: "statistics", type: "real", elements, category: "parameters" });
    for (const [tensor, segment] of segments) this.batchStatistics.set(tensor, this.view(parent, `${tensor}.statistics`, segment));
  }

  private view(parent: BufferId, name: string, { offset, elements }: Segment): BufferId {
    const { type, category } = this.records[parent]!;
    return this.add({ name, type, elements, category, parent, offset });
  }
}

/** What one batch tells of a network: its loss and gradients, and how exactly its blocks invert. Nothing of the network changes. */
import type { Executor } from "./executor.js";
import type { ParameterTensor } from "./host.js";
import type { Images, Labels, Preprocessing } from "./images.js";
import * as images from "./images.js";
import { optional, zeroed } from "./inference.js";
import type { RealArray } from "./parameters.js";
import { gradientProgram, reconstructProgram } from "./program.js";
import type { Activations, Streams } from "./recorder.js";
import type { Topology } from "./topology.js";
import { type BlockError, blockErrors, requireReversible } from "./verification.js";

/** What Network.lossAndGradients gives. */
export interface LossAndGradients {
  /** Mean cross-entropy of the batch, in nats. */
  readonly loss: number;
  /** [n][classes]. */
  readonly logits: RealArray;
  /** Of every trained parameter, with its name and shape. */
  readonly gradients: ReadonlyMap<string, ParameterTensor>;
  /** Stream elements that left the fixed-point range. */
  readonly outOfRange: number;
}

/** What Network.reconstruct gives. */
export interface Reconstruction {
  /** Largest difference between a block's inputs and what inverting gave back, for each reversible block. */
  readonly blocks: readonly BlockError[];
  /** The largest of these. */
  readonly max: number;
  /** Stream elements that left the fixed-point range. */
  readonly outOfRange: number;
}

export class Probe {
  constructor(
    private readonly topology: Topology,
    private readonly executor: Executor,
    private readonly streams: Streams,
  ) {}

  /** See Network.lossAndGradients. */
  async lossAndGradients(normalized: RealArray, labels: Labels, activations: Activations): Promise<LossAndGradients> {
    const { spec } = this.topology;
    const n = images.checkNormalized(spec, normalized);
    const classOf = images.checkLabels(spec, labels, n);
    const recorded = this.executor.program(`gradients ${n} ${activations}`, (buffers) =>
      gradientProgram(this.topology, buffers, { n, activations, streams: this.streams, source: { type: "real" } }),
    );
    const { inputs, outOfRange, loss, logits } = recorded.program;
    const [results, flat] = await this.executor.runAndRead(
      recorded,
      [[inputs.images!, normalized], [inputs.labels!, classOf], ...zeroed(outOfRange)],
      [loss, logits, ...optional(outOfRange)],
      this.executor.buffers.gradients!,
    );
    const gradients = await this.executor.host.trained(flat);
    return { loss: results[0]![0]!, logits: results[1] as RealArray, gradients, outOfRange: results[2]?.[0] ?? 0 };
  }

  /** See Network.reconstruct. */
  async reconstruct(pixels: Images, preprocessing: Preprocessing): Promise<Reconstruction> {
    const n = images.checkBatch(this.topology.spec, pixels);
    images.checkFinite(this.topology.spec, pixels);
    requireReversible(this.topology);
    const recorded = this.executor.program(`reconstruct ${n}`, (buffers) =>
      reconstructProgram(this.topology, buffers, { n, streams: this.streams, source: { type: "real" } }),
    );
    const { program } = recorded;
    const { inputs, outOfRange } = program;
    const normalized = images.normalize(pixels, preprocessing);
    const results = await this.executor.run(
      recorded,
      [[inputs.images!, normalized], ...zeroed(outOfRange)],
      [program.errors, ...optional(outOfRange)],
    );
    const { blocks, maxError } = blockErrors(program, results[0] as RealArray);
    return { blocks, max: maxError, outOfRange: results[1]?.[0] ?? 0 };
  }
}

/** A program under construction: its ops so far, and the buffers that are its own. */
import type { Extent as BatchExtent, BufferId, BufferRecord, ElementType, Op } from "../../binding.js";
import type { NetworkBuffers, StatisticsSource } from "./buffers.js";
import { convolutionOutput, type Extent, type ResidualFunction, type Topology } from "./topology.js";

/** How a RevNet's streams are kept: "fixed" is exact, "float32" the paper's arithmetic. ResNets are always real. */
export type Streams = "fixed" | "float32";
/** "reversible": rebuilt in the backward pass; "stored": kept from the forward pass. A ResNet stores in either case. */
export type Activations = "reversible" | "stored";

export const STREAMS: readonly Streams[] = ["fixed", "float32"];
export const ACTIVATIONS: readonly Activations[] = ["reversible", "stored"];

export interface Program {
  readonly locals: BufferRecord[];
  readonly ops: Op[];
}

export interface RecorderOptions {
  /** Images of a batch. */
  readonly n: number;
  readonly statistics: StatisticsSource;
  readonly streams: Streams;
}

export class Recorder implements Program {
  readonly locals: BufferRecord[] = [];
  readonly ops: Op[] = [];
  readonly n: number;
  readonly statistics: StatisticsSource;
  private outOfRangeCount: BufferId | undefined;
  private readonly streamType: ElementType;
  private readonly firstLocal: number;

  /** The program is for the buffers as they are now: add those that it needs before. */
  constructor(
    readonly topology: Topology,
    readonly buffers: NetworkBuffers,
    options: RecorderOptions,
  ) {
    this.n = options.n;
    this.statistics = options.statistics;
    this.firstLocal = buffers.records.length;
    this.streamType = topology.spec.kind === "revnet" && options.streams === "fixed" ? "fixed" : "real";
  }

  /** [1] elements that left the fixed-point range; undefined where streams are real. */
  get outOfRange(): BufferId | undefined {
    if (this.streamType === "fixed") this.outOfRangeCount ??= this.pinned("outOfRange", "index", 1);
    return this.outOfRangeCount;
  }

  /** How many values `outOfRange` counts over: those that ops with it write. */
  get streamElements(): number {
    const written = this.ops.flatMap((op) =>
      !("outOfRange" in op) ? [] : "stream1" in op ? [op.stream1, op.stream2] : [op.y].flat(),
    );
    return written.reduce((sum, id) => sum + this.locals[id - this.firstLocal]!.elements, 0);
  }

  emit(op: Op): void {
    this.ops.push(op);
  }

  /** An activation, alive from the op that writes it to the last that reads it. */
  local(name: string, type: ElementType, elements: number): BufferId {
    return this.addLocal({ name, type, elements, category: "activations" });
  }

  /**
   * A local that JavaScript writes before a run or reads after it: alive during the whole program. They lie in memory in the order in
   * which they are made, and neighbours are read, or written, in one copy.
   */
  pinned(name: string, type: ElementType, elements: number): BufferId {
    return this.addLocal({ name, type, elements, category: "activations", pinned: true });
  }

  /** `elements` elements of a local from `offset` on. */
  view(parent: BufferId, offset: number, elements: number): BufferId {
    const { name, type, category } = this.locals[parent - this.firstLocal]!;
    return this.addLocal({ name, type, category, elements, parent, offset });
  }

  /** An image tensor [n][h][w][c]. */
  real(name: string, extent: Extent): BufferId {
    return this.local(name, "real", this.elements(extent));
  }

  /** The gradient of a stream [n][h][w][c]. */
  gradient(name: string, extent: Extent): BufferId {
    return this.local(name, "gradient", this.elements(extent));
  }

  /** A residual stream [n][h][w][c]. */
  stream(name: string, extent: Extent): BufferId {
    return this.local(name, this.streamType, this.elements(extent));
  }

  /** The hidden tensors of F or G: the output of every layer but the last. */
  hidden(f: ResidualFunction): BufferId[] {
    return f.layers.slice(0, -1).map(({ name, shape }) => this.local(name, "hidden", this.elements(convolutionOutput(shape))));
  }

  elements({ h, w, c }: Extent): number {
    return this.n * h * w * c;
  }

  extent({ h, w, c }: Extent): BatchExtent {
    return { n: this.n, h, w, c };
  }

  private addLocal(record: BufferRecord): BufferId {
    return this.firstLocal + this.locals.push(record) - 1;
  }
}

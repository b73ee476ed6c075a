/**
 * One network's session: its buffers, its programs as they are first needed, and runs in the order of the calls. Several
 * may be under way at once.
 */
import type { BufferId, DeviceOptions, Session, Values } from "../../binding.js";
import type { Split } from "../data/dataset.js";
import { native } from "../native/index.js";
import { NetworkBuffers } from "./buffers.js";
import { HostParameters } from "./host.js";
import type { RealArray } from "./parameters.js";
import type { Program } from "./recorder.js";
import type { Topology } from "./topology.js";

export interface Recorded<P> {
  /** The session's number of the program. */
  readonly id: number;
  readonly program: P;
}

/** A split on the device. */
export interface DeviceSplit {
  readonly images: BufferId;
  readonly labels: BufferId;
  readonly count: number;
}

export class Executor {
  readonly session: Session;
  readonly buffers: NetworkBuffers;
  readonly host: HostParameters;
  /** Buffers of the table that the session has. */
  #added = 0;
  /** By kind, sizes and modes. */
  readonly #programs = new Map<string, Recorded<Program>>();
  /** By split; those of a batch by its size. */
  readonly #splits = new Map<Split | number, DeviceSplit>();
  /** Splits that are on their way to the device no later than the next run. */
  readonly #sent = new Set<Split>();

  constructor(topology: Topology, options: DeviceOptions, seed: bigint) {
    this.buffers = new NetworkBuffers(topology);
    this.session = new native.Session(options);
    try {
      this.#addBuffers();
      this.host = new HostParameters(this.session, this.buffers, seed);
    } catch (error) {
      this.session.dispose();
      throw error;
    }
  }

  /** The program of that key, recorded now if it is new. `record` may add to the buffers. */
  program<P extends Program>(key: string, record: (buffers: NetworkBuffers) => P): Recorded<P> {
    const known = this.#programs.get(key);
    if (known) return known as Recorded<P>;
    const program = record(this.buffers);
    this.#addBuffers();
    const { locals, ops } = program;
    const recorded = { id: this.session.addProgram({ locals, ops }), program };
    this.#programs.set(key, recorded);
    return recorded;
  }

  async run({ id }: Recorded<Program>, inputs: [BufferId, Values][], outputs: BufferId[]): Promise<Values[]> {
    const given = this.#own(inputs, this.host.mustWait);
    return this.host.inOrder(() => this.session.run(id, given, outputs));
  }

  /** run, and then a buffer of reals that may be large. */
  async runAndRead(
    { id }: Recorded<Program>,
    inputs: [BufferId, Values][],
    outputs: BufferId[],
    buffer: BufferId,
  ): Promise<[Values[], RealArray]> {
    const given = this.#own(inputs, true);
    return this.host.thenRead(() => this.session.run(id, given, outputs), buffer);
  }

  /** The caller may use its arrays again once the call has returned. */
  #own(inputs: [BufferId, Values][], waits: boolean): [BufferId, Values][] {
    return waits ? inputs.map(([buffer, values]) => [buffer, values.slice()]) : inputs;
  }

  /** Buffers for a split; the same ones for a split that was there before. They are added with the next program. */
  addSplit(split: Split): DeviceSplit {
    return this.#add(split, split.count, split.images.length);
  }

  /** Buffers for a batch of bytes, likewise. */
  addBatch(n: number, imageElements: number): DeviceSplit {
    return this.#add(n, n, n * imageElements);
  }

  #add(key: Split | number, count: number, elements: number): DeviceSplit {
    const known = this.#splits.get(key);
    if (known) return known;
    const added = {
      images: this.buffers.add({ name: "dataset.images", type: "byte", elements, category: "data" }),
      labels: this.buffers.add({ name: "dataset.labels", type: "index", elements: count, category: "data" }),
      count,
    };
    this.#splits.set(key, added);
    return added;
  }

  /** Sends a split's images and labels to its buffers, which the session must have. Once is enough. */
  async sendSplit(split: Split): Promise<void> {
    if (this.#sent.has(split)) return;
    this.#sent.add(split);
    const { images, labels } = this.addSplit(split);
    this.host.later(images, split.images);
    this.host.later(labels, split.labels);
    await this.host.inOrder(async () => {});
  }

  /** Gives the session what the table has and it has not. */
  #addBuffers(): void {
    const { records } = this.buffers;
    for (; this.#added < records.length; ++this.#added) this.session.addBuffer(records[this.#added]!);
  }
}

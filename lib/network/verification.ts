/**
 * Checks of reversibility while a network trains, on one batch as a training step reads it: blocks are inverted and compared with
 * what the forward pass kept, and the gradients of the reversible step with those of stored activations. Parameters, running
 * statistics and momenta stay as they are; gradients and batch statistics are overwritten, as each step does first thing.
 */
import type { BufferId, MemoryReport, Values } from "../../binding.js";
import { Pacer } from "../data/pacer.js";
import { RevNetError } from "../errors.js";
import type { NetworkBuffers } from "./buffers.js";
import type { DeviceSplit, Executor, Recorded } from "./executor.js";
import { optional, zeroed } from "./inference.js";
import type { RealArray } from "./parameters.js";
import { gradientProgram, type ImageSource, type ReconstructProgram, reconstructProgram, type StepProgram } from "./program.js";
import type { Program, Streams } from "./recorder.js";
import type { Topology } from "./topology.js";
import { type ByteBatch, type StepKey, stepInputs } from "./training-step.js";

/** Largest difference between a reversible block's inputs and what inverting gave back. */
export interface BlockError {
  readonly stage: number;
  readonly block: number;
  readonly error: number;
}

export interface VerificationResult {
  readonly blocks: readonly BlockError[];
  /** Of all blocks. */
  readonly maxError: number;
  /** Of the angle between all gradients with rebuilt and with stored activations: 1 where they are the same. */
  readonly cosine: number;
}

interface Programs {
  readonly reconstruct: ReconstructProgram;
  readonly reversible: StepProgram;
  readonly stored: StepProgram;
}

/** The programs as functions of the buffers, by name. */
export function verificationPrograms(topology: Topology, n: number, streams: Streams, source: ImageSource) {
  const common = { n, streams, source };
  return {
    reconstruct: (buffers: NetworkBuffers) => reconstructProgram(topology, buffers, common),
    reversible: (buffers: NetworkBuffers) => gradientProgram(topology, buffers, { ...common, activations: "reversible" }),
    stored: (buffers: NetworkBuffers) => gradientProgram(topology, buffers, { ...common, activations: "stored" }),
  } satisfies { [K in keyof Programs]: (buffers: NetworkBuffers) => Program };
}

export class Verification {
  readonly #executor: Executor;
  readonly #programs: { readonly [K in keyof Programs]: Recorded<Programs[K]> };

  /**
   * @param given where images that are given as bytes go
   * @throws RevNetError ERR_NOT_REVERSIBLE
   */
  constructor(
    topology: Topology,
    executor: Executor,
    n: number,
    streams: Streams,
    source: ImageSource,
    private readonly given?: DeviceSplit,
  ) {
    requireReversible(topology);
    this.#executor = executor;
    const record = verificationPrograms(topology, n, streams, source);
    const key = (what: string) => `verification ${what} ${n} ${JSON.stringify(source)}`;
    this.#programs = {
      reconstruct: executor.program(key("reconstruct"), record.reconstruct),
      reversible: executor.program(key("reversible"), record.reversible),
      stored: executor.program(key("stored"), record.stored),
    };
  }

  /** Bytes that the session will hold once it has run. */
  planned(): MemoryReport {
    return Object.values(this.#programs)
      .map(({ id }) => this.#executor.session.planned(id))
      .reduce(larger);
  }

  /**
   * Of the images that the step of this key reads, with its crops and flips.
   * @param batch where images are given as bytes: what replaces those that the last step left on the device
   */
  async run(key: StepKey, batch?: ByteBatch): Promise<VerificationResult> {
    const { reconstruct, reversible, stored } = this.#programs;
    const [errors] = (await this.#run(reconstruct, key, [reconstruct.program.errors], this.#bytes(batch))) as [RealArray];
    const rebuilt = await this.#gradients(reversible, key);
    const kept = await this.#gradients(stored, key);
    return { ...blockErrors(reconstruct.program, errors), cosine: await cosine(rebuilt, kept) };
  }

  #bytes(batch: ByteBatch | undefined): [BufferId, Values][] {
    if (!batch || !this.given) return [];
    return [
      [this.given.images, batch.images],
      [this.given.labels, batch.labels],
    ];
  }

  #run(recorded: Recorded<ReconstructProgram>, key: StepKey, outputs: BufferId[], bytes: [BufferId, Values][]): Promise<Values[]> {
    const { inputs, outOfRange } = recorded.program;
    const given = [...bytes, ...stepInputs(inputs, key), ...zeroed(outOfRange)];
    return this.#executor.run(recorded, given, [...outputs, ...optional(outOfRange)]);
  }

  async #gradients(recorded: Recorded<StepProgram>, key: StepKey): Promise<RealArray> {
    const { inputs, outOfRange } = recorded.program;
    const given = [...stepInputs(inputs, key), ...zeroed(outOfRange)];
    const [, gradients] = await this.#executor.runAndRead(recorded, given, [], this.#executor.buffers.gradients!);
    return gradients;
  }
}

export function requireReversible(topology: Topology): void {
  if (!topology.blocks.some((block) => block.reversible))
    throw new RevNetError(
      "ERR_NOT_REVERSIBLE",
      `${topology.spec.name} has no reversible block: a revnet has one where a stage has 2 units or more`,
    );
}

/** The program's `errors` by block. */
export function blockErrors({ blocks }: ReconstructProgram, errors: RealArray): Omit<VerificationResult, "cosine"> {
  const each = blocks.map((block, i) => ({ ...block, error: Math.max(...errors.subarray(2 * i, 2 * i + 2)) }));
  return { blocks: each, maxError: Math.max(...errors) };
}

/** Of two programs that run in turn, so that the arena and the workspace are as large as the larger one's. */
export function larger(a: MemoryReport, b: MemoryReport): MemoryReport {
  const activations = Math.max(a.activations, b.activations);
  const workspace = Math.max(a.workspace, b.workspace);
  return { ...a, activations, workspace, total: a.total - a.activations - a.workspace + activations + workspace };
}

/** Of the angle between them; 1 where both are zero. @internal */
export async function cosine(a: RealArray, b: RealArray): Promise<number> {
  const pacer = new Pacer();
  let [dot, ofA, ofB] = [0, 0, 0];
  for (let first = 0; first < a.length; first += 1 << 18) {
    const end = Math.min(a.length, first + (1 << 18));
    for (let i = first; i < end; ++i) {
      dot += a[i]! * b[i]!;
      ofA += a[i]! ** 2;
      ofB += b[i]! ** 2;
    }
    await pacer.breathe();
  }
  return ofA === 0 && ofB === 0 ? 1 : Math.min(1, dot / Math.sqrt(ofA * ofB));
}

/**
 * What goes between a session and arrays of the host, in the order of the calls. Values are copied on the JavaScript thread, which tens of
 * millions of weights would hold up: what is large goes in pieces, between which other work gets its turn. What is asked for meanwhile
 * waits behind it.
 */
import { types } from "node:util";
import type { BufferId, Session, Values } from "../../binding.js";
import { RevNetError } from "../errors.js";
import { isGone } from "../validation.js";
import type { RealArray } from "./parameters.js";

const PIECE_BYTES = 4 << 20; // some 2 ms

const isLarge = ({ byteLength }: Values) => byteLength > PIECE_BYTES;

export class Transfers {
  /** What the device is to be told before the next job. */
  readonly #pending = new Map<BufferId, Values>();
  /** On their way in pieces, or waiting to be. */
  readonly #sending = new Set<Values>();
  /** Settled once the last job that had to wait was started; undefined where none has. */
  #tail: Promise<void> | undefined;

  constructor(private readonly session: Session) {}

  /** Writes `values` to a buffer before the next job. */
  later(buffer: BufferId, values: Values): void {
    this.#pending.set(buffer, values);
  }

  /** Whether `values` are read yet, so that they must not be changed. */
  isSending(values: Values): boolean {
    return this.#sending.has(values);
  }

  /** Whether a job would be started after the call has returned. */
  get mustWait(): boolean {
    return this.#tail !== undefined || [...this.#pending.values()].some(isLarge);
  }

  /**
   * Starts `job`, which gives the session work, behind what is pending and behind what waits already.
   * @param hold later jobs wait until it has ended
   */
  async inOrder<T>(job: () => Promise<T>, hold = false): Promise<T> {
    const waits = hold || this.mustWait;
    const writes = [...this.#pending];
    this.#pending.clear();
    if (!waits) {
      const sent = writes.map(([buffer, values]) => this.session.write(buffer, values));
      const [result] = await Promise.all([job(), ...sent]);
      return result;
    }
    for (const [, values] of writes) this.#sending.add(values);
    const before = this.#tail ?? Promise.resolve();
    const started = before.then(async () => {
      await this.#send(writes);
      const result = job();
      if (hold) await Promise.allSettled([result]);
      // In an object, since a promise would be waited for.
      return { result };
    });
    const done = () => {
      if (this.#tail === tail) this.#tail = undefined;
    };
    const tail: Promise<void> = started.then(done, done);
    this.#tail = tail;
    return (await started).result;
  }

  /** A whole buffer of reals. */
  read(buffer: BufferId, elements: number): Promise<RealArray> {
    return this.inOrder(() => this.readPieces(buffer, elements), true);
  }

  /** The same, for a job that holds. */
  async readPieces(buffer: BufferId, elements: number): Promise<RealArray> {
    const each = PIECE_BYTES / this.session.elementBytes("real");
    let whole: RealArray | undefined;
    for (let first = 0; first < elements; first += each) {
      const piece = (await this.session.read(buffer, first, Math.min(each, elements - first))) as RealArray;
      if (piece.length === elements) return piece;
      whole ??= types.isFloat64Array(piece) ? new Float64Array(elements) : new Float32Array(elements);
      whole.set(piece, first);
    }
    return whole!;
  }

  async #send(writes: readonly [BufferId, Values][]): Promise<void> {
    try {
      for (const [buffer, values] of writes) await this.#sendPieces(buffer, values);
    } finally {
      for (const [, values] of writes) this.#sending.delete(values);
    }
  }

  async #sendPieces(buffer: BufferId, values: Values): Promise<void> {
    const { length, BYTES_PER_ELEMENT } = values;
    // What is small goes whole: the session sees whether it has the right length.
    const each = isLarge(values) ? PIECE_BYTES / BYTES_PER_ELEMENT : length;
    let first = 0;
    do {
      if (isGone(values))
        throw new RevNetError("ERR_INVALID_ARGUMENT", "an array was taken away while it was copied to the device");
      await this.session.write(buffer, values.subarray(first, first + each), each < length ? first : undefined);
      first += each;
    } while (first < length);
  }
}

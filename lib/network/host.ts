/**
 * The host's copy of a network's parameters. One side may be newer than the other: `set` changes the host's, and the change
 * goes to the device with the next program that runs; training changes the device's, and `pull` fetches it back.
 */

import { createHash, type Hash } from "node:crypto";
import { types } from "node:util";
import type { BufferId, Session, Values } from "../../binding.js";
import { Pacer } from "../data/pacer.js";
import { RevNetError } from "../errors.js";
import { native } from "../native/index.js";
import { areFinite, describe, isFiniteValue, unknownMessage } from "../validation.js";
import type { NetworkBuffers } from "./buffers.js";
import { type InitialTensors, initialTensors } from "./initialization.js";
import { type ParameterEntry, pack, type RealArray, unpack } from "./parameters.js";
import { Transfers } from "./transfers.js";

/** A parameter, running statistic or gradient: its values and their layout. */
export interface ParameterTensor {
  /** [out, in, kh, kw] for a convolution, [out, in] for the classifier, [c] for all others. */
  readonly shape: readonly number[];
  /** Row-major. Float32Array, or Float64Array on the reference. */
  readonly data: RealArray;
}

/** Tensors by name: a Map, or an object. `shape` is checked, `data` may be any array of numbers. */
export type ParameterInput =
  | ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>
  | Readonly<Record<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>>;

/** The flat buffers of a network, in the device's layout. */
interface FlatValues {
  readonly parameters: RealArray;
  readonly running: RealArray;
}

const CODE = "ERR_INVALID_ARGUMENT";

export class HostParameters {
  readonly #session: Session;
  readonly #buffers: NetworkBuffers;
  readonly #seed: bigint;
  readonly #initial: InitialTensors;
  /** Flat, in the device's layout; undefined: initial values that nobody has asked for here. */
  #values: FlatValues | undefined;
  /** Whether the device has yet to draw them. */
  #drawn = false;
  readonly #transfers: Transfers;
  /** Counts trained steps; `#fetched` is the count at the last pull. */
  #trained = 0;
  #fetched = 0;
  /** Counts changes of the host's. */
  #changes = 0;
  #tensors: ReadonlyMap<string, ParameterTensor> | undefined;

  constructor(session: Session, buffers: NetworkBuffers, seed: bigint) {
    this.#session = session;
    this.#buffers = buffers;
    this.#seed = seed;
    this.#initial = initialTensors(buffers.layout);
    this.#transfers = new Transfers(session);
  }

  get #flat(): FlatValues {
    if (!this.#values) {
      const { parameters, running } = this.#zeros();
      native.initialValues(this.#seed, this.#initial.parameters, parameters);
      native.initialValues(this.#seed, this.#initial.running, running);
      this.#values = { parameters, running };
    }
    return this.#values;
  }

  #zeros(): FlatValues {
    const { layout } = this.#buffers;
    const Real = this.#session.elementBytes("real") === 8 ? Float64Array : Float32Array;
    return { parameters: new Real(layout.elements), running: new Real(layout.runningElements) };
  }

  /** Every parameter and running statistic, a copy. @throws RevNetError ERR_STALE while the device's are newer */
  get tensors(): ReadonlyMap<string, ParameterTensor> {
    this.#requireFresh();
    this.#tensors ??= new Map(
      [...this.#buffers.layout.entries].map(([name, entry]) => {
        const data = unpack(entry, this.#flat[entry.buffer]);
        return [name, { shape: [...entry.shape], data }];
      }),
    );
    return this.#tensors;
  }

  /**
   * All or nothing: throws RevNetError ERR_INVALID_ARGUMENT, naming the tensor, before anything is changed. Values have to be
   * within +-2^64, variances at least 0.
   */
  set(input: ParameterInput): void {
    this.#requireFresh();
    const { entries } = this.#buffers.layout;
    const given: [ParameterEntry, RealArray | readonly number[]][] = [];
    if (input === null || typeof input !== "object")
      throw new RevNetError(CODE, `parameters: expected a Map or an object, got ${describe(input)}`);
    for (const [name, tensor] of types.isMap(input) ? (input as ReadonlyMap<string, unknown>) : Object.entries(input)) {
      const entry = entries.get(name);
      if (!entry) throw new RevNetError(CODE, unknownMessage("parameter", String(name), entries.keys()));
      given.push([entry, checkTensor(entry, tensor)]);
    }
    const flat = this.#changeable();
    for (const [entry, data] of given) pack(entry, data, flat[entry.buffer]);
    this.#changed(flat);
  }

  /**
   * `set` for all of them, as a file has them: nothing is drawn, and the event loop is not kept for long, which tens of millions of
   * weights would. @throws RevNetError ERR_INVALID_ARGUMENT
   */
  async replace(
    tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>,
  ): Promise<void> {
    this.#requireFresh();
    const { entries } = this.#buffers.layout;
    const flat = this.#zeros();
    await this.#packAll(entries, tensors, flat);
    this.#requireFresh();
    this.#changed(flat);
  }

  async #packAll(
    entries: ReadonlyMap<string, ParameterEntry>,
    tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>,
    flat: FlatValues,
  ): Promise<void> {
    for (const name of tensors.keys())
      if (!entries.has(name)) throw new RevNetError(CODE, unknownMessage("parameter", name, entries.keys()));
    const pacer = new Pacer();
    for (const [name, entry] of entries) {
      const tensor = tensors.get(name);
      if (!tensor) throw new RevNetError(CODE, `parameter '${name}' is missing`);
      pack(entry, checkTensor(entry, tensor), flat[entry.buffer]);
      await pacer.breathe();
    }
  }

  /**
   * What is wrong with the first parameter or running statistic that nothing can be computed with, for a message; undefined where
   * all are fit. Of the host's copy, even where training has gone on.
   */
  notFinite(): string | undefined {
    for (const [name, entry] of this.#buffers.layout.entries) {
      const data = unpack(entry, this.#flat[entry.buffer]);
      const wrong = data.find((value) => !isFiniteValue(value) || (name.endsWith(".running_var") && value < 0));
      if (wrong !== undefined) return `'${name}' holds ${wrong}`;
    }
    return undefined;
  }

  /** Writes `values` to a buffer of the session before the next run. */
  later(buffer: BufferId, values: Values): void {
    this.#transfers.later(buffer, values);
  }

  /** Whether a run would be started after the call has returned. */
  get mustWait(): boolean {
    return this.#transfers.mustWait;
  }

  /** Starts `job` on the session once the device has what the host has; in the order of the calls. @param hold as Transfers' */
  async inOrder<T>(job: () => Promise<T>, hold = false): Promise<T> {
    const drawn = this.#drawn ? undefined : this.#transfers.inOrder(() => this.#draw());
    const [result] = await Promise.all([this.#transfers.inOrder(job, hold), drawn]);
    return result;
  }

  /** As inOrder, and then a buffer of reals as `job` left it. */
  async thenRead<T>(job: () => Promise<T>, buffer: BufferId): Promise<[T, RealArray]> {
    const { elements } = this.#buffers.records[buffer]!;
    return this.inOrder(async () => [await job(), await this.#transfers.readPieces(buffer, elements)], true);
  }

  async #draw(): Promise<void> {
    this.#drawn = true;
    const { parameters, running } = this.#buffers;
    try {
      await Promise.all([
        this.#session.initialize(parameters, this.#seed, this.#initial.parameters),
        this.#session.initialize(running, this.#seed, this.#initial.running),
      ]);
    } catch (error) {
      // There was no memory for it: the next run needs it as much.
      this.#drawn = false;
      throw error;
    }
  }

  /** The device's parameters are about to change. */
  markTrained(): void {
    ++this.#trained;
  }

  /** Brings `tensors` up to date, without keeping the event loop for long: the device's, where they are newer or have yet to be drawn. */
  async pull(): Promise<void> {
    const [trained, changes] = [this.#trained, this.#changes];
    const isFresh = trained === this.#fetched;
    if (isFresh && this.#tensors) return;
    const values = (isFresh && this.#values) || (await this.#fetch());
    // Unless they were set meanwhile.
    if (this.#changes !== changes) return;
    if (this.#values !== values) this.#tensors = undefined;
    this.#values = values;
    this.#fetched = trained;
    const tensors = await this.#unpack([...this.#buffers.layout.entries.values()], values);
    // Unless they were set or fetched again meanwhile.
    if (this.#values === values && this.#changes === changes) this.#tensors = tensors;
  }

  async #fetch(): Promise<FlatValues> {
    const { parameters, running } = this.#buffers;
    const [, ...values] = await Promise.all([this.inOrder(async () => {}), this.read(parameters), this.read(running)]);
    return { parameters: values[0], running: values[1] };
  }

  /** The device's values of a flat buffer of reals. */
  read(buffer: BufferId): Promise<RealArray> {
    return this.#transfers.read(buffer, this.#buffers.records[buffer]!.elements);
  }

  /** Unpacks without keeping the event loop for long, which tens of millions of weights would. */
  async #unpack(entries: readonly ParameterEntry[], flat: FlatValues) {
    const tensors = new Map<string, ParameterTensor>();
    const pacer = new Pacer();
    for (const entry of entries) {
      const data = unpack(entry, flat[entry.buffer]);
      tensors.set(entry.name, { shape: [...entry.shape], data });
      await pacer.breathe();
    }
    return tensors;
  }

  /** Fetches what optimizers keep for each trained parameter, as `NAME.PARAMETER`. */
  async optimizerState(): Promise<ReadonlyMap<string, ParameterTensor>> {
    const { layout, state } = this.#buffers;
    const tensors = new Map<string, ParameterTensor>();
    for (const [name, buffer] of state)
      for (const [parameter, tensor] of await this.trained(await this.#transfers.read(buffer, layout.elements)))
        tensors.set(`${name}.${parameter}`, tensor);
    return tensors;
  }

  /** Unpacks values of the trained parameters: an optimizer's state, gradients. */
  trained(parameters: RealArray): Promise<ReadonlyMap<string, ParameterTensor>> {
    const entries = [...this.#buffers.layout.entries.values()].filter(({ buffer }) => buffer === "parameters");
    return this.#unpack(entries, { parameters, running: parameters.subarray(0, 0) });
  }

  /** All of optimizerState, no more and no less; steps that run after this call go on with it. @throws RevNetError ERR_INVALID_ARGUMENT */
  async setOptimizerState(
    tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>,
  ): Promise<void> {
    const { layout, state } = this.#buffers;
    const parameters = [...layout.entries].filter(([, entry]) => entry.buffer === "parameters");
    const unknown = [...tensors.keys()].find((name) => !state.has(name.replace(/\..*/, "")));
    if (unknown !== undefined) throw new RevNetError(CODE, `'${unknown}' belongs to another optimizer`);
    for (const [name, buffer] of state) {
      const prefix = `${name}.`;
      const of = [...tensors].filter(([tensor]) => tensor.startsWith(prefix));
      const flat = this.#zeros();
      await this.#packAll(new Map(parameters), new Map(of.map(([tensor, values]) => [tensor.slice(prefix.length), values])), flat);
      this.later(buffer, flat.parameters);
    }
  }

  /** SHA-256 over the names in order, each followed by its values as little-endian float32. */
  sha256(): string {
    const hash = createHash("sha256");
    for (const [name, tensor] of this.#inOrderOfNames()) hashTensor(hash, name, tensor);
    return hash.digest("hex");
  }

  /** sha256 without keeping the event loop for long; of the device's, where they are newer. */
  async digest(): Promise<string> {
    await this.pull();
    const hash = createHash("sha256");
    const pacer = new Pacer();
    for (const [name, tensor] of this.#inOrderOfNames()) {
      hashTensor(hash, name, tensor);
      await pacer.breathe();
    }
    return hash.digest("hex");
  }

  #inOrderOfNames(): [string, ParameterTensor][] {
    return [...this.tensors].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  /** The host's values, to be changed in place: a copy where the device is being told of them. */
  #changeable(): FlatValues {
    const { parameters, running } = this.#flat;
    const own = (values: RealArray) => (this.#transfers.isSending(values) ? values.slice() : values);
    return { parameters: own(parameters), running: own(running) };
  }

  #changed(flat: FlatValues): void {
    ++this.#changes;
    this.#values = flat;
    this.#tensors = undefined;
    this.#drawn = true;
    this.later(this.#buffers.parameters, flat.parameters);
    this.later(this.#buffers.running, flat.running);
  }

  #requireFresh(): void {
    if (this.#trained !== this.#fetched)
      throw new RevNetError(
        "ERR_STALE",
        "training has changed the parameters on the device; await the run, or refreshParameters(), first",
      );
  }
}

function hashTensor(hash: Hash, name: string, { data }: ParameterTensor): void {
  const { buffer, byteOffset, byteLength } = types.isFloat32Array(data) ? data : new Float32Array(data);
  hash.update(name).update(new Uint8Array(buffer, byteOffset, byteLength));
}

function checkTensor(entry: ParameterEntry, tensor: unknown): RealArray | readonly number[] {
  const { name, shape, elements } = entry;
  if (tensor === null || typeof tensor !== "object")
    throw new RevNetError(CODE, `parameter '${name}': expected { shape, data }, got ${describe(tensor)}`);
  const { shape: givenShape, data } = tensor as { shape?: unknown; data?: unknown };
  if (!Array.isArray(givenShape) || givenShape.length !== shape.length || shape.some((size, i) => size !== givenShape[i]))
    throw new RevNetError(
      CODE,
      `parameter '${name}': expected shape [${shape}], got ${Array.isArray(givenShape) ? `[${givenShape.slice(0, 16)}]` : describe(givenShape)}`,
    );
  if (!(types.isFloat32Array(data) || types.isFloat64Array(data) || Array.isArray(data)) || data.length !== elements)
    throw new RevNetError(CODE, `parameter '${name}': expected ${elements} numbers, got ${describe(data)}`);
  if (Array.isArray(data) && !data.every((value) => typeof value === "number"))
    throw new RevNetError(
      CODE,
      `parameter '${name}': expected numbers, got ${describe(data.find((value) => typeof value !== "number"))}`,
    );
  const wrong = areFinite(data) ? -1 : data.findIndex((value: number) => !isFiniteValue(value));
  if (wrong >= 0)
    throw new RevNetError(CODE, `parameter '${name}': expected values from -2^64 to 2^64, got ${data[wrong]} at index ${wrong}`);
  const negative = name.endsWith(".running_var") ? data.findIndex((value: number) => value < 0) : -1;
  if (negative >= 0)
    throw new RevNetError(CODE, `parameter '${name}': a variance is at least 0, got ${data[negative]} at index ${negative}`);
  return data;
}

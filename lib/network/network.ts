/**
 * A network on a device: its parameters, and what can be done with them. Work runs on a thread of the network's own, in
 * the order of the calls; several may be under way at once.
 */
import type { BufferId, MemoryReport, Values } from "../../binding.js";
import type { AnyDataset, AnySplit, Split } from "../data/dataset.js";
import { RevNetError } from "../errors.js";
import { writeOnnx } from "../formats/onnx.js";
import { checkBoolean, checkChoice, checkInteger, checkOptions } from "../validation.js";
import { chooseDevice, DEVICE_KEYS, type DeviceChoice, type DeviceOptions } from "./device.js";
import { type DeviceSplit, Executor } from "./executor.js";
import { checkClassNames, modelMetadata, readModel, writeModel } from "./file.js";
import type { ParameterInput, ParameterTensor } from "./host.js";
import type { Images, Labels, Preprocessing } from "./images.js";
import * as images from "./images.js";
import { type Evaluation, type EvaluationOptions, Inference, optional, zeroed } from "./inference.js";
import { explainMemory } from "./memory.js";
import { type Model, resolveModel } from "./models.js";
import { onnxGraph } from "./onnx.js";
import { type RealArray, unpack } from "./parameters.js";
import { gradientProgram, type ImageSource, reconstructProgram, trainingProgram } from "./program.js";
import { MAX_BATCH } from "./recipe.js";
import type { Activations, Streams } from "./recorder.js";
import type { NetworkSpec } from "./spec.js";
import { buildTopology, norms, type Topology } from "./topology.js";
import { checkSeed, TrainingStep } from "./training-step.js";
import { type BlockError, blockErrors, requireReversible, Verification } from "./verification.js";

/** What createNetwork and loadNetwork take. */
export interface NetworkOptions extends DeviceOptions {
  /** Of the initial values; default 0. */
  readonly seed?: number | bigint | undefined;
  /** Default "fixed", which is exact. ResNets have real streams in either case. */
  readonly streams?: Streams | undefined;
}

/** What Network.prepareTraining takes. */
export interface TrainingOptions {
  /** Images of a step. */
  readonly batchSize: number;
  /** Default "reversible". The weights that training gives are the same, bit for bit. */
  readonly activations?: Activations;
  /** Images kept on the device for as long as the network; absent: each step is given normalised images. */
  readonly data?: Split;
  /** Each step is given images as bytes, which are preprocessed on the device. */
  readonly bytes?: boolean;
  /** Random crops out of images padded by so many pixels, and random mirroring; default none. Only with `data` or `bytes`. */
  readonly padding?: number;
  readonly flip?: boolean;
}

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

export { type MemoryPlanOptions, memoryPlan } from "./memory.js";

const CODE = "ERR_INVALID_ARGUMENT";
const NETWORK_KEYS = ["seed", "streams", ...DEVICE_KEYS];

/**
 * A network with fresh parameters, drawn by the seed.
 * @param model a published model's name, a path to a JSON file, or a spec
 * @throws RevNetError ERR_INVALID_SPEC, ERR_UNKNOWN_MODEL, ERR_INVALID_ARGUMENT, ERR_FILE, ERR_DEVICE_UNAVAILABLE, ERR_OUT_OF_MEMORY,
 *   ERR_ADDON_MISSING
 */
export function createNetwork(model: Model, options: NetworkOptions = {}): Network {
  checkOptions(options, NETWORK_KEYS);
  return new Network(resolveModel(model), options);
}

/**
 * A network from model.safetensors. All its parameters must be there, and no others.
 * @param options.spec the model, where the file does not carry it
 * @throws RevNetError as createNetwork, and ERR_FILE, ERR_INVALID_FILE
 */
export async function loadNetwork(file: string, options: NetworkOptions & { readonly spec?: Model } = {}): Promise<Network> {
  checkOptions(options, ["spec", ...NETWORK_KEYS]);
  const { spec, ...rest } = options;
  const model = await readModel(file, spec === undefined ? undefined : resolveModel(spec));
  const network = new Network(model.spec, rest);
  try {
    for (const name of network.parameters.keys())
      if (!model.tensors.has(name)) throw new RevNetError("ERR_INVALID_FILE", `'${file}': parameter '${name}' is missing`);
    network.setParameters(model.tensors);
    network.preprocessing = model.preprocessing;
    network.classNames = model.classNames;
    return network;
  } catch (error) {
    network.dispose();
    if (!(error instanceof RevNetError) || error.code !== CODE) throw error;
    throw new RevNetError("ERR_INVALID_FILE", `'${file}' does not fit ${model.spec.name}: ${error.message}`, { cause: error });
  }
}

/**
 * A network on a device: parameters, and what can be done with them. Made by createNetwork, loadNetwork and trainRevNet; disposed of by
 * the caller. Its methods may be called while earlier ones are under way: they are done in the order of the calls, on a thread of the
 * network's own. Each may throw or reject with ERR_INVALID_ARGUMENT (what it was given), ERR_OUT_OF_MEMORY and ERR_DISPOSED.
 */
export class Network {
  /** What the network is, checked and frozen. */
  readonly spec: NetworkSpec;
  /** How a RevNet's residual streams are kept: "fixed" is exact. */
  readonly streams: Streams;
  readonly #choice: DeviceChoice;
  readonly #topology: Topology;
  readonly #executor: Executor;
  readonly #inference: Inference;
  #preprocessing: Preprocessing;
  #classNames: readonly string[] | undefined;

  /** `spec` has been checked; see createNetwork. @internal */
  constructor(spec: NetworkSpec, { seed = 0, streams = "fixed", ...device }: NetworkOptions) {
    this.spec = spec;
    this.streams = checkChoice(streams, ["fixed", "float32"], "streams", CODE);
    this.#choice = chooseDevice(device);
    this.#topology = buildTopology(spec);
    this.#executor = new Executor(this.#topology, this.#choice.options, checkSeed(seed));
    this.#inference = new Inference(this.#topology, this.#executor, this.streams);
    this.#preprocessing = images.defaultPreprocessing(spec);
    this.preprocessing = this.#preprocessing;
  }

  /** "reference", "cpu" or "cuda:N". */
  get device(): string {
    return this.#choice.options.device;
  }

  /** The device and why it is this one. */
  get deviceChoice(): string {
    return this.#choice.reason;
  }

  /** The instruction set and threads, or the GPU. */
  get description(): string {
    return this.#executor.session.description;
  }

  /** How many numbers are trained. */
  get parameterCount(): number {
    return this.#executor.buffers.layout.count;
  }

  /**
   * Copies of all parameters and running statistics by name, in the layout and order of PyTorch's state_dict. Training makes
   * them stale: a run refreshes them before it resolves; in between, call refreshParameters first.
   * @throws RevNetError ERR_STALE
   */
  get parameters(): ReadonlyMap<string, ParameterTensor> {
    return this.#executor.host.tensors;
  }

  /** Takes new values; parameters that are not named keep theirs. All or nothing. @throws RevNetError ERR_INVALID_ARGUMENT, ERR_STALE */
  setParameters(parameters: ParameterInput): void {
    this.#executor.host.set(parameters);
  }

  /** Fetches the parameters from the device, if training has changed them there. */
  async refreshParameters(): Promise<void> {
    await this.#executor.host.pull();
  }

  /** SHA-256 over all parameters and running statistics: equal where two networks are equal bit for bit. @throws RevNetError ERR_STALE */
  weightsSha256(): string {
    return this.#executor.host.sha256();
  }

  /**
   * Momenta of the trained parameters by name: what a checkpoint needs beyond the parameters. After prepareTraining.
   * @internal
   */
  momenta(): Promise<ReadonlyMap<string, ParameterTensor>> {
    return this.#executor.host.momenta();
  }

  /** @internal */
  setMomenta(momenta: ReadonlyMap<string, ParameterTensor>): void {
    this.#executor.host.setMomenta(momenta);
  }

  /** Images enter the network as (pixel - mean) * scale; default: mean 0, scale 1 / 255. Saved with the network. Can be set. */
  get preprocessing(): Preprocessing {
    return this.#preprocessing;
  }

  set preprocessing(value: Preprocessing) {
    this.#preprocessing = images.checkPreprocessing(this.spec, value);
    this.#executor.host.later(this.#executor.buffers.mean, this.#preprocessing.mean);
  }

  /** Names of the classes, by label, where they are known. Saved with the network. Can be set. */
  get classNames(): readonly string[] | undefined {
    return this.#classNames;
  }

  set classNames(value: readonly string[] | undefined) {
    this.#classNames = value === undefined ? undefined : checkClassNames(this.spec, value, "classNames");
  }

  /**
   * Class probabilities by the running statistics, [count][classes].
   * @param pixels [count][height][width][channels], 0 to 255; any count
   * @returns count * classes numbers; each image's sum to 1
   */
  async predict(pixels: Images): Promise<Float32Array> {
    return images.softmax(await this.logits(pixels), this.spec.classes);
  }

  /**
   * What predict takes the softmax of: [count][classes], Float64Array on the reference.
   * @param pixels [count][height][width][channels], 0 to 255; any count
   */
  logits(pixels: Images): Promise<RealArray> {
    return this.#inference.logits(pixels, this.#preprocessing);
  }

  /**
   * Loss and error by the running statistics, on a split or on a data set's test split. Broken images of a stream are left out.
   * @param data its images have the shape of the network's input
   * @throws RevNetError ERR_INVALID_ARGUMENT; ERR_ABORTED between two batches; ERR_INVALID_DATA from a stream
   */
  evaluate(data: AnyDataset | AnySplit, options: EvaluationOptions = {}): Promise<Evaluation> {
    return this.#inference.evaluate(data, options, this.#preprocessing);
  }

  /**
   * Loss, logits and gradients of one batch with its own statistics, as in training; nothing of the network changes.
   * @param normalized [n][height][width][channels], as the first convolution reads them
   * @param labels n labels, each in [0, classes)
   * @param options.activations default "reversible"; gradients are the same in both modes
   * @throws RevNetError ERR_INVALID_ARGUMENT, ERR_OUT_OF_MEMORY
   */
  async lossAndGradients(
    normalized: RealArray,
    labels: Labels,
    options: { readonly activations?: Activations } = {},
  ): Promise<LossAndGradients> {
    checkOptions(options, ["activations"]);
    const n = images.checkNormalized(this.spec, normalized);
    const classOf = images.checkLabels(this.spec, labels, n);
    const activations = checkActivations(options.activations);
    const recorded = this.#executor.program(`gradients ${n} ${activations}`, (buffers) =>
      gradientProgram(this.#topology, buffers, { n, activations, streams: this.streams, source: { type: "real" } }),
    );
    const { inputs, outOfRange, loss, logits } = recorded.program;
    const { layout, gradients: flatGradients } = this.#executor.buffers;
    const results = await this.#executor.run(
      recorded,
      [[inputs.images!, normalized], [inputs.labels!, classOf], ...zeroed(outOfRange)],
      [loss, logits, flatGradients!, ...optional(outOfRange)],
    );
    const flat = results[2] as RealArray;
    const gradients = new Map<string, ParameterTensor>();
    for (const [name, entry] of layout.entries)
      if (entry.buffer === "parameters") gradients.set(name, { shape: [...entry.shape], data: unpack(entry, flat) });
    return { loss: results[0]![0]!, logits: results[1] as RealArray, gradients, outOfRange: results[3]?.[0] ?? 0 };
  }

  /**
   * Runs one batch forward, then inverts each reversible block from its outputs, and compares: 0 exactly with fixed-point
   * streams. Keeps a copy of every block's inputs meanwhile, so its memory grows with depth.
   * @param pixels [n][height][width][channels], 0 to 255
   * @throws RevNetError ERR_NOT_REVERSIBLE where no block is
   */
  async reconstruct(pixels: Images): Promise<Reconstruction> {
    const n = images.checkBatch(this.spec, pixels);
    requireReversible(this.#topology);
    const recorded = this.#executor.program(`reconstruct ${n}`, (buffers) =>
      reconstructProgram(this.#topology, buffers, { n, streams: this.streams, source: { type: "real" } }),
    );
    const { program } = recorded;
    const { inputs, outOfRange } = program;
    const normalized = images.normalize(pixels, this.#preprocessing);
    const results = await this.#executor.run(
      recorded,
      [[inputs.images!, normalized], ...zeroed(outOfRange)],
      [program.errors, ...optional(outOfRange)],
    );
    const { blocks, maxError } = blockErrors(program, results[0] as RealArray);
    return { blocks, max: maxError, outOfRange: results[1]?.[0] ?? 0 };
  }

  /**
   * Records a training step. What it needs beyond the network (gradients, momenta, the data set) is allocated now and kept.
   * Momenta begin at 0 and are the network's: steps prepared later go on with them.
   */
  async prepareTraining(options: TrainingOptions): Promise<TrainingStep> {
    checkOptions(options, ["batchSize", "activations", "data", "bytes", "padding", "flip"]);
    const n = checkInteger(options.batchSize, 1, MAX_BATCH, "batchSize", CODE);
    const activations = checkActivations(options.activations);
    const few = norms(this.#topology).find(({ pixels }) => n * pixels < 2);
    if (few)
      throw new RevNetError(
        CODE,
        `batchSize: ${few.name} would have one value per channel, which has no variance; expected at least 2`,
      );
    const [source, batch] = this.#source(options);
    const memory = { batchSize: n, activations, streams: this.streams, images: options.data?.count, ...this.#choice.options };
    const withinMemory = <T>(work: () => Promise<T>) =>
      explainMemory(this.spec, memory, () => this.#executor.session.allocated().total, work);
    const recorded = await withinMemory(async () =>
      this.#executor.program(`training ${n} ${activations} ${JSON.stringify(source)}`, (buffers) =>
        trainingProgram(this.#topology, buffers, { n, activations, streams: this.streams, source }),
      ),
    );
    if (options.data) await this.#executor.sendSplit(options.data);
    const run = (inputs: [BufferId, Values][], outputs: BufferId[]) => {
      this.#executor.host.markTrained();
      return withinMemory(() => this.#executor.run(recorded, inputs, outputs));
    };
    return new TrainingStep(this.spec, recorded.program, run, () => this.#executor.session.planned(recorded.id), batch);
  }

  /**
   * Records what a training run is verified with: the images of the same steps, inverted and compared. Changes nothing of the network.
   * @throws RevNetError ERR_NOT_REVERSIBLE where no block is
   * @internal
   */
  async prepareVerification(options: TrainingOptions): Promise<Verification> {
    const [source, batch] = this.#source(options);
    const verification = new Verification(this.#topology, this.#executor, options.batchSize, this.streams, source, batch);
    if (options.data) await this.#executor.sendSplit(options.data);
    return verification;
  }

  /** Where the images of a training step come from; those that come as bytes are a data set of one batch, written anew for each step. */
  #source(options: TrainingOptions): [source: ImageSource, batch: DeviceSplit | undefined] {
    const augment = augmentation(this.spec, options);
    const split = options.data === undefined ? undefined : images.checkSplit(this.spec, options.data);
    const batch = options.bytes ? this.#executor.addBatch(options.batchSize, images.imageElements(this.spec)) : undefined;
    const device = batch ?? (split && this.#executor.addSplit(split));
    if (!device) return [{ type: "real" }, undefined];
    return [{ type: "dataset", ...device, ...augment, scale: this.#preprocessing.scale }, batch];
  }

  /** Bytes allocated now, by category. */
  memory(): MemoryReport {
    return this.#executor.session.allocated();
  }

  /** Writes model.safetensors, with the spec and the preprocessing in its metadata. Atomic. @throws RevNetError ERR_FILE */
  async save(file: string): Promise<void> {
    await this.#executor.host.pull();
    await writeModel(file, modelMetadata(this), this.#executor.host.tensors);
  }

  /**
   * Writes an ONNX model that classifies as predict does: `images` ([batch, height, width, channels], 0 to 255) to `logits` and
   * `probabilities`. docs/interchange.md says more. Atomic.
   * @throws RevNetError ERR_FILE
   */
  async exportOnnx(file: string): Promise<void> {
    await this.#executor.host.pull();
    const graph = onnxGraph(this.#topology, this.#preprocessing, this.#executor.host.tensors);
    await writeOnnx(file, graph, { spec: JSON.stringify(this.spec) });
  }

  /** Frees the device's memory and ends the thread. Work under way stops and rejects with ERR_DISPOSED. Idempotent. */
  dispose(): void {
    this.#executor.session.dispose();
  }

  /** The same, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

function checkActivations(value: unknown): Activations {
  return checkChoice(value ?? "reversible", ["reversible", "stored"], "activations", CODE);
}

function augmentation({ input: [h, w] }: NetworkSpec, { padding = 0, flip = false }: TrainingOptions) {
  return { padding: checkInteger(padding, 0, Math.min(h, w), "padding", CODE), flip: checkBoolean(flip, "flip", CODE) };
}

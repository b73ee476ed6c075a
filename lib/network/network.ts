/**
 * A network on a device: its parameters, and what can be done with them. Work runs on a thread of the network's own, in
 * the order of the calls; several may be under way at once.
 */
import { setImmediate } from "node:timers/promises";
import type { MemoryReport } from "../../binding.js";
import type { AnyDataset, AnySplit } from "../data/dataset.js";
import { RevNetError } from "../errors.js";
import { writeOnnx } from "../formats/onnx.js";
import { printable } from "../text.js";
import { checkChoice, checkOptions } from "../validation.js";
import { chooseDevice, DEVICE_KEYS, type DeviceChoice, type DeviceOptions } from "./device.js";
import { Executor } from "./executor.js";
import { checkClassNames, modelMetadata, readModel, writeModel } from "./file.js";
import type { ParameterInput, ParameterTensor } from "./host.js";
import type { ImageFiles, Images, Labels, Preprocessing } from "./images.js";
import * as images from "./images.js";
import { type Evaluation, type EvaluationOptions, Inference } from "./inference.js";
import { type Model, resolveModel } from "./models.js";
import { onnxGraph } from "./onnx.js";
import { ParameterLayout, type RealArray } from "./parameters.js";
import { checkActivations, Preparation, type TrainingOptions } from "./preparation.js";
import { type LossAndGradients, Probe, type Reconstruction } from "./probe.js";
import { type Activations, STREAMS, type Streams } from "./recorder.js";
import type { NetworkSpec } from "./spec.js";
import type { StatisticsEstimation } from "./statistics.js";
import { buildTopology, type Topology } from "./topology.js";
import { checkSeed, type TrainingStep } from "./training-step.js";
import type { Verification } from "./verification.js";

/** What createNetwork and loadNetwork take. */
export interface NetworkOptions extends DeviceOptions {
  /** Of the initial values; default 0. */
  readonly seed?: number | bigint | undefined;
  /** Default "fixed", which is exact. ResNets have real streams in either case. */
  readonly streams?: Streams | undefined;
}

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
 * @param options.preprocessing of the images, where the file does not carry it (one that PyTorch wrote does not): without it, mean 0 and
 *   scale 1 / 255 are taken, and the process emits a warning
 * @throws RevNetError as createNetwork, and ERR_FILE, ERR_INVALID_FILE
 */
export async function loadNetwork(
  file: string,
  options: NetworkOptions & { readonly spec?: Model; readonly preprocessing?: Preprocessing } = {},
): Promise<Network> {
  checkOptions(options, ["spec", "preprocessing", ...NETWORK_KEYS]);
  const { spec, preprocessing, ...rest } = options;
  const model = await readModel(file, spec === undefined ? undefined : resolveModel(spec));
  // Before anything is allocated: the file may say what it likes of the network's size.
  const wrong = new ParameterLayout(buildTopology(model.spec)).mismatch(model.tensors);
  if (wrong) throw new RevNetError("ERR_INVALID_FILE", `'${file}' does not fit ${model.spec.name}: ${wrong}`);
  // Making a network of tens of millions of weights takes a turn of the event loop of its own.
  await setImmediate();
  const network = new Network(model.spec, rest);
  try {
    await setImmediate();
    await network.replaceParameters(model.tensors);
    network.preprocessing = preprocessing ?? model.preprocessing ?? network.preprocessing;
    if (preprocessing === undefined && model.preprocessing === undefined)
      process.emitWarning(
        printable(
          `'${file}' does not say how images are preprocessed, so mean 0 and scale 1/255 are taken; loadNetwork's option preprocessing says it`,
        ),
        { type: "RevNetWarning", code: "REVNET_NO_PREPROCESSING" },
      );
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
  readonly #preparation: Preparation;
  readonly #probe: Probe;
  #preprocessing: Preprocessing;
  #classNames: readonly string[] | undefined;

  /** `spec` has been checked; see createNetwork. @internal */
  constructor(spec: NetworkSpec, { seed = 0, streams = "fixed", ...device }: NetworkOptions) {
    this.spec = spec;
    this.streams = checkChoice(streams, STREAMS, "streams", CODE);
    this.#choice = chooseDevice(device);
    this.#topology = buildTopology(spec);
    this.#executor = new Executor(this.#topology, this.#choice.options, checkSeed(seed));
    this.#inference = new Inference(this.#topology, this.#executor, this.streams);
    this.#preparation = new Preparation(this.#topology, this.#executor, this.streams, this.#choice.options);
    this.#probe = new Probe(this.#topology, this.#executor, this.streams);
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

  /**
   * Takes new values, within +-2^64, variances at least 0; parameters that are not named keep theirs. All or nothing.
   * @throws RevNetError ERR_INVALID_ARGUMENT, ERR_STALE
   */
  setParameters(parameters: ParameterInput): void {
    this.#executor.host.set(parameters);
  }

  /** Fetches the parameters from the device, if training has changed them there. */
  async refreshParameters(): Promise<void> {
    await this.#executor.host.pull();
  }

  /** Names a parameter or running statistic that is not finite now, with its value; undefined where all are. @internal */
  async notFinite(): Promise<string | undefined> {
    await this.refreshParameters();
    return this.#executor.host.notFinite();
  }

  /** SHA-256 over all parameters and running statistics: equal where two networks are equal bit for bit. @throws RevNetError ERR_STALE */
  weightsSha256(): string {
    return this.#executor.host.sha256();
  }

  /** weightsSha256 without keeping the event loop for long. @internal */
  digest(): Promise<string> {
    return this.#executor.host.digest();
  }

  /**
   * The optimizer's state, such as `momentum.stem.conv.weight`: what a checkpoint needs beyond the parameters. After prepareTraining.
   * @internal
   */
  optimizerState(): Promise<ReadonlyMap<string, ParameterTensor>> {
    return this.#executor.host.optimizerState();
  }

  /** @internal */
  setOptimizerState(state: ReadonlyMap<string, ParameterTensor>): Promise<void> {
    return this.#executor.host.setOptimizerState(state);
  }

  /** setParameters for all of them at once, in pieces between which other work gets its turn. @internal */
  replaceParameters(parameters: ReadonlyMap<string, ParameterTensor>): Promise<void> {
    return this.#executor.host.replace(parameters);
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
   * @param pixels any count of images: [count][height][width][channels], 0 to 255; or an array of image files (JPEG, PNG, WebP, GIF, TIFF, AVIF), each its bytes,
   *   which are turned upright, resized, and cropped to their middle, as those of data sets are. They are copied before the call returns
   * @returns count * classes numbers; each image's sum to 1
   * @throws RevNetError ERR_INVALID_DATA naming the file by its index, if it cannot be decoded; ERR_SHARP_MISSING
   */
  async predict(pixels: Images | ImageFiles): Promise<Float32Array> {
    return images.softmax(await this.logits(pixels), this.spec.classes);
  }

  /**
   * What predict takes the softmax of: [count][classes], Float64Array on the reference.
   * @param pixels as predict's
   * @throws RevNetError as predict
   */
  async logits(pixels: Images | ImageFiles): Promise<RealArray> {
    const decoded = Array.isArray(pixels) ? await images.decodeImages(this.spec, pixels) : (pixels as Images);
    return this.#inference.logits(decoded, this.#preprocessing);
  }

  /**
   * Loss and error by the running statistics, on a split or on one of a data set's. Broken images of a stream are left out.
   * @param data its images have the shape of the network's input; a data set's classes are matched to the network's by name, and some may
   *   be absent. Its arrays are read until the promise is settled
   * @throws RevNetError ERR_INVALID_ARGUMENT, also for classes that the network has not; ERR_ABORTED between two batches; ERR_INVALID_DATA from a stream
   */
  async evaluate(data: AnyDataset | AnySplit, options: EvaluationOptions = {}): Promise<Evaluation> {
    const evaluation = await this.evaluateQuietly(data, options);
    this.#inference.warn(evaluation.outOfRange);
    return evaluation;
  }

  /** evaluate for callers that tell of values out of range themselves. @internal */
  evaluateQuietly(data: AnyDataset | AnySplit, options: EvaluationOptions): Promise<Evaluation> {
    return this.#inference.evaluate(data, options, this.#preprocessing, this.#classNames);
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
    return this.#probe.lossAndGradients(normalized, labels, checkActivations(options.activations));
  }

  /**
   * Runs one batch forward, then inverts each reversible block from its outputs, and compares: 0 exactly with fixed-point
   * streams. Keeps a copy of every block's inputs meanwhile, so its memory grows with depth.
   * @param pixels [n][height][width][channels], 0 to 255
   * @throws RevNetError ERR_NOT_REVERSIBLE where no block is
   */
  async reconstruct(pixels: Images): Promise<Reconstruction> {
    return this.#probe.reconstruct(pixels, this.#preprocessing);
  }

  /**
   * Records a training step. What it needs beyond the network (gradients, the optimizer's state, the data set) is allocated now and kept.
   * The optimizer's state begins at 0 and is the network's: steps prepared later go on with it.
   */
  async prepareTraining(options: TrainingOptions): Promise<TrainingStep> {
    return this.#preparation.training(options, this.#preprocessing.scale);
  }

  /**
   * Records what estimates the running statistics anew, from batches of the same kind of images as prepareTraining's.
   * @internal
   */
  prepareStatistics(options: TrainingOptions): StatisticsEstimation {
    return this.#preparation.statistics(options, this.#preprocessing.scale);
  }

  /**
   * Records what a training run is verified with: the images of the same steps, inverted and compared. Changes nothing of the network.
   * @throws RevNetError ERR_NOT_REVERSIBLE where no block is
   * @internal
   */
  async prepareVerification(options: TrainingOptions): Promise<Verification> {
    return this.#preparation.verification(options, this.#preprocessing.scale);
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

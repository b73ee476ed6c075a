/**
 * The whole contract between TypeScript and the native addon. native/core/ops.h says what each op does; native/binding
 * reads these objects. Every call throws an Error with a `code` (docs/errors.md) on bad input; none ends the process.
 */

/** `hidden` and `gradient` are reals that a device may store in fewer bits: hidden tensors, and gradients of streams. */
export type ElementType = "real" | "fixed" | "byte" | "index" | "hidden" | "gradient";
export type Category = "parameters" | "gradients" | "optimizer" | "activations" | "data";

/** `real` takes either float array and gives the backend's own; `fixed` takes and gives Float64Array in the stream's units. */
export type Values = Float32Array | Float64Array | Int32Array | Uint8Array;

/** Index of a buffer: the session's in the order they were added, then the program's locals. */
export type BufferId = number;

export interface BufferRecord {
  name: string;
  type: ElementType;
  elements: number;
  category: Category;
  /** A view of elements [offset, offset + elements) of an earlier buffer. */
  parent?: BufferId;
  offset?: number;
  /** A program's local that JavaScript writes before a run or reads after it. */
  pinned?: boolean;
}

/** x: [n][h][w][c], weight: [kernel][kernel][c][k], y: [n][outH][outW][k]; padding kernel / 2. */
export interface Convolution { n: number; h: number; w: number; c: number; k: number; kernel: number; stride: number }

/** Batch norm and ReLU on read; all absent: none. */
export interface Norm { statistics?: BufferId; gamma?: BufferId; beta?: BufferId; epsilon?: number }
export interface NormGradient { gammaGradient: BufferId; betaGradient: BufferId }
export interface Extent { n: number; h: number; w: number; c: number }

export type Layer = Norm & { convolution: Convolution; weight: BufferId };
export type LayerGradient = Partial<NormGradient> & { weightGradient: BufferId };

export type Op =
  | ({ op: "gatherBatch"; count: number; padding: number; flip: boolean; scale: number; images: BufferId; labels: BufferId;
      indices: BufferId; mean: BufferId; counter: BufferId; y: BufferId; yLabels: BufferId; notFinite?: BufferId } & Extent)
  | ({ op: "convolutionForward"; convolution: Convolution; x: BufferId; weight: BufferId; y: BufferId; yStatistics?: BufferId;
      outOfRange?: BufferId } & Norm)
  | { op: "convolutionBackwardData"; convolution: Convolution; weight: BufferId; dy: BufferId; dx: BufferId }
  | ({ op: "convolutionBackwardWeights"; convolution: Convolution; x: BufferId; dy: BufferId; weightGradient: BufferId } & Norm)
  | ({ op: "batchNormReluForward"; x: BufferId; y: BufferId[]; outOfRange?: BufferId } & Extent & Norm)
  | ({ op: "batchNormReluBackward"; x: BufferId; dy: BufferId[]; dx: BufferId } & Extent & Norm & NormGradient)
  | { op: "updateRunningStatistics"; c: number; count: number; momentum: number; statistics: BufferId; running: BufferId;
      notFinite?: BufferId }
  | ({ op: "shortcutForward"; k: number; stride: number; x: BufferId; y: BufferId } & Extent)
  | ({ op: "shortcutBackward"; k: number; stride: number; dy: BufferId; dx: BufferId } & Extent)
  | ({ op: "maxPoolForward"; x: BufferId; y: BufferId[]; argmax: BufferId; outOfRange?: BufferId } & Extent & Norm)
  | ({ op: "maxPoolBackward"; dy: BufferId[]; argmax: BufferId; dx: BufferId } & Extent)
  | ({ op: "globalAveragePoolForward"; parts: (Norm & { x: BufferId })[]; y: BufferId } & Extent)
  | ({ op: "globalAveragePoolBackward"; parts: (Norm & NormGradient & { x: BufferId; dx: BufferId })[]; dy: BufferId } & Extent)
  | { op: "linearForward"; n: number; in: number; out: number; x: BufferId; weight: BufferId; bias: BufferId; y: BufferId }
  | { op: "linearBackward"; n: number; in: number; out: number; x: BufferId; weight: BufferId; dy: BufferId; dx: BufferId;
      weightGradient: BufferId; biasGradient: BufferId }
  | { op: "softmaxCrossEntropy"; n: number; classes: number; x: BufferId; labels: BufferId; loss: BufferId; correct: BufferId; dx?: BufferId }
  | { op: "residualForward"; function: Layer[]; computeStatistics: boolean; x: BufferId; base: BufferId; y: BufferId; hidden: BufferId[];
      yStatistics?: BufferId; outOfRange?: BufferId }
  | { op: "residualBackward"; function: Layer[]; gradient: LayerGradient[]; x: BufferId; hidden: BufferId[]; dy: BufferId; dx: BufferId }
  | { op: "reversibleForward"; f: Layer[]; g: Layer[]; computeStatistics: boolean; stream1: BufferId; stream2: BufferId; hidden: BufferId[];
      statistics1?: BufferId; statistics2?: BufferId; outOfRange?: BufferId }
  | { op: "reversibleInverse"; f: Layer[]; g: Layer[]; stream1: BufferId; stream2: BufferId; hidden: BufferId[] }
  | { op: "reversibleBackward"; f: Layer[]; g: Layer[]; fGradient: LayerGradient[]; gGradient: LayerGradient[]; stream1: BufferId;
      stream2: BufferId; gradient1: BufferId; gradient2: BufferId; hidden: BufferId[] }
  | { op: "sgdUpdate"; elements: number; decayed: number; parameters: BufferId; gradients: BufferId; momenta: BufferId; hyperparameters: BufferId;
      notFinite?: BufferId }
  | { op: "adamwUpdate"; elements: number; decayed: number; parameters: BufferId; gradients: BufferId; mean: BufferId; square: BufferId;
      hyperparameters: BufferId; notFinite?: BufferId }
  | { op: "clipGradientNorm"; elements: number; maxNorm: number; gradients: BufferId; norm: BufferId }
  | { op: "copy"; elements: number; x: BufferId; y: BufferId }
  | { op: "maximumDifference"; elements: number; a: BufferId; b: BufferId; y: BufferId };

/** Bytes. */
export interface MemoryReport {
  parameters: number; gradients: number; optimizer: number; activations: number; workspace: number; data: number; total: number;
}

/**
 * A run of elements in a flat buffer, drawn as [out][in][taps] and kept as [taps][in][out]. `value` is the constant, the limit of the
 * uniform, or the deviation of the normal before it is cut at two of them; `stream` numbers the tensor's random numbers.
 */
export interface InitialTensor {
  distribution: "constant" | "uniform" | "truncatedNormal";
  value: number; stream: number; offset: number; out: number; in: number; taps: number;
}

export interface DeviceOptions {
  /** "reference", "cpu", "cuda" or "cuda:N". */
  device: string;
  /** CPU threads, at least 1. */
  threads: number;
  /** CPU instruction set: "auto" (default), "avx512", "avx2", "portable". */
  isa?: string;
  /** What convolutions multiply, and hidden tensors are stored as; default "float32", the only one of CPU and reference. */
  precision?: "float32" | "tf32" | "bfloat16";
  /** What gradients of streams are stored as; default "bfloat16" where that is the precision, otherwise "float32". */
  streamGradients?: "float32" | "bfloat16";
  /** Tests: fill the arena and the workspace with NaN before each run. */
  poison?: boolean;
}

/** A device, one network's buffers on it, and its programs. Work runs in order on the session's own thread. */
export class Session {
  constructor(options: DeviceOptions);
  /** One line for people: instruction set and threads, or the GPU. */
  readonly description: string;
  /** Bytes of an element on this device. */
  elementBytes(type: ElementType): number;
  /** Held until dispose, zeroed. Returns soon however large it is: memory is given to it by the session's thread. */
  addBuffer(buffer: BufferRecord): BufferId;
  /** Checks and plans; returns the program's number. Ids from the present number of session buffers on are `locals`. */
  addProgram(program: { locals: BufferRecord[]; ops: Op[] }): number;
  /** Writes the inputs, runs the program, resolves with the outputs. Rejects with ERR_DISPOSED if disposed meanwhile. */
  run(program: number, inputs: [BufferId, Values][], outputs: BufferId[]): Promise<Values[]>;
  /** Session buffers, or elements from `first` on; ordered with runs. `fixed` as Float64Array. Values are copied on the calling thread. */
  read(buffer: BufferId, first?: number, elements?: number): Promise<Values>;
  write(buffer: BufferId, values: Values, first?: number): Promise<void>;
  /** Draws a buffer's initial values on the session's thread; zeros where no tensor lies. Ordered with runs. */
  initialize(buffer: BufferId, seed: bigint, tensors: InitialTensor[]): Promise<void>;
  /** What is allocated now. Activations and workspace are allocated by the first run. */
  allocated(): MemoryReport;
  /** What will be allocated once the program has run. */
  planned(program: number): MemoryReport;
  /** Stops after the running op, frees everything; waiting and later calls reject with ERR_DISPOSED. Idempotent. Never blocks on a step. */
  dispose(): void;
}

export interface NativeDevice { name: string; available: boolean; description: string }

/** Plans without allocating: the same report as `planned` on a session with these buffers. */
export function plan(options: DeviceOptions, buffers: BufferRecord[], program: { locals: BufferRecord[]; ops: Op[] }): MemoryReport & { live: number };
export function devices(): NativeDevice[];
/** Session.initialize's values, drawn now into an array, which is returned. */
export function initialValues<T extends Float32Array | Float64Array>(seed: bigint, tensors: InitialTensor[], values: T): T;
/** Bytes that can be allocated on the device now; of the host's memory, without swapping or meeting a container's limit, unless it is a CUDA device. */
export function availableMemory(device: string): number;
/**
 * Locks the file of an open descriptor against all who open it anew, until the descriptor is closed or the process ends, however it
 * ends. Whether it is locked now; false: another has it; null: this file system has no such locks. Never waits.
 */
export function tryLock(descriptor: number): boolean | null;
/**
 * How the addon was built and what the machine offers, for `revnet doctor`. `cuda`: the toolkit it was built with;
 * `cudaArchitectures`: what it has code for; `cudaDriver`: the newest CUDA that the machine's driver knows.
 */
export function buildInfo(): { version: string; compiler: string; cuda: string | null; cudaArchitectures: string[]; cudaDriver: string | null; isas: string[]; napiVersion: number };
/**
 * Philox4x32-10: draws of 32 bits, as many as `words` says or, where it is an array, into it; returned. Draw i is word i % 4
 * of the block at position i / 4 (native/core/philox.h).
 */
export function philox(seed: bigint, streamLow: number, streamHigh: number, purpose: "initialization" | "shuffle" | "augmentation" | "dataset", words: number | Uint32Array): Uint32Array;

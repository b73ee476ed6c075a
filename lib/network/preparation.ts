/** From options to a training step, or to its verification, that is ready to run: programs recorded, buffers allocated, data sent. */
import type { BufferId, Values } from "../../binding.js";
import type { Split } from "../data/dataset.js";
import { RevNetError } from "../errors.js";
import { number } from "../kinds.js";
import { OPTIMIZER_NAMES, type OptimizerName } from "../optimizers/index.js";
import { checkBoolean, checkChoice, checkInteger, checkOptions } from "../validation.js";
import type { DeviceChoice } from "./device.js";
import type { DeviceSplit, Executor } from "./executor.js";
import { checkSplit, imageElements } from "./images.js";
import { explainMemory } from "./memory.js";
import { type ImageSource, statisticsProgram, trainingProgram } from "./program.js";
import { MAX_BATCH } from "./recipe.js";
import { ACTIVATIONS, type Activations, type Streams } from "./recorder.js";
import type { NetworkSpec } from "./spec.js";
import { StatisticsEstimation } from "./statistics.js";
import { norms, type Topology } from "./topology.js";
import { BatchGiver, TrainingStep } from "./training-step.js";
import { Verification } from "./verification.js";

const CODE = "ERR_INVALID_ARGUMENT";

/** The largest norm of all gradients together. */
export const GRADIENT_NORM = number(0, 1e6);

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
  /** What makes the step; its settings are each step's. Default "sgd". */
  readonly optimizer?: OptimizerName;
  /** Gradients are scaled down where the norm of all of them is larger; default: never. */
  readonly maxGradientNorm?: number | undefined;
}

export class Preparation {
  constructor(
    private readonly topology: Topology,
    private readonly executor: Executor,
    private readonly streams: Streams,
    private readonly device: DeviceChoice["options"],
  ) {}

  /** See Network.prepareTraining. @param scale of the preprocessing; the mean lies on the device */
  async training(options: TrainingOptions, scale: number): Promise<TrainingStep> {
    checkOptions(options, ["batchSize", "activations", "data", "bytes", "padding", "flip", "optimizer", "maxGradientNorm"]);
    const { topology, streams, executor } = this;
    const { spec } = topology;
    const n = checkInteger(options.batchSize, 1, MAX_BATCH, "batchSize", CODE);
    const activations = checkActivations(options.activations);
    const few = norms(topology).find(({ pixels }) => n * pixels < 2);
    if (few)
      throw new RevNetError(
        CODE,
        `batchSize: ${few.name} would have one value per channel, which has no variance; expected at least 2`,
      );
    const optimizer = checkChoice(options.optimizer ?? "sgd", OPTIMIZER_NAMES, "optimizer", CODE);
    const { maxGradientNorm } = options;
    if (maxGradientNorm !== undefined) GRADIENT_NORM.check(maxGradientNorm, "maxGradientNorm");
    const [source, batch] = this.#source(options, scale);
    const memory = { batchSize: n, activations, streams, optimizer, images: options.data?.count, ...this.device };
    const withinMemory = <T>(work: () => Promise<T>) => explainMemory(spec, memory, () => executor.session.allocated().total, work);
    const recorded = await withinMemory(async () =>
      executor.program(`training ${n} ${activations} ${optimizer} ${maxGradientNorm} ${JSON.stringify(source)}`, (buffers) =>
        trainingProgram(topology, buffers, { n, activations, streams, source, optimizer, maxGradientNorm }),
      ),
    );
    if (options.data) await executor.sendSplit(options.data);
    const run = (inputs: [BufferId, Values][], outputs: BufferId[]) => {
      executor.host.markTrained();
      return withinMemory(() => executor.run(recorded, inputs, outputs));
    };
    const giver = new BatchGiver(spec, recorded.program, batch);
    return new TrainingStep(recorded.program, optimizer, run, () => executor.session.planned(recorded.id), giver);
  }

  /** See Network.prepareStatistics. */
  statistics(options: TrainingOptions, scale: number): StatisticsEstimation {
    const [source, batch] = this.#source(options, scale);
    const { batchSize: n } = options;
    const recorded = this.executor.program(`statistics ${n} ${JSON.stringify(source)}`, (buffers) =>
      statisticsProgram(this.topology, buffers, { n, streams: this.streams, source }),
    );
    return new StatisticsEstimation(this.executor, recorded, new BatchGiver(this.topology.spec, recorded.program, batch));
  }

  /** See Network.prepareVerification. */
  async verification(options: TrainingOptions, scale: number): Promise<Verification> {
    const [source, batch] = this.#source(options, scale);
    const verification = new Verification(this.topology, this.executor, options.batchSize, this.streams, source, batch);
    if (options.data) await this.executor.sendSplit(options.data);
    return verification;
  }

  /** Where the images of a training step come from; those that come as bytes are a data set of one batch, written anew for each step. */
  #source(options: TrainingOptions, scale: number): [source: ImageSource, batch: DeviceSplit | undefined] {
    const { spec } = this.topology;
    const augment = augmentation(spec, options);
    const split = options.data === undefined ? undefined : checkSplit(spec, options.data);
    const batch = options.bytes ? this.executor.addBatch(options.batchSize, imageElements(spec)) : undefined;
    const device = batch ?? (split && this.executor.addSplit(split));
    if (!device) return [{ type: "real" }, undefined];
    return [{ type: "dataset", ...device, ...augment, scale }, batch];
  }
}

export function checkActivations(value: unknown): Activations {
  return checkChoice(value ?? "reversible", ACTIVATIONS, "activations", CODE);
}

function augmentation({ input: [h, w] }: NetworkSpec, { padding = 0, flip = false }: TrainingOptions) {
  return { padding: checkInteger(padding, 0, Math.min(h, w), "padding", CODE), flip: checkBoolean(flip, "flip", CODE) };
}

/** trainRevNet: from options to a network that is ready to be trained. */
import type { Dataset } from "../data/dataset.js";
import { meanImage } from "../data/dataset.js";
import { openDataset } from "../data/open.js";
import { RevNetError } from "../errors.js";
import { createNetwork } from "../network/network.js";
import { resolveOptions, type Settings, specFor, type TrainOptions } from "./options.js";
import { type TrainingResult, TrainingRun } from "./run.js";
import { type Send, Trainer, throwIfAborted } from "./trainer.js";

/** Images come as bytes and enter the network as (byte - mean) / 255. */
const SCALE = 1 / 255;

/**
 * Trains a network by SGD with momentum. The run begins at once; `await` it for the trained network, its history and the
 * summary, and iterate over it for events (see TrainingRun).
 *
 * The run fails with a RevNetError: ERR_INVALID_ARGUMENT, ERR_INVALID_SPEC, ERR_UNKNOWN_MODEL (options), ERR_INVALID_DATA (data
 * set), ERR_DEVICE_UNAVAILABLE, ERR_OUT_OF_MEMORY, ERR_NOT_FINITE (the loss became NaN or infinite), ERR_ABORTED (`signal`),
 * ERR_FILE, ERR_RUN_EXISTS, ERR_RUN_LOCKED (`outDir`), ERR_RESUME_MISMATCH (`resume` with other options),
 * ERR_NOT_REVERSIBLE (`verifyEvery` for a network without a reversible block), ERR_UI (`ui`).
 */
export function trainRevNet(options: TrainOptions): TrainingRun {
  return new TrainingRun((send) => train(resolveOptions(options), send));
}

async function train(settings: Settings, send: Send): Promise<TrainingResult> {
  throwIfAborted(settings.signal, 0);
  const dataset = await openData(settings);
  throwIfAborted(settings.signal, 0);
  const spec = specFor(settings.model, dataset);
  if (settings.batchSize > dataset.train.count)
    throw new RevNetError(
      "ERR_INVALID_ARGUMENT",
      `batchSize: ${settings.batchSize} is more than the ${dataset.train.count} training images of ${dataset.name}`,
    );
  const image = await meanImage(dataset.train);
  const { device, seed, threads, streams } = settings;
  const network = await createNetwork(spec, { device, seed, threads, streams });
  try {
    network.preprocessing = { mean: image, scale: SCALE };
    return await new Trainer(settings, dataset, network, send).run();
  } catch (error) {
    network.dispose();
    throw error;
  }
}

async function openData({ data, dataDir, trainCount, testCount }: Settings): Promise<Dataset> {
  return typeof data === "string" ? openDataset(data, { dataDir, trainCount, testCount }) : data;
}

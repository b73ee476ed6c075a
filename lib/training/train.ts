/** trainRevNet: from options to a network that is ready to be trained. */
import { setImmediate } from "node:timers/promises";
import { unlessAborted } from "../data/abort.js";
import { type AnyDataset, type Dataset, meanImage } from "../data/dataset.js";
import { leftOutOf } from "../data/left-out.js";
import { openDataset } from "../data/open.js";
import { readDataset } from "../data/sequence.js";
import { RevNetError } from "../errors.js";
import { resolveModel } from "../network/models.js";
import { createNetwork } from "../network/network.js";
import type { EventChannel } from "./channel.js";
import type { TrainingEvent } from "./events.js";
import type { Send } from "./journal.js";
import type { Settings, TrainOptions } from "./options.js";
import { type TrainingResult, TrainingRun, throwIfAborted } from "./run.js";
import { resolveOptions, specFor } from "./settings.js";
import { Trainer } from "./trainer.js";

/** Images come as bytes and enter the network as (byte - mean) / 255. */
const SCALE = 1 / 255;
const READING = "training was aborted while it read the data";

/**
 * Trains a network, by default as its recipe says. The run begins at once; `await` it for the trained network, its history and the
 * summary, and iterate over it for events (see TrainingRun).
 *
 * The run fails with a RevNetError: ERR_INVALID_ARGUMENT, ERR_INVALID_SPEC, ERR_UNKNOWN_MODEL (options), ERR_INVALID_DATA (data
 * set), ERR_DEVICE_UNAVAILABLE, ERR_OUT_OF_MEMORY, ERR_NOT_FINITE and ERR_OUT_OF_RANGE (the run diverged; docs/numerics.md), ERR_ABORTED (`signal`),
 * ERR_FILE, ERR_RUN_EXISTS, ERR_RUN_LOCKED (`outDir`), ERR_RESUME_MISMATCH (`resume` with other options),
 * ERR_NOT_REVERSIBLE (`verifyEvery` for a network without a reversible block), ERR_UI (`ui`).
 */
export function trainRevNet(options: TrainOptions): TrainingRun {
  // Where paths lead is settled now: the process may go to another folder later.
  const cwd = process.cwd();
  return new TrainingRun((events) => train(resolveOptions(options, cwd), events));
}

async function train(settings: Settings, events: EventChannel<TrainingEvent>): Promise<TrainingResult> {
  const { signal } = settings;
  throwIfAborted(signal, 0);
  // A loop over the events that has stopped reading does not hold up an aborted run.
  const hurry = () => events.hurry();
  signal?.addEventListener("abort", hurry, { once: true });
  try {
    return await trainWith(settings, (event) => events.send(event));
  } finally {
    signal?.removeEventListener("abort", hurry);
  }
}

async function trainWith(settings: Settings, send: Send): Promise<TrainingResult> {
  const opening = openData(settings, send);
  let dataset: AnyDataset;
  try {
    dataset = await unlessAborted(opening, settings.signal, READING);
  } catch (error) {
    // It may be there yet, too late.
    void opening.then((late) => ("close" in late && typeof settings.data === "string" ? late.close() : undefined)).catch(() => {});
    throw error;
  }
  try {
    return await trainOn(dataset, settings, send);
  } finally {
    // A stream that was opened by the caller may be wanted again.
    if ("close" in dataset && typeof settings.data === "string") await dataset.close();
  }
}

async function trainOn(dataset: AnyDataset, settings: Settings, send: Send): Promise<TrainingResult> {
  throwIfAborted(settings.signal, 0);
  const spec = specFor(settings.model, dataset);
  const leftOut = leftOutOf(dataset);
  if (leftOut.count > 0) void send({ type: "leftOut", ...leftOut });
  if (settings.batchSize > dataset.train.count)
    throw new RevNetError(
      "ERR_INVALID_ARGUMENT",
      `batchSize: ${settings.batchSize} is more than the ${dataset.train.count} training images of ${dataset.name}`,
    );
  const onProgress = (done: number, total: number) => void send({ type: "data", done, total });
  const mean = "mean" in dataset ? dataset.mean(onProgress) : meanImage((dataset as Dataset).train);
  const image = await unlessAborted(mean, settings.signal, READING);
  const { device, seed, threads, streams, precision, streamGradients } = settings;
  // Making a deep network takes a turn of the event loop of its own, and what comes next as long again.
  await setImmediate();
  const network = createNetwork(spec, { device, seed, threads, streams, precision, streamGradients });
  try {
    await setImmediate();
    network.preprocessing = { mean: image, scale: SCALE };
    network.classNames = dataset.classes;
    return await new Trainer(settings, dataset, network, send).run();
  } catch (error) {
    network.dispose();
    throw error;
  }
}

async function openData(settings: Settings, send: Send): Promise<AnyDataset> {
  const { data, dataDir, trainCount, testCount, validationShare, brokenImages, signal } = settings;
  const shape = resolveModel(settings.model).input;
  if (typeof data !== "string") return readDataset(data, shape, signal);
  return openDataset(data, {
    dataDir,
    trainCount,
    testCount,
    validationShare,
    brokenImages,
    shape,
    ...(data === "image-folder" && { signal }),
    onWarning: ({ code, message }) => void send({ type: "warning", step: 0, code, message }),
  });
}

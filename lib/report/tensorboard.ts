/** A run's metrics as a file that TensorBoard reads. */
import path from "node:path";
import { Pacer } from "../data/pacer.js";
import { makeFolder, removeTemporaryFiles, writeFileAtomically } from "../files/atomic.js";
import { encodeEvent, fileHeader, type ScalarEvent } from "../formats/tfevents.js";
import type { RunFiles } from "./run-files.js";

/** One name, so that a run that is resumed replaces what it wrote before; TensorBoard looks for "tfevents" in it. */
const FILE = "events.out.tfevents.revnet";

/** In order. Metrics have no clock times: the last step counts as done now, and those before as long ago as they took. */
function events({ steps, validations, config }: RunFiles, now: number): ScalarEvent[] {
  const without = (values: Record<string, number | null>) =>
    Object.fromEntries(Object.entries(values).filter((entry): entry is [string, number] => entry[1] !== null));
  const tested = new Map(validations.map((row) => [row.step, row]));
  let wallTime = now - steps.reduce((sum, { milliseconds }) => sum + milliseconds, 0) / 1000;
  return steps.map(({ step, loss, error, learningRate, milliseconds }) => {
    wallTime += milliseconds / 1000;
    const test = tested.get(step);
    const imagesPerSecond = milliseconds > 0 ? (1000 * config.batchSize) / milliseconds : null;
    const training = { "loss/train": loss, "error/train": error, learning_rate: learningRate, images_per_second: imagesPerSecond };
    const split = test?.split ?? "test";
    const scalars = without({ ...training, ...(test && { [`loss/${split}`]: test.loss, [`error/${split}`]: test.error }) });
    return { wallTime, step, scalars };
  });
}

/** Writes tensorboard/events.out.tfevents.revnet into the run's folder. @throws RevNetError ERR_FILE */
export async function writeEvents(run: RunFiles): Promise<void> {
  const now = Date.now() / 1000;
  const records = [fileHeader(now)];
  const pacer = new Pacer();
  for (const event of events(run, now)) {
    records.push(encodeEvent(event));
    await pacer.breathe();
  }
  const folder = path.join(run.folder, "tensorboard");
  await makeFolder(folder);
  // TensorBoard would read what a run left that was killed while it wrote.
  await removeTemporaryFiles(folder);
  await writeFileAtomically(path.join(folder, FILE), [Buffer.concat(records)]);
}

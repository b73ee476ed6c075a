/** Removes from a run's folder what no run goes on from any more. */
import * as fs from "node:fs/promises";
import { RevNetError } from "../errors.js";
import { readCheckpoint } from "./checkpoint.js";
import { RunFolder } from "./folder.js";

export interface Cleaned {
  readonly removed: { readonly file: string; readonly bytes: number }[];
  /** The last checkpoint, from which the run goes on or which says that nothing is left to train; and the best one. */
  readonly kept: { readonly file: string; readonly bytes: number }[];
}

/**
 * Removes all checkpoints but the last and the best one. Nothing is removed where the last one is not whole: an earlier one would be
 * needed then.
 * @throws RevNetError ERR_FILE where the folder is no run's; ERR_RUN_LOCKED; ERR_INVALID_FILE where the last checkpoint is damaged
 */
export async function cleanRun(folder: string): Promise<Cleaned> {
  if (!(await RunFolder.isRun(folder)))
    throw new RevNetError("ERR_FILE", `'${folder}' is not the folder of a run: it has no config.json of one`);
  const run = await RunFolder.open(folder);
  try {
    const superfluous = await run.superfluousFiles();
    const kept = (await run.checkpointFiles()).filter((file) => !superfluous.includes(file));
    if (kept[0] !== undefined) await readCheckpoint(kept[0]);
    const sized = async (file: string) => ({ file, bytes: (await fs.stat(file)).size });
    const removed = [];
    for (const file of superfluous) {
      removed.push(await sized(file));
      await fs.rm(file);
    }
    return { removed, kept: await Promise.all(kept.map(sized)) };
  } catch (cause) {
    if (cause instanceof RevNetError) throw cause;
    throw new RevNetError("ERR_FILE", `cannot clean '${folder}': ${(cause as Error).message}`, { cause });
  } finally {
    await run.close();
  }
}

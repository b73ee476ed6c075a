/**
 * Trains argv[2], a model, in the folder argv[3], going on from what is there, and stops after step argv[4]; prints which steps it did
 * and, where that was to the end, the weights' SHA-256.
 */
import { RevNetError, trainRevNet } from "../../lib/index.js";

const options = { data: "shapes", trainCount: 30, testCount: 10, batchSize: 6, steps: 8, seed: 4, device: "cpu" } as const;

async function main(model: string, outDir: string, last: number): Promise<void> {
  const stop = new AbortController();
  const run = trainRevNet({ ...options, model, outDir, resume: true, signal: stop.signal });
  const steps: number[] = [];
  let weightsSha256: string | null = null;
  try {
    for await (const event of run)
      if (event.type === "step") {
        steps.push(event.step);
        if (event.step === last && last < options.steps) stop.abort();
      }
    const { network, summary } = await run;
    network.dispose();
    weightsSha256 = summary.weightsSha256;
  } catch (error) {
    if (!(error instanceof RevNetError && error.code === "ERR_ABORTED")) throw error;
  }
  console.log(JSON.stringify({ steps, weightsSha256 }));
}

void main(process.argv[2]!, process.argv[3]!, Number(process.argv[4]));

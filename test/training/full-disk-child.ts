/** Trains in argv[2] where files may not grow beyond the shell's `ulimit -f`, and prints how it went. */
import { trainRevNet } from "../../lib/index.js";
import { TINY_REVNET, tinyDataset } from "../support/tiny.js";

// Without a listener the signal would end the process; with one, the write fails, as on a full disk.
process.on("SIGXFSZ", () => {});

async function main(outDir: string): Promise<void> {
  const run = trainRevNet({
    model: TINY_REVNET,
    data: tinyDataset(),
    device: "cpu",
    threads: 1,
    batchSize: 16,
    steps: 100,
    checkpointEvery: 20,
    outDir,
    resume: true,
  });
  const warnings: string[] = [];
  for await (const event of run) if (event.type === "warning") warnings.push(`${event.step} ${event.code} ${event.message}`);
  const { network, summary, history, fileError } = await run;
  network.dispose();
  const steps = history.steps.length;
  console.log(JSON.stringify({ warnings, weightsSha256: summary.weightsSha256, steps, fileError: fileError?.message }));
}

void main(process.argv[2]!);

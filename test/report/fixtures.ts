/** Folders as runs write them, with figures that are easy to check. */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Analysis } from "../../lib/report/analysis.js";
import { dataUrl, encodePng } from "../../lib/report/png.js";
import { TINY_REVNET } from "../support/tiny.js";

/** What a page must not take for its own. */
export const HOSTILE = `</script><script>window.injected = 1</script><img src="x" onerror="window.injected = 1">'"&`;

const bytes = (activations: number) => ({
  parameters: 1000,
  gradients: 1000,
  optimizer: 1000,
  activations,
  workspace: 500,
  data: 200,
  total: activations + 3700,
});

export const stepLine = (step: number) =>
  JSON.stringify({ type: "step", step, epoch: 1, loss: 2 - step / 1000, error: 0.5, learningRate: 0.1, milliseconds: 20 });
export const validationLine = (step: number) =>
  JSON.stringify({ type: "validation", step, epoch: 1, loss: 2.5, error: 0.25, milliseconds: 5 });

/** `steps` lines of steps, with a validation after every tenth. */
export function metrics(steps: number): string {
  const lines = Array.from({ length: steps }, (_, i) =>
    (i + 1) % 10 === 0 ? [stepLine(i + 1), validationLine(i + 1)] : [stepLine(i + 1)],
  );
  return `${lines.flat().join("\n")}\n`;
}

/** The top left pixel is red, all others are blue. */
const redCorner = Uint8Array.from({ length: 4 * 5 * 3 }, (_, i) => (i === 0 || (i > 2 && i % 3 === 2) ? 255 : 0));

export function analysis(classes: readonly string[]): Analysis {
  const n = classes.length;
  return {
    classes,
    evaluation: {
      step: 20,
      images: 10 * n,
      confusion: classes.map((_, label) =>
        classes.map((_, prediction) => (label === prediction ? 7 : prediction === (label + 1) % n ? 3 : 0)),
      ),
      mistakes: [
        {
          index: 4,
          file: "photos/b/four.jpg",
          label: 0,
          prediction: 1,
          loss: 3.25,
          image: dataUrl(encodePng(redCorner, [4, 5, 3])),
        },
        { index: 9, file: null, label: 1, prediction: 0, loss: 1.5, image: null },
      ],
    },
    reconstruction: [
      { stage: 0, block: 1, error: 0 },
      { stage: 1, block: 1, error: 0 },
    ],
    memory: [1, 3, 9].map((factor) => ({ factor, blocks: 4 * factor, reversible: bytes(5000), stored: bytes(10_000 * factor) })),
  };
}

export interface Fixture {
  kind?: "revnet" | "resnet";
  steps?: number;
  name?: string;
  classes?: readonly string[];
  weightsSha256?: string;
  /** Images that could not be decoded. */
  broken?: readonly string[];
  outOfRange?: number;
  testLoss?: number;
  validationError?: number | null;
}

/** Writes the files of a complete run. */
export async function writeRun(
  folder: string,
  {
    steps = 20,
    name = "tiny",
    classes = ["cat", "dog", "owl"],
    weightsSha256 = "ab".repeat(32),
    broken = [],
    outOfRange = 0,
    testLoss = 2.5,
    validationError = null,
    kind = "revnet",
  }: Fixture = {},
): Promise<void> {
  const json = (file: string, value: unknown) => writeFile(path.join(folder, file), JSON.stringify(value));
  await mkdir(folder, { recursive: true });
  await json("config.json", { model: { ...TINY_REVNET, name, kind }, data: "quadrants", batchSize: 10, steps, outDir: folder });
  const brokenLines = broken.map(
    (file) => `${JSON.stringify({ type: "brokenImage", step: 1, file, reason: "the file is empty" })}\n`,
  );
  await writeFile(path.join(folder, "metrics.jsonl"), brokenLines.join("") + metrics(steps));
  await json("summary.json", {
    model: name,
    kind,
    parameters: 1234,
    activations: "reversible",
    streams: "fixed",
    precision: "float32",
    device: "cpu",
    threads: 1,
    seed: 0,
    batchSize: 10,
    steps,
    epochs: 1,
    trainLoss: 1.5,
    testLoss,
    testError: 0.25,
    validationLoss: null,
    validationError,
    stepMilliseconds: { median: 20, p10: 19, p90: 22 },
    imagesPerSecond: 500,
    memory: bytes(5000),
    reconstruction: { exact: true, outOfRange },
    weightsSha256,
  });
  await json("analysis.json", analysis(classes));
}

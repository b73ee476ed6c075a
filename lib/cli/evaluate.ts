/** revnet evaluate */
import { type AnyDataset, SPLIT_CHOICES, type SplitChoice } from "../data/dataset.js";
import { type DatasetOptions, openDataset } from "../data/open.js";
import { loadNetwork } from "../network/network.js";
import { type ClassScores, macroF1, namedScores } from "../network/scores.js";
import { shortNumber } from "../text.js";
import { checkChoice } from "../validation.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { DATA_FLAGS, DEVICE_FLAGS, deviceOptions } from "./flags.js";
import { Meter } from "./meter.js";
import { percent, print, printJson, table } from "./output.js";

const WORDS: Readonly<Record<SplitChoice, string>> = {
  train: "training images",
  validation: "validation images",
  test: "test images",
  all: "images",
};

/** Classes that fit a terminal. */
const MAX_SHOWN = 20;

function scoresTable(classes: readonly string[], scores: readonly ClassScores[]): string[] {
  const shown = namedScores(scores, classes, MAX_SHOWN);
  const cell = (value: number | null) => (value === null ? "-" : percent(value));
  return table([
    [scores.length > MAX_SHOWN ? `the ${shown.length} classes of lowest F1` : "class", "images", "precision", "recall", "F1"],
    ...shown.map(({ name, images, precision, recall, f1 }) => [name, String(images), cell(precision), cell(recall), cell(f1)]),
  ]);
}

export const evaluate = defineCommand({
  name: "evaluate",
  summary:
    "Loss, error, precision and recall by class, calibration and confusion matrix of a trained network on images of a data set, whose classes are matched by name.",
  positionals: "MODEL.safetensors",
  arity: [1, 1],
  flags: {
    ...DATA_FLAGS,
    split: { type: "string", value: "NAME", help: "train, validation, test (default) or all" },
    "batch-size": { type: "integer", help: "images at a time (default 100)" },
    ...DEVICE_FLAGS,
    ...JSON_FLAG,
  },
  interruptible: true,
  async run({ data, batchSize = 100, device, threads, precision, json, split = "test", ...options }, [file], { signal }) {
    const chosen = checkChoice(split, SPLIT_CHOICES, "--split", "ERR_INVALID_ARGUMENT");
    if (data === undefined) throw new UsageError("--data is missing: shapes, cifar-10, cifar-100 or image-folder");
    const network = await loadNetwork(file!, deviceOptions({ device, threads, precision }));
    const meter = new Meter("evaluated");
    let opened: AnyDataset | undefined;
    try {
      const known = data === "image-folder" && network.classNames ? { classes: network.classNames } : {};
      const dataset = await openDataset(data, { ...(options as DatasetOptions), ...known, shape: network.spec.input });
      opened = dataset;
      const result = await network.evaluateQuietly(dataset, { split: chosen, batchSize, signal, onProgress: meter.update });
      meter.clear();
      const classes = network.classNames ?? dataset.classes;
      const images = result.labels.filter((label) => label >= 0).length;
      const confusion = Array.from(result.confusion, (row) => Array.from(row));
      if (json) {
        printJson({
          model: network.spec.name,
          data,
          split: chosen,
          images,
          loss: result.loss,
          error: result.error,
          top5Error: result.top5Error,
          calibrationError: result.calibrationError,
          calibration: result.calibration,
          macroF1: macroF1(result.classScores),
          classes,
          classScores: result.classScores,
          confusion,
          brokenImages: result.broken,
          outOfRange: result.outOfRange,
        });
      } else {
        const top5 = result.top5Error === null ? "" : `, top-5 error ${percent(result.top5Error)}`;
        const f1 = macroF1(result.classScores);
        print([
          `${network.spec.name} on ${images} ${WORDS[chosen]} of ${data}: loss ${result.loss.toFixed(4)}, error ${percent(result.error)}${top5}`,
          `macro F1 ${f1 === null ? "-" : percent(f1)}, expected calibration error ${percent(result.calibrationError)}`,
        ]);
        print(["", ...scoresTable(classes, result.classScores)]);
        // Rows: the label; columns: the prediction. A hundred classes would not fit a terminal.
        if (classes.length <= MAX_SHOWN)
          print([
            "",
            ...table([["label \\ predicted", ...classes], ...confusion.map((row, i) => [classes[i]!, ...row.map(String)])]),
          ]);
      }
      if (!json && result.outOfRange > 0)
        print(
          `${shortNumber(result.outOfRange)} values left the range of the fixed-point streams, +-512; those batches were computed again on float32 streams`,
        );
      if (!json) for (const { file: name, reason } of result.broken) print(`left out: ${name}: ${reason}`);
      return 0;
    } finally {
      meter.clear();
      if (opened && "close" in opened) await opened.close();
      network.dispose();
    }
  },
});

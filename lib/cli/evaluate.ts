/** revnet evaluate */
import { type AnyDataset, SPLIT_CHOICES, type SplitChoice } from "../data/dataset.js";
import { type DatasetOptions, openDataset } from "../data/open.js";
import { loadNetwork } from "../network/network.js";
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

export const evaluate = defineCommand({
  name: "evaluate",
  summary: "Loss, error and confusion matrix of a trained network on images of a data set, whose classes are matched by name.",
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
          classes,
          confusion,
          brokenImages: result.broken,
          outOfRange: result.outOfRange,
        });
      } else {
        print(
          `${network.spec.name} on ${images} ${WORDS[chosen]} of ${data}: loss ${result.loss.toFixed(4)}, error ${percent(result.error)}`,
        );
        // Rows: the label; columns: the prediction. A hundred classes would not fit a terminal.
        if (classes.length <= 20)
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

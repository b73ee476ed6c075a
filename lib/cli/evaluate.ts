/** revnet evaluate */
import { openDataset } from "../data/open.js";
import { loadNetwork } from "../network/network.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { DATA_FLAGS, DEVICE_FLAGS, deviceOptions } from "./flags.js";
import { percent, print, printJson, table } from "./output.js";

export const evaluate = defineCommand({
  name: "evaluate",
  summary: "Loss, error and confusion matrix of a trained network on a data set's test images.",
  positionals: "MODEL.safetensors",
  arity: [1, 1],
  flags: {
    ...DATA_FLAGS,
    "batch-size": { type: "integer", help: "images at a time (default 100)" },
    ...DEVICE_FLAGS,
    ...JSON_FLAG,
  },
  interruptible: true,
  async run({ data, dataDir, trainCount, testCount, batchSize = 100, json, ...device }, [file], { signal }) {
    if (data === undefined) throw new UsageError("--data is missing: shapes, cifar-10 or cifar-100");
    const network = await loadNetwork(file!, deviceOptions(device));
    try {
      const dataset = await openDataset(data, { dataDir, trainCount, testCount });
      const result = await network.evaluate(dataset, { batchSize, signal });
      const confusion = Array.from(result.confusion, (row) => Array.from(row));
      if (json) {
        printJson({
          model: network.spec.name,
          data,
          images: dataset.test.count,
          loss: result.loss,
          error: result.error,
          classes: dataset.classes,
          confusion,
        });
      } else {
        print(
          `${network.spec.name} on ${dataset.test.count} test images of ${data}: loss ${result.loss.toFixed(4)}, error ${percent(result.error)}`,
        );
        // Rows: the label; columns: the prediction. A hundred classes would not fit a terminal.
        if (dataset.classes.length <= 20)
          print(
            `\n${table([["label", ...dataset.classes], ...confusion.map((row, i) => [dataset.classes[i]!, ...row.map(String)])])}`,
          );
      }
      return 0;
    } finally {
      network.dispose();
    }
  },
});

/** revnet evaluate */
import type { AnyDataset } from "../data/dataset.js";
import { type DatasetOptions, openDataset } from "../data/open.js";
import { loadNetwork } from "../network/network.js";
import { compareClasses } from "./classes.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { DATA_FLAGS, DEVICE_FLAGS, deviceOptions } from "./flags.js";
import { Meter } from "./meter.js";
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
  async run({ data, batchSize = 100, device, threads, precision, json, ...options }, [file], { signal }) {
    if (data === undefined) throw new UsageError("--data is missing: shapes, cifar-10, cifar-100 or image-folder");
    const network = await loadNetwork(file!, deviceOptions({ device, threads, precision }));
    const meter = new Meter("evaluated");
    let opened: AnyDataset | undefined;
    try {
      const dataset = await openDataset(data, { ...(options as DatasetOptions), shape: network.spec.input });
      opened = dataset;
      compareClasses(network, data, dataset.classes);
      const result = await network.evaluate(dataset, { batchSize, signal, onProgress: meter.update });
      meter.clear();
      const confusion = Array.from(result.confusion, (row) => Array.from(row));
      if (json) {
        printJson({
          model: network.spec.name,
          data,
          images: dataset.test.count - result.broken.length,
          loss: result.loss,
          error: result.error,
          classes: dataset.classes,
          confusion,
          brokenImages: result.broken,
        });
      } else {
        print(
          `${network.spec.name} on ${dataset.test.count - result.broken.length} test images of ${data}: loss ${result.loss.toFixed(4)}, error ${percent(result.error)}`,
        );
        // Rows: the label; columns: the prediction. A hundred classes would not fit a terminal.
        if (dataset.classes.length <= 20)
          print([
            "",
            ...table([
              ["label \\ predicted", ...dataset.classes],
              ...confusion.map((row, i) => [dataset.classes[i]!, ...row.map(String)]),
            ]),
          ]);
      }
      if (!json) for (const { file: name, reason } of result.broken) print(`left out: ${name}: ${reason}`);
      return 0;
    } finally {
      meter.clear();
      if (opened && "close" in opened) await opened.close();
      network.dispose();
    }
  },
});

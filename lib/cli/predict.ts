/** revnet predict */
import { readFile } from "node:fs/promises";
import { openDataset } from "../data/open.js";
import { RevNetError } from "../errors.js";
import { loadNetwork } from "../network/network.js";
import type { NetworkSpec } from "../network/spec.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { DATA_FLAGS, DEVICE_FLAGS, deviceOptions } from "./flags.js";
import { percent, print, printJson, table } from "./output.js";

interface Images {
  /** [names.length][height][width][channels] */
  bytes: Uint8Array;
  names: string[];
  classes: readonly string[];
  /** Right answers, where known. */
  labels?: Int32Array;
}

export const predict = defineCommand({
  name: "predict",
  summary: "Class probabilities of images: raw files of height x width x channels bytes each, or a data set's test images.",
  positionals: "MODEL.safetensors [FILE...]",
  arity: [1, Number.POSITIVE_INFINITY],
  flags: {
    ...DATA_FLAGS,
    count: { type: "integer", help: "with --data: the first N test images (default 10)" },
    ...DEVICE_FLAGS,
    ...JSON_FLAG,
  },
  async run({ data, dataDir, trainCount, testCount, count = 10, json, ...device }, [file, ...files]) {
    if ((data === undefined) === (files.length === 0)) throw new UsageError("give image files, or --data NAME for its test images");
    if (count < 1) throw new UsageError(`--count expects a positive integer, got ${count}`);
    const network = await loadNetwork(file!, deviceOptions(device));
    try {
      const images =
        data === undefined ? await readRaw(files, network.spec) : await readTest(data, { dataDir, trainCount, testCount }, count);
      const probabilities = await network.predict(images.bytes);
      const results = images.names.map((image, i) =>
        describe(images, image, i, probabilities.subarray(i * network.spec.classes, (i + 1) * network.spec.classes)),
      );
      if (json) printJson(results);
      else
        print(
          table([
            ["image", "class", "probability", ...(images.labels ? ["label"] : [])],
            ...results.map((result) => [
              result.image,
              result.class,
              percent(result.probability),
              ...(result.label === undefined ? [] : [result.label]),
            ]),
          ]),
        );
      return 0;
    } finally {
      network.dispose();
    }
  },
});

function describe({ classes, labels }: Images, image: string, i: number, probabilities: Float32Array) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  const name = (label: number) => classes[label] ?? `class ${label}`;
  return {
    image,
    class: name(best),
    probability: probabilities[best]!,
    ...(labels && { label: name(labels[i]!) }),
    probabilities: Array.from(probabilities),
  };
}

/** Each file holds one image as bytes, [height][width][channels], or several one after another. */
async function readRaw(files: string[], { input: [h, w, c] }: NetworkSpec): Promise<Images> {
  const imageBytes = h * w * c;
  const names: string[] = [];
  const parts: Buffer[] = [];
  for (const file of files) {
    const bytes = await readFile(file).catch((cause: Error) => {
      throw new RevNetError("ERR_FILE", `cannot read ${file}: ${cause.message}`, { cause });
    });
    if (bytes.length === 0 || bytes.length % imageBytes !== 0)
      throw new RevNetError(
        "ERR_INVALID_DATA",
        `${file}: ${bytes.length} bytes are not whole images of ${h} x ${w} x ${c} = ${imageBytes} raw bytes`,
      );
    const images = bytes.length / imageBytes;
    for (let i = 0; i < images; i++) names.push(images === 1 ? file : `${file}[${i}]`);
    parts.push(bytes);
  }
  return { bytes: new Uint8Array(Buffer.concat(parts)), names, classes: [] };
}

async function readTest(data: string, options: Parameters<typeof openDataset>[1], count: number): Promise<Images> {
  const { test, classes } = await openDataset(data, { ...options, testCount: options?.testCount ?? count });
  const shown = Math.min(count, test.count);
  return {
    bytes: test.images.subarray(0, (shown * test.images.length) / test.count),
    names: Array.from({ length: shown }, (_, i) => `test[${i}]`),
    classes,
    labels: test.labels.subarray(0, shown),
  };
}

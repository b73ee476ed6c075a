/** revnet predict */
import { readFile } from "node:fs/promises";
import { type Batch, inOrder } from "../data/dataset.js";
import { type DatasetOptions, openDataset } from "../data/open.js";
import { isEncoded, toPixels } from "../data/picture.js";
import { RevNetError } from "../errors.js";
import { loadNetwork } from "../network/network.js";
import type { NetworkSpec } from "../network/spec.js";
import { compareClasses } from "./classes.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { DATA_FLAGS, DEVICE_FLAGS, deviceOptions } from "./flags.js";
import { Meter } from "./meter.js";
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
  summary:
    "Class probabilities of images: JPEG, PNG or WebP files, raw files of height x width x channels bytes, or a data set's test images.",
  positionals: "MODEL.safetensors [FILE...]",
  arity: [1, Number.POSITIVE_INFINITY],
  flags: {
    ...DATA_FLAGS,
    count: { type: "integer", help: "with --data: the first N test images (default 10)" },
    ...DEVICE_FLAGS,
    ...JSON_FLAG,
  },
  async run({ data, count = 10, device, threads, precision, json, ...options }, [file, ...files]) {
    if ((data === undefined) === (files.length === 0))
      throw new UsageError("give either image files, or --data NAME for its test images");
    if (count < 1) throw new UsageError(`--count expects a positive integer, got ${count}`);
    const network = await loadNetwork(file!, deviceOptions({ device, threads, precision }));
    try {
      const images =
        data === undefined
          ? await readFiles(files, network.spec)
          : await readTest(data, { ...(options as DatasetOptions), shape: network.spec.input }, count);
      if (data !== undefined) compareClasses(network, data, images.classes);
      const classes = network.classNames ?? images.classes;
      const probabilities = await network.predict(images.bytes);
      const results = images.names.map((image, i) =>
        describe(
          { ...images, classes, labelNames: images.classes },
          image,
          i,
          probabilities.subarray(i * network.spec.classes, (i + 1) * network.spec.classes),
        ),
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

function describe(
  { classes, labelNames, labels }: Images & { labelNames: readonly string[] },
  image: string,
  i: number,
  probabilities: Float32Array,
) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  const name = (names: readonly string[], label: number) => names[label] ?? `class ${label}`;
  return {
    image,
    class: name(classes, best),
    probability: probabilities[best]!,
    ...(labels && { label: name(labelNames, labels[i]!) }),
    probabilities: Array.from(probabilities),
  };
}

/** Each file is a JPEG, PNG or WebP image; or holds images as bytes, [height][width][channels], one after another. */
async function readFiles(files: string[], { input }: NetworkSpec): Promise<Images> {
  const imageBytes = input[0] * input[1] * input[2];
  const names: string[] = [];
  const parts: Uint8Array[] = [];
  const meter = new Meter("reading image");
  for (const [i, file] of files.entries()) {
    const bytes = await readFile(file).catch((cause: Error) => {
      throw new RevNetError("ERR_FILE", `cannot read ${file}: ${cause.message}`, { cause });
    });
    if (isEncoded(bytes)) {
      parts.push(await toPixels(bytes, input, file));
      names.push(file);
    } else {
      if (bytes.length === 0 || bytes.length % imageBytes !== 0)
        throw new RevNetError(
          "ERR_INVALID_DATA",
          `${file}: not a JPEG, PNG or WebP file, and its ${bytes.length} bytes are not whole images of ${input.join(" x ")} = ${imageBytes} raw bytes`,
        );
      const images = bytes.length / imageBytes;
      for (let j = 0; j < images; j++) names.push(images === 1 ? file : `${file}[${j}]`);
      parts.push(bytes);
    }
    meter.update(i + 1, files.length);
  }
  meter.clear();
  return { bytes: new Uint8Array(Buffer.concat(parts)), names, classes: [] };
}

async function readTest(data: string, options: DatasetOptions, count: number): Promise<Images> {
  // The first ones: a folder's would be a sample if fewer were asked for.
  const folder = data === "image-folder";
  const dataset = await openDataset(data, { ...options, ...(!folder && { testCount: options.testCount ?? count }) });
  try {
    const shown = Math.min(count, dataset.test.count);
    const { images, labels } = (await inOrder(dataset.test, shown).next()).value as Batch;
    return {
      bytes: images,
      names: Array.from({ length: shown }, (_, i) => `test[${i}]`),
      classes: dataset.classes,
      labels,
    };
  } finally {
    if ("close" in dataset) await dataset.close();
  }
}

/** revnet predict */
import { stat } from "node:fs/promises";
import path from "node:path";
import { type Batch, inOrder } from "../data/dataset.js";
import { leftOutLine, summarizeLeftOut } from "../data/left-out.js";
import { type DatasetOptions, openDataset } from "../data/open.js";
import { IMAGE_FORMATS, isEncoded, MAX_IMAGE_BYTES, toPixels } from "../data/picture.js";
import { imagesIn } from "../data/walk.js";
import { RevNetError } from "../errors.js";
import { writeFileAtomically } from "../files/atomic.js";
import { readFile } from "../files/open.js";
import { csv } from "../formats/csv.js";
import { matchClasses } from "../network/classes.js";
import { argmax } from "../network/images.js";
import { loadNetwork, type Network } from "../network/network.js";
import { defineCommand, JSON_FLAG, UsageError } from "./command.js";
import { DATA_FLAGS, DEVICE_FLAGS, deviceOptions } from "./flags.js";
import { Meter } from "./meter.js";
import { percent, print, printError, printJson, table } from "./output.js";

/** Images that are classified at a time: so many are in memory. */
const BATCH = 64;
/** Extensions of files of raw pixels. */
const RAW = [".raw", ".bin", ".bytes"];

interface Prediction {
  image: string;
  class: string;
  probability: number;
  /** The right answer, where it is known. */
  label?: string;
  /** By class. */
  probabilities: number[];
}
interface Failure {
  image: string;
  error: string;
}
type Result = Prediction | Failure;

export const predict = defineCommand({
  name: "predict",
  summary:
    "Class probabilities of images: image files and folders of them; files of raw pixels (height x width x channels bytes; .raw, .bin, .bytes); or a data set's test images. A file that cannot be read is named, the others are classified, and the exit status is 1.",
  positionals: "MODEL.safetensors [FILE|DIR...]",
  arity: [1, Number.POSITIVE_INFINITY],
  flags: {
    ...DATA_FLAGS,
    count: { type: "integer", help: "with --data: the first N test images (default 10)" },
    raw: { type: "boolean", help: "all files are raw pixels, whatever their extensions" },
    csv: { type: "string", value: "FILE", help: "also write a line for each image to FILE, with the probabilities of all classes" },
    ...DEVICE_FLAGS,
    ...JSON_FLAG,
  },
  async run({ data, count = 10, raw = false, csv: csvFile, device, threads, precision, json, ...options }, [file, ...files]) {
    if ((data === undefined) === (files.length === 0))
      throw new UsageError("give either image files, or --data NAME for its test images");
    if (count < 1) throw new UsageError(`--count expects a positive integer, got ${count}`);
    const network = await loadNetwork(file!, deviceOptions({ device, threads, precision }));
    try {
      const { classes, results } =
        data === undefined
          ? { classes: namesOf(network), results: await classifyFiles(network, files, raw) }
          : await classifyTest(network, data, options as DatasetOptions, count);
      if (csvFile !== undefined) await writeFileAtomically(csvFile, [Buffer.from(csv(rowsOf(classes, results)))]);
      if (json) printJson({ model: network.spec.name, classes, images: results });
      else show(results);
      return results.some(isFailure) ? 1 : 0;
    } finally {
      network.dispose();
    }
  },
});

const isFailure = (result: Result): result is Failure => "error" in result;
const namesOf = ({ classNames, spec }: Network): readonly string[] =>
  classNames ?? Array.from({ length: spec.classes }, (_, label) => `class ${label}`);

/** For a file of comma-separated values: the first row is the heading. */
function rowsOf(classes: readonly string[], results: readonly Result[]): (string | number)[][] {
  const rows = results.map((result) =>
    isFailure(result)
      ? [result.image, "", "", "", result.error, ...classes.map(() => "")]
      : [result.image, result.class, result.probability, result.label ?? "", "", ...result.probabilities],
  );
  return [["image", "class", "probability", "label", "error", ...classes.map((name) => `p(${name})`)], ...rows];
}

function show(results: readonly Result[]): void {
  const predictions = results.filter((result): result is Prediction => !isFailure(result));
  const labelled = predictions.some(({ label }) => label !== undefined);
  if (predictions.length > 0)
    print(
      table([
        ["image", "class", "probability", ...(labelled ? ["label"] : [])],
        ...predictions.map((result) => [
          result.image,
          result.class,
          percent(result.probability),
          ...(result.label === undefined ? [] : [result.label]),
        ]),
      ]),
    );
  for (const { image, error } of results.filter(isFailure)) printError(`revnet: ${image}: ${error}`);
}

/** Of `images`, [names.length][height][width][channels]. */
async function classify(
  network: Network,
  images: Uint8Array,
  names: readonly string[],
  classes: readonly string[],
): Promise<Prediction[]> {
  const probabilities = await network.predict(images);
  const { length } = classes;
  return names.map((image, i) => {
    const own = probabilities.subarray(i * length, (i + 1) * length);
    const best = argmax(own);
    return { image, class: classes[best]!, probability: own[best]!, probabilities: Array.from(own) };
  });
}

/** Results of each file's images, or why it has none, in the order of the files. */
async function classifyFiles(network: Network, given: readonly string[], raw: boolean): Promise<Result[]> {
  const classes = namesOf(network);
  const results: Result[] = [];
  const meter = new Meter("reading image");
  const files = await expand(given);
  try {
    for (let first = 0; first < files.length; first += BATCH) {
      const names: string[] = [];
      const parts: Uint8Array[] = [];
      // A failure, or how many of the images are the file's.
      const read: (Failure | number)[] = [];
      for (const file of files.slice(first, first + BATCH))
        try {
          if (typeof file !== "string") throw file.reason;
          const { pixels, count } = await readImages(file, network, raw);
          for (let i = 0; i < count; i++) names.push(count === 1 ? file : `${file}[${i}]`);
          parts.push(pixels);
          read.push(count);
        } catch (error) {
          if (!(error instanceof RevNetError) || error.code === "ERR_SHARP_MISSING") throw error;
          read.push({ image: typeof file === "string" ? file : file.folder, error: error.message });
        }
      const predictions = names.length > 0 ? await classify(network, new Uint8Array(Buffer.concat(parts)), names, classes) : [];
      let next = 0;
      for (const entry of read)
        if (typeof entry !== "number") results.push(entry);
        else for (const end = next + entry; next < end; next++) results.push(predictions[next]!);
      meter.update(Math.min(files.length, first + BATCH), files.length);
    }
  } finally {
    meter.clear();
  }
  return results;
}

/** Files, and the images in folders; or why a folder has none. */
async function expand(given: readonly string[]): Promise<(string | { folder: string; reason: RevNetError })[]> {
  const files: (string | { folder: string; reason: RevNetError })[] = [];
  for (const file of given) {
    const stats = await stat(file).catch(() => undefined);
    if (!stats?.isDirectory()) {
      files.push(file);
      continue;
    }
    try {
      const { images, leftOut } = await imagesIn(file);
      if (images.length === 0) throw new RevNetError("ERR_INVALID_DATA", "a folder without images");
      for (const image of images) files.push(image);
      if (leftOut.length > 0) printError(`revnet: ${file}: ${leftOutLine(summarizeLeftOut(leftOut))}`);
    } catch (error) {
      if (!(error instanceof RevNetError)) throw error;
      files.push({ folder: file, reason: error });
    }
  }
  return files;
}

/** An image file; or one of raw pixels, which may hold several images one after the other. */
async function readImages(file: string, { spec }: Network, raw: boolean): Promise<{ pixels: Uint8Array; count: number }> {
  const bytes = await readFile(file, { limit: MAX_IMAGE_BYTES });
  const [height, width, channels] = spec.input;
  const imageBytes = height * width * channels;
  const isRaw = raw || RAW.includes(path.extname(file).toLowerCase());
  if (isRaw && bytes.length > 0 && bytes.length % imageBytes === 0) return { pixels: bytes, count: bytes.length / imageBytes };
  const pixels = `${spec.input.join(" x ")} = ${imageBytes} raw bytes`;
  if (isRaw) throw new RevNetError("ERR_INVALID_DATA", `its ${bytes.length} bytes are not whole images of ${pixels}`);
  if (!isEncoded(bytes))
    throw new RevNetError(
      "ERR_INVALID_DATA",
      `it is not a ${IMAGE_FORMATS} file (one of raw pixels is called *.raw, or goes with --raw: ${pixels})`,
    );
  return { pixels: await toPixels(bytes, spec.input, file), count: 1 };
}

async function classifyTest(
  network: Network,
  data: string,
  options: DatasetOptions,
  count: number,
): Promise<{ classes: readonly string[]; results: Result[] }> {
  // The first ones: a folder's would be a sample if fewer were asked for.
  const folder = data === "image-folder";
  const dataset = await openDataset(data, {
    ...options,
    ...(folder ? network.classNames && { classes: network.classNames } : { testCount: options.testCount ?? count }),
    shape: network.spec.input,
  });
  try {
    matchClasses(network.spec, network.classNames, dataset);
    const shown = Math.min(count, dataset.test.count);
    const { images, labels } = (await inOrder(dataset.test, shown).next()).value as Batch;
    const names = Array.from({ length: shown }, (_, i) => `test[${i}]`);
    const classes = network.classNames ?? dataset.classes;
    const predictions = await classify(network, images, names, classes);
    const results = predictions.map(({ probabilities, ...rest }, i) => ({
      ...rest,
      label: dataset.classes[labels[i]!] ?? "broken",
      probabilities,
    }));
    return { classes, results };
  } finally {
    if ("close" in dataset) await dataset.close();
  }
}

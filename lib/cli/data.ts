/** revnet data */
import type { AnyDataset, BrokenImage, LeftOut } from "../data/dataset.js";
import { DOWNLOADS, type DownloadName, downloadDataset } from "../data/download.js";
import { summarizeLeftOut } from "../data/left-out.js";
import { checkShape, DATASETS, openDataset } from "../data/open.js";
import { packFolder } from "../data/packing.js";
import type { Shape } from "../data/picture.js";
import { type SplitStatistics, splitStatistics } from "../data/statistics.js";
import { checkChoice } from "../validation.js";
import { defineCommand, type FlagValues, JSON_FLAG, UsageError } from "./command.js";
import { Meter } from "./meter.js";
import { bytes, print, printJson, table } from "./output.js";

const FLAGS = {
  "data-dir": { type: "string", value: "DIR", help: "folder of the data set's files" },
  size: { type: "string", value: "SIZE", help: "image-folder: N, HxW or HxWxC of the model's input (default 224x224x3)" },
  "validation-share": {
    type: "number",
    help: "share of each class's training images held out for validation (default: 0.1 of an image-folder without val/ and test/)",
  },
  url: { type: "string", value: "URL", help: "download: another place that has the archive" },
  md5: { type: "string", value: "MD5", help: "download: the archive's checksum, where it is another one" },
  ...JSON_FLAG,
} as const;
type Values = FlagValues<typeof FLAGS>;

/** Data sets that each action takes. */
const NAMES = { download: DOWNLOADS, inspect: DATASETS, pack: DATASETS } as const;

/** Broken files that are listed for people; --json has all. */
const SHOWN = 10;

export const data = defineCommand({
  name: "data",
  summary:
    "Data sets: download cifar-10 or cifar-100; inspect counts, classes, means and broken files; pack a folder of images, which makes it fast to read.",
  positionals: "download|inspect|pack NAME",
  arity: [2, 2],
  flags: FLAGS,
  interruptible: true,
  async run(values, [action, name], { signal }) {
    const chosen = checkChoice(action, ["download", "inspect", "pack"] as const, "data", "ERR_INVALID_ARGUMENT");
    checkChoice(name, NAMES[chosen], `data ${chosen}`, "ERR_INVALID_ARGUMENT");
    if (chosen === "pack" && name !== "image-folder")
      throw new UsageError(`only image-folder is packed; ${name} is in memory anyway`);
    if (values.dataDir === undefined && name !== "shapes")
      throw new UsageError(`--data-dir is missing: the folder of the files of ${name}`);
    if (chosen === "download") await download(name!, values, signal);
    else if (chosen === "inspect") await inspect(name!, values, signal);
    else await pack(values, signal);
    return 0;
  },
});

async function download(name: string, { dataDir, url, md5, json }: Values, signal: AbortSignal): Promise<void> {
  const meter = new Meter(`${name}:`, process.stderr, bytes);
  try {
    const result = await downloadDataset(name as DownloadName, { dataDir: dataDir!, url, md5, signal, onProgress: meter.update });
    meter.clear();
    if (json) printJson(result);
    else if (result.bytes === 0 && result.resumedFrom === 0) print(`${name} is in ${dataDir}`);
    else print(`${name}: received ${bytes(result.bytes)}, checksum right, ${result.files.length} files in ${dataDir}`);
  } finally {
    meter.clear();
  }
}

/** "224", "224x160" or "28x28x1". */
function readSize(text = "224x224x3"): Shape {
  const [height, width = height, channels = 3, ...rest] = text.split("x").map(Number);
  if (rest.length > 0 || [height, width, channels].some(Number.isNaN))
    throw new UsageError(`--size expects N, HxW or HxWxC, got '${text}'`);
  return checkShape([height, width, channels]);
}

async function inspect(name: string, { dataDir, size, validationShare, json }: Values, signal: AbortSignal): Promise<void> {
  const folder = name === "image-folder";
  const meter = new Meter("reading image");
  const dataset = await openDataset(name, {
    ...(dataDir !== undefined && { dataDir }),
    ...(folder && { shape: readSize(size) }),
    ...(validationShare !== undefined && { validationShare }),
  });
  try {
    const train = await splitStatistics(dataset.train, dataset, meter.update, signal);
    const validation = dataset.validation && (await splitStatistics(dataset.validation, dataset, meter.update, signal));
    const test = await splitStatistics(dataset.test, dataset, meter.update, signal);
    meter.clear();
    const { shape, classes } = dataset;
    const leftOut = "leftOut" in dataset ? (dataset.leftOut ?? []) : [];
    const splits = { train, ...(validation && { validation }), test };
    if (json) printJson({ data: name, shape, classes, ...splits, leftOut });
    else {
      printStatistics(dataset, splits);
      printLeftOut(leftOut);
    }
  } finally {
    meter.clear();
    if ("close" in dataset) await dataset.close();
  }
}

type Statistics = Partial<Record<"train" | "validation" | "test", Awaited<ReturnType<typeof splitStatistics>>>>;
const SPLIT_WORDS = { train: "training", validation: "validation", test: "test" } as const;

function printStatistics({ name, shape, classes }: AnyDataset, splits: Statistics): void {
  const found = Object.entries(splits) as [keyof typeof SPLIT_WORDS, SplitStatistics][];
  const counts = found.map(([split, { images }]) => `${images} ${SPLIT_WORDS[split]}`);
  print([
    `${name}: ${counts.slice(0, -1).join(", ")} and ${counts.at(-1)} images of ${classes.length} classes, ${shape.join("x")} (height x width x channels)`,
    "",
  ]);
  const rows = classes.map((label, i) => [label, ...found.map(([, { perClass }]) => String(perClass[i]))]);
  print(table([["class", ...found.map(([split]) => split)], ...rows]));
  const train = splits.train!;
  const channels = shape[2] === 3 ? ["red", "green", "blue"] : Array.from({ length: shape[2] }, (_, i) => `channel ${i}`);
  const statistics = channels.map((label, i) => [label, train.mean[i]!.toFixed(2), train.deviation[i]!.toFixed(2)]);
  print(["", ...table([["training images", "mean", "deviation"], ...statistics])]);
  printBroken(found.flatMap(([, { broken }]) => broken));
}

function printLeftOut(leftOut: readonly LeftOut[]): void {
  if (leftOut.length === 0) return;
  const { count, reasons } = summarizeLeftOut(leftOut);
  print(["", `${count} left out:`]);
  for (const entry of reasons) {
    print(`  ${entry.count} ${entry.reason}:`);
    for (const file of entry.files) print(`    ${file}`);
    if (entry.count > entry.files.length) print(`    and ${entry.count - entry.files.length} more (--json lists all)`);
  }
}

function printBroken(broken: readonly BrokenImage[]): void {
  if (broken.length === 0) return;
  print(["", `${broken.length} broken ${broken.length === 1 ? "image" : "images"}:`]);
  for (const { file, reason } of broken.slice(0, SHOWN)) print(`  ${file}: ${reason}`);
  if (broken.length > SHOWN) print(`  and ${broken.length - SHOWN} more (--json lists all)`);
}

async function pack({ dataDir, size, json }: Values, signal: AbortSignal): Promise<void> {
  const meter = new Meter("packing image");
  try {
    const result = await packFolder(dataDir!, readSize(size), { onProgress: meter.update, signal });
    meter.clear();
    if (json) {
      printJson(result);
      return;
    }
    print(`${result.file}: ${result.images} images, ${bytes(result.bytes)}`);
    printBroken(result.broken);
    printLeftOut(result.leftOut);
  } finally {
    meter.clear();
  }
}

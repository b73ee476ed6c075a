/** Reads the files of a run. They may come from anywhere: what a report shows of them is checked here. */
import path from "node:path";
import { RevNetError } from "../errors.js";
import { parseJson, readJson } from "../files/json.js";
import { isAbsent, OpenFile } from "../files/open.js";
import type { MemoryReport } from "../native/index.js";
import type { CalibrationBin } from "../network/scores.js";
import type { Analysis } from "./analysis.js";
import { type Check, count, flag, list, nullable, number, optional, record, text } from "./checks.js";

export interface StepRow {
  step: number;
  loss: number | null;
  error: number;
  learningRate: number;
  milliseconds: number;
}
export interface ValidationRow {
  step: number;
  /** Absent in files of earlier builds, which do not say which. */
  split?: string | undefined;
  loss: number | null;
  error: number;
}
export interface VerificationRow {
  step: number;
  maxError: number | null;
  cosine: number | null;
  blocks: { stage: number; block: number; error: number | null }[];
}
/** What a report shows of summary.json. */
export interface SummaryRow {
  model: string;
  kind: string;
  parameters: number;
  activations: string;
  streams: string;
  precision: string;
  device: string;
  batchSize: number;
  steps: number;
  epochs: number;
  trainLoss: number | null;
  testLoss: number | null;
  testError: number | null;
  /** Null, or absent in files of earlier builds, without a validation split. */
  validationLoss: number | null | undefined;
  validationError: number | null | undefined;
  stepMilliseconds: { median: number };
  imagesPerSecond: number;
  memory: MemoryReport;
  reconstruction: { exact: boolean | null; outOfRange: number };
  weightsSha256: string;
  leftOut: { count: number; reasons: { reason: string; count: number; files: string[] }[] } | undefined;
}
export interface Config {
  model: { name: string; kind?: string | undefined; units: number[] };
  batchSize: number;
  /** Of the whole run, as it was planned. */
  steps: number;
}

export interface RunFiles {
  folder: string;
  config: Config;
  /** All of config.json, for showing. */
  settings: Record<string, unknown>;
  steps: StepRow[];
  /** How many steps each of `steps` is the mean of; absent: one. */
  stepsEach?: number;
  validations: ValidationRow[];
  verifications: VerificationRow[];
  /** Images that could not be decoded: what is wrong with each file. */
  brokenImages: Map<string, string>;
  /** Whether the last line of metrics.jsonl is incomplete, as a run leaves it that is ended while writing. */
  torn: boolean;
  /** undefined: the file is missing, since the run goes on or was ended from outside. */
  summary: SummaryRow | undefined;
  analysis: Analysis | undefined;
}

const MAX_FILE_BYTES = 2 ** 26;
const MAX_LINE_BYTES = 2 ** 20;

const memoryReport = record<MemoryReport>({
  parameters: count,
  gradients: count,
  optimizer: count,
  activations: count,
  workspace: count,
  data: count,
  total: count,
});
const stepRow = record<StepRow>({
  step: count,
  loss: nullable(number),
  error: number,
  learningRate: number,
  milliseconds: number,
});
const validationRow = record<ValidationRow>({ step: count, split: optional(text), loss: nullable(number), error: number });
const blockErrors = list(record({ stage: count, block: count, error: nullable(number) }));
const verificationRow = record<VerificationRow>({
  step: count,
  maxError: nullable(number),
  cosine: nullable(number),
  blocks: blockErrors,
});
const brokenRow = record<{ file: string; reason: string }>({ file: text, reason: text });
const config = record<Config>({
  model: record<Config["model"]>({ name: text, kind: optional(text), units: list(count) }),
  batchSize: count,
  steps: count,
});
const summary = record<SummaryRow>({
  model: text,
  kind: text,
  parameters: count,
  activations: text,
  streams: text,
  precision: text,
  device: text,
  batchSize: count,
  steps: count,
  epochs: number,
  trainLoss: nullable(number),
  testLoss: nullable(number),
  testError: nullable(number),
  validationLoss: optional(nullable(number)),
  validationError: optional(nullable(number)),
  stepMilliseconds: record({ median: number }),
  imagesPerSecond: number,
  memory: memoryReport,
  reconstruction: record<SummaryRow["reconstruction"]>({ exact: nullable(flag), outOfRange: count }),
  weightsSha256: text,
  leftOut: optional(
    record<NonNullable<SummaryRow["leftOut"]>>({
      count,
      reasons: list(record<NonNullable<SummaryRow["leftOut"]>["reasons"][number]>({ reason: text, count, files: list(text) })),
    }),
  ),
});
const png: Check<string> = (value, where) => {
  if (/^data:image\/png;base64,[A-Za-z0-9+/]+=*$/.test(text(value, where))) return value as string;
  throw new RevNetError("ERR_INVALID_FILE", `${where}: expected a PNG image as a data URL`);
};
const analysisFile = record<Analysis>({
  classes: list(text),
  evaluation: nullable(
    record<NonNullable<Analysis["evaluation"]>>({
      step: count,
      images: count,
      top5Error: optional(nullable(number)),
      calibrationError: optional(number),
      calibration: optional(
        list(record<CalibrationBin>({ images: count, confidence: nullable(number), accuracy: nullable(number) })),
      ),
      confusion: nullable(list(list(count))),
      mistakes: list(
        record({
          index: count,
          file: optional(nullable(text)),
          label: count,
          prediction: count,
          loss: number,
          image: nullable(png),
        }),
      ),
    }),
  ),
  reconstruction: nullable(blockErrors),
  memory: list(record({ factor: count, blocks: count, reversible: memoryReport, stored: memoryReport })),
});

function analysis(value: unknown, where: string): Analysis {
  const checked = analysisFile(value, where);
  const classes = checked.classes.length;
  const { confusion = null, mistakes = [] } = checked.evaluation ?? {};
  if (confusion && (confusion.length !== classes || confusion.some((row) => row.length !== classes)))
    throw new RevNetError("ERR_INVALID_FILE", `${where}.evaluation.confusion: expected ${classes} x ${classes} counts`);
  if (mistakes.some(({ label, prediction }) => label >= classes || prediction >= classes))
    throw new RevNetError("ERR_INVALID_FILE", `${where}.evaluation.mistakes: expected classes from 0 to ${classes - 1}`);
  return checked;
}

/**
 * @throws RevNetError ERR_FILE where the folder holds no run or a file cannot be read, ERR_INVALID_FILE where one is not what a run
 *   writes; both name the file
 */
export async function readRun(folder: string): Promise<RunFiles> {
  const settings = await unlessAbsent(readRunJson(path.join(folder, "config.json")));
  if (settings === undefined) throw noRun(folder, "config.json");
  const summed = await readChecked(path.join(folder, "summary.json"), summary);
  return {
    folder,
    config: config(settings, path.join(folder, "config.json")),
    settings: settings as Record<string, unknown>,
    ...(await readMetrics(folder)),
    summary: summed,
    // Without a summary it is an earlier run's in the same folder.
    analysis: summed && (await readChecked(path.join(folder, "analysis.json"), analysis)),
  };
}

function noRun(folder: string, missing: string): RevNetError {
  return new RevNetError("ERR_FILE", `'${folder}' holds no run: there is no ${missing} (\`revnet train --out DIR\` writes it)`);
}

async function readChecked<T>(file: string, check: Check<T>): Promise<T | undefined> {
  const value = await unlessAbsent(readRunJson(file));
  return value === undefined ? undefined : check(value, file);
}

const readRunJson = (file: string): Promise<unknown> => readJson(file, "ERR_INVALID_FILE", { limit: MAX_FILE_BYTES });

/** undefined where there is no such file */
async function unlessAbsent<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

async function readMetrics(folder: string): Promise<Rows & Pick<RunFiles, "torn">> {
  const file = path.join(folder, "metrics.jsonl");
  const opened = await unlessAbsent(OpenFile.open(file));
  if (!opened) throw noRun(folder, "metrics.jsonl");
  try {
    const rows = { ...noRows(), torn: false };
    let lineNumber = 0;
    for await (const { line, complete } of lines(opened)) {
      const where = `${file}:${++lineNumber}`;
      // Zero bytes are what some file systems leave at the end after a power cut.
      rows.torn = !complete || /^\0+$/.test(line);
      if (rows.torn && !isJson(line)) break;
      rows.torn = false;
      take(rows, parseJson(line, where, "ERR_INVALID_FILE"), where);
    }
    return rows;
  } finally {
    await opened.close();
  }
}

function isJson(line: string): boolean {
  try {
    parseJson(line, "a line", "ERR_INVALID_FILE");
    return true;
  } catch {
    return false;
  }
}

/** What a report shows of the lines of metrics.jsonl. */
export type Rows = Pick<RunFiles, "steps" | "validations" | "verifications" | "brokenImages">;
export const noRows = (): Rows => ({ steps: [], validations: [], verifications: [], brokenImages: new Map() });

/** Of what a line may report, these are shown. */
function take({ steps, validations, verifications, brokenImages }: Rows, value: unknown, where: string): void {
  const { type } = record({ type: text })(value, where);
  // A run that was resumed from a checkpoint went some steps back.
  const goBack = (rows: { step: number }[], step: number) => {
    while (rows.length > 0 && rows.at(-1)!.step >= step) rows.pop();
  };
  if (type === "step") {
    const row = stepRow(value, where);
    for (const rows of [steps, validations, verifications]) goBack(rows, row.step);
    steps.push(row);
  }
  if (type === "validation") {
    const row = validationRow(value, where);
    goBack(validations, row.step);
    validations.push(row);
  }
  if (type === "verification") {
    const row = verificationRow(value, where);
    goBack(verifications, row.step);
    verifications.push(row);
  }
  if (type === "brokenImage") {
    const { file, reason } = brokenRow(value, where);
    brokenImages.set(file, reason);
  }
}

/** The lines of a file; `complete`: it ends with a line break. */
async function* lines(opened: OpenFile): AsyncGenerator<{ line: string; complete: boolean }> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of opened.pieces()) {
    const parts = (rest + decoder.decode(piece, { stream: true })).split("\n");
    rest = parts.pop()!;
    if (rest.length > MAX_LINE_BYTES)
      throw new RevNetError("ERR_INVALID_FILE", `'${opened.file}' has a line of more than ${MAX_LINE_BYTES} characters`);
    for (const line of parts) yield { line, complete: true };
  }
  if (rest !== "") yield { line: rest, complete: false };
}

/** The line charts of a report, as data: assets/report.js draws them. */
import type { CalibrationBin } from "../network/scores.js";
import type { Analysis } from "./analysis.js";
import type { RunFiles, StepRow, VerificationRow } from "./run-files.js";
import { meanOf } from "./thinned.js";

type Column = (number | null)[];

export interface Series {
  label: string;
  /** Which of the page's colours. */
  color: number;
  /** "faint": a line behind the others; "dots": a line with its points; "line". */
  style: "line" | "faint" | "dots";
  x: number[];
  y: Column;
}

export interface Chart {
  id: string;
  title: string;
  /** Under the title. */
  note: string;
  xLabel: string;
  yLabel: string;
  /** What y's numbers are followed by: " %", say. */
  unit: string;
  logarithmic: boolean;
  /** The least that the y axis reaches up to, from 0; null: it fits the values. */
  yTop: number | null;
  series: Series[];
}

/** Points of a line, at most: more than a screen's pixels tell nothing, and a page stays small whatever the run's length. */
export const MAX_POINTS = 1500;
/** One step of the fixed-point streams. */
const STREAM_STEP = 2 ** -22;

/** Means over `size` rows each, so that there are at most MAX_POINTS. */
function bins(steps: readonly StepRow[]): { bins: StepRow[]; size: number } {
  const size = Math.max(1, Math.ceil(steps.length / MAX_POINTS));
  const starts = Array.from({ length: Math.ceil(steps.length / size) }, (_, i) => i * size);
  return { size, bins: starts.map((start) => meanOf(steps.slice(start, start + size))) };
}

/** Exponential means over about a fiftieth of the points; the first ones are plain means of those so far. */
function smooth(values: Column): Column {
  const horizon = Math.max(10, values.length / 50);
  let average: number | null = null;
  let seen = 0;
  return values.map((value) => {
    if (value === null) return average;
    seen += 1;
    average = average === null ? value : average + (value - average) * Math.max(1 / horizon, 1 / seen);
    return average;
  });
}

/** Whether a linear axis would show little but the greatest values. */
function spansDecades(series: readonly Series[]): boolean {
  const values = series.flatMap(({ y }) => y).filter((value) => value !== null);
  const [least, greatest] = values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, 0]);
  return least > 0 && greatest > 30 * least;
}

const percent = (fraction: number | null) => (fraction === null ? null : 100 * fraction);
const describeBins = (size: number) => (size > 1 ? `Each point of training is the mean of ${size} steps.` : "");

/** One run's, or several runs' curves in the same charts. `names`: one for each run. */
export function stepCharts(runs: readonly RunFiles[], names: readonly string[]): Chart[] {
  const alone = runs.length === 1;
  const curves = runs.map((run, i) => {
    const binned = bins(run.steps);
    const size = binned.size * (run.stepsEach ?? 1);
    const x = binned.bins.map(({ step }) => step);
    const validated = run.validations.map(({ step }) => step);
    // Alone, training and test have colours of their own; of several runs, each has one.
    const [training, test] = alone ? [0, 1] : [i, i];
    const label = (what: string) => (alone ? what : `${names[i]}, ${what}`);
    const both = (values: Column, tested: Column): Series[] => [
      ...(alone ? [{ label: size > 1 ? "each point" : "each step", color: training, style: "faint" as const, x, y: values }] : []),
      { label: label("training"), color: training, style: "line", x, y: smooth(values) },
      { label: label(run.validations[0]?.split ?? "test"), color: test, style: "dots", x: validated, y: tested },
    ];
    const one = (what: string, y: Column): Series => ({ label: alone ? what : names[i]!, color: training, style: "line", x, y });
    return {
      size,
      loss: both(
        binned.bins.map(({ loss }) => loss),
        run.validations.map(({ loss }) => loss),
      ),
      error: both(
        binned.bins.map(({ error }) => percent(error)),
        run.validations.map(({ error }) => percent(error)),
      ),
      learningRate: one(
        "learning rate",
        binned.bins.map(({ learningRate }) => learningRate),
      ),
      // By the mean time: a mean of rates would be all about the shortest steps.
      throughput: one(
        "images/s",
        smooth(binned.bins.map(({ milliseconds }) => milliseconds)).map((mean) =>
          mean ? (1000 * run.config.batchSize) / mean : null,
        ),
      ),
    };
  });
  if (runs.every(({ steps }) => steps.length === 0)) return [];
  const note = describeBins(Math.max(...curves.map(({ size }) => size)));
  const losses = curves.flatMap(({ loss }) => loss);
  const rates = curves.map(({ learningRate }) => learningRate);
  const common = { xLabel: "step", unit: "", logarithmic: false, yTop: null };
  return [
    { ...common, id: "loss", title: "Loss", note, yLabel: "cross-entropy", logarithmic: spansDecades(losses), series: losses },
    {
      ...common,
      id: "error",
      title: "Error",
      note,
      yLabel: "classified wrongly",
      unit: " %",
      series: curves.flatMap((c) => c.error),
    },
    {
      ...common,
      id: "learning-rate",
      title: "Learning rate",
      note: "",
      yLabel: "",
      // Steps down by tenths would lie on the axis otherwise.
      logarithmic: spansDecades(rates),
      series: rates,
    },
    {
      ...common,
      id: "throughput",
      title: "Throughput",
      note: "Images a second while training, without evaluations.",
      yLabel: "images/s",
      yTop: 0,
      series: curves.map((c) => c.throughput),
    },
  ];
}

/** Whether reversible activations are a mode of their own; a ResNet stores its activations either way. */
export const storesLess = (memory: Analysis["memory"]): boolean =>
  memory.some(({ reversible, stored }) => reversible.activations < stored.activations);

export function depthChart(memory: Analysis["memory"]): Chart {
  const x = memory.map(({ blocks }) => blocks);
  const mebibytes = (mode: "reversible" | "stored") => memory.map((plan) => plan[mode].activations / 2 ** 20);
  return {
    id: "memory-depth",
    title: "Activations by depth",
    note: "Bytes of activations of one training step, with more and more units in each stage.",
    xLabel: "residual blocks",
    yLabel: "",
    unit: " MiB",
    logarithmic: false,
    yTop: 0,
    series: [
      ...(storesLess(memory) ? [{ label: "reversible", color: 0, style: "dots" as const, x, y: mebibytes("reversible") }] : []),
      { label: "stored", color: 1, style: "dots", x, y: mebibytes("stored") },
    ],
  };
}

export function reconstructionChart(blocks: NonNullable<Analysis["reconstruction"]>): Chart {
  const errors = blocks.map(({ error }) => error);
  return {
    id: "reconstruction",
    title: "Reconstruction error by block",
    note: "The largest difference between a reversible block's inputs and what inverting it gave back, on a training batch.",
    xLabel: "reversible block",
    yLabel: "",
    unit: "",
    logarithmic: errors.length > 0 && errors.every((error) => error !== null && error > 0),
    yTop: STREAM_STEP,
    series: [{ label: "error", color: 0, style: "dots", x: blocks.map((_, i) => i + 1), y: errors }],
  };
}

/** How often answers of each probability are right; undefined where no image was classified. */
export function calibrationChart(bins: readonly CalibrationBin[]): Chart | undefined {
  const filled = bins.filter(({ images }) => images > 0);
  if (filled.length === 0) return undefined;
  const x = filled.map(({ confidence }) => percent(confidence)!);
  return {
    id: "calibration",
    title: "Calibration",
    note: "Test images in groups by the probability of the network's answer, and how many of each group it classified rightly.",
    xLabel: "probability of the answer, %",
    yLabel: "classified rightly",
    unit: " %",
    logarithmic: false,
    yTop: 100,
    series: [
      { label: "calibrated", color: 1, style: "faint", x, y: x },
      { label: "network", color: 0, style: "dots", x, y: filled.map(({ accuracy }) => percent(accuracy)) },
    ],
  };
}

/** How near to exact the run was where it was verified: 0 in both. */
export function verificationCharts(rows: readonly VerificationRow[]): Chart[] {
  const x = rows.map(({ step }) => step);
  const dots = (label: string, y: Column): Series[] => [{ label, color: 0, style: "dots", x, y }];
  const angles = rows.map(({ cosine }) => (cosine === null ? null : Math.max(0, 1 - cosine)));
  const common = { xLabel: "step", yLabel: "", unit: "" };
  const errors = dots(
    "error",
    rows.map(({ maxError }) => maxError),
  );
  return [
    {
      ...common,
      id: "verification-error",
      title: "Reconstruction error",
      note: "The largest difference between what inverting the blocks gave back and the stored forward pass.",
      logarithmic: spansDecades(errors),
      yTop: STREAM_STEP,
      series: errors,
    },
    {
      ...common,
      id: "verification-gradients",
      title: "Gradients, 1 − cosine",
      note: "Between those with rebuilt and with stored activations; 0 where they point the same way.",
      logarithmic: false,
      yTop: Number.EPSILON,
      series: dots("1 − cosine", angles),
    },
  ];
}

/** What a page shows of one run: the same in report.html and, while the run goes on, in the live page. */
import path from "node:path";
import { type Chart, calibrationChart, depthChart, reconstructionChart, stepCharts, verificationCharts } from "./charts.js";
import { type Html, html } from "./html.js";
import { chartFigure } from "./page.js";
import type { RunFiles } from "./run-files.js";
import { evaluation, leftOut, memory, reconstruction, section, settings, state, tiles, verification } from "./sections.js";

/** Something that a live page replaces as a whole. */
export interface Part {
  id: string;
  html: Html;
}

export interface Content {
  parts: Part[];
  /** Those whose figures are in the parts. */
  charts: Chart[];
}

export function contentOf(run: RunFiles): Content {
  const { analysis, verifications, brokenImages, summary } = run;
  const unused = summary?.leftOut;
  const curves = stepCharts([run], [""]);
  const verified = verifications.length > 0 ? verificationCharts(verifications) : [];
  const planned = analysis && analysis.memory.length > 0 ? depthChart(analysis.memory) : undefined;
  const inverted = analysis?.reconstruction ? reconstructionChart(analysis.reconstruction) : undefined;
  const calibrated = analysis?.evaluation?.calibration && calibrationChart(analysis.evaluation.calibration);
  return {
    parts: [
      { id: "state", html: state(run) },
      { id: "tiles", html: tiles(run) },
      { id: "training", html: training(curves) },
      ...(verified.length > 0 ? [{ id: "verification", html: verification(verifications, verified.map(chartFigure)) }] : []),
      ...(planned ? [{ id: "memory", html: memory(analysis!.memory, chartFigure(planned)) }] : []),
      ...(inverted ? [{ id: "reconstruction", html: reconstruction(analysis!.reconstruction!, chartFigure(inverted)) }] : []),
      ...(analysis ? [{ id: "evaluation", html: evaluation(analysis, calibrated && chartFigure(calibrated)) }] : []),
      ...(brokenImages.size > 0 || (unused?.count ?? 0) > 0 ? [{ id: "left-out", html: leftOut(brokenImages, unused) }] : []),
      { id: "settings", html: settings(run) },
    ],
    charts: [
      ...curves,
      ...verified,
      ...(planned ? [planned] : []),
      ...(inverted ? [inverted] : []),
      ...(calibrated ? [calibrated] : []),
    ],
  };
}

export const training = (curves: readonly Chart[]): Html =>
  section(
    "training",
    "Training",
    curves.length > 0 ? html`<div class="charts">${curves.map(chartFigure)}</div>` : html`<p>There are no steps yet.</p>`,
  );

export const nameOf = (folder: string) => path.basename(path.resolve(folder));

/** Reports on runs, made from their files: report.html of one run, or a page that compares several. */
import path from "node:path";
import { writeFileAtomically } from "../formats/atomic.js";
import { analyse, type Findings } from "./analysis.js";
import { type Chart, depthChart, reconstructionChart, stepCharts } from "./charts.js";
import { type Html, html } from "./html.js";
import { chartFigure, page } from "./page.js";
import { type RunFiles, readRun } from "./run-files.js";
import { comparison, evaluation, memory, reconstruction, section, settings, state, tiles } from "./sections.js";
import { writeEvents } from "./tensorboard.js";

/**
 * Writes analysis.json, report.html and tensorboard/ into the folder of a run whose other files are complete.
 * @throws RevNetError ERR_FILE
 */
export async function writeRunReport(folder: string, findings: Findings): Promise<void> {
  const text = `${JSON.stringify(await analyse(findings))}\n`;
  await writeFileAtomically(path.join(folder, "analysis.json"), [Buffer.from(text)]);
  const run = await readRun(folder);
  await writeFileAtomically(path.join(folder, "report.html"), [Buffer.from(await reportOf(run))]);
  await writeEvents(run);
}

/**
 * Writes one page on the runs in these folders.
 * @throws RevNetError ERR_FILE where a folder holds no run or a file cannot be read or written, ERR_INVALID_FILE where a run's file
 *   is damaged
 */
export async function writeReport(folders: readonly string[], file: string): Promise<void> {
  const runs: RunFiles[] = [];
  for (const folder of folders) runs.push(await readRun(folder));
  const content = runs.length === 1 ? await reportOf(runs[0]!) : await compare(runs);
  await writeFileAtomically(file, [Buffer.from(content)]);
}

function reportOf(run: RunFiles): Promise<string> {
  const { analysis, config } = run;
  const curves = stepCharts([run], [""]);
  const planned = analysis && analysis.memory.length > 0 ? depthChart(analysis.memory) : undefined;
  const inverted = analysis?.reconstruction ? reconstructionChart(analysis.reconstruction) : undefined;
  return page(
    `${config.model.name}: ${name(run.folder)}`,
    [
      state(run),
      tiles(run),
      training(curves),
      ...(planned ? [memory(analysis!.memory, chartFigure(planned))] : []),
      ...(inverted ? [reconstruction(analysis!.reconstruction!, chartFigure(inverted))] : []),
      ...(analysis ? [evaluation(analysis)] : []),
      settings(run),
    ],
    [...curves, ...(planned ? [planned] : []), ...(inverted ? [inverted] : [])],
  );
}

const training = (curves: readonly Chart[]): Html =>
  section(
    "training",
    "Training",
    curves.length > 0 ? html`<div class="charts">${curves.map(chartFigure)}</div>` : html`<p>There are no steps yet.</p>`,
  );

function compare(runs: readonly RunFiles[]): Promise<string> {
  const short = runs.map(({ folder }) => name(folder));
  const names = runs.map(({ folder }, i) => (short.indexOf(short[i]!) === short.lastIndexOf(short[i]!) ? short[i]! : folder));
  const curves = stepCharts(runs, names);
  return page(names.join(", "), [comparison(runs, names), training(curves)], curves);
}

const name = (folder: string) => path.basename(path.resolve(folder));

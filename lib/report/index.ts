/** Reports on runs, made from their files: report.html of one run, or a page that compares several. */
import path from "node:path";
import { writeFileAtomically } from "../files/atomic.js";
import { printableJson } from "../text.js";
import { analyse, type Findings } from "./analysis.js";
import { stepCharts } from "./charts.js";
import { comparison } from "./comparison.js";
import { contentOf, nameOf, training } from "./content.js";
import { page } from "./page.js";
import { type RunFiles, readRun } from "./run-files.js";
import { writeEvents } from "./tensorboard.js";

/**
 * Writes analysis.json, report.html and tensorboard/ into the folder of a run whose other files are complete.
 * @throws RevNetError ERR_FILE
 */
export async function writeRunReport(folder: string, findings: Findings): Promise<void> {
  const text = `${printableJson(await analyse(findings))}\n`;
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
  const { parts, charts } = contentOf(run);
  return page(
    `${run.config.model.name}: ${nameOf(run.folder)}`,
    parts.map(({ html }) => html),
    charts,
  );
}

function compare(runs: readonly RunFiles[]): Promise<string> {
  const short = runs.map(({ folder }) => nameOf(folder));
  const names = runs.map(({ folder }, i) => (short.indexOf(short[i]!) === short.lastIndexOf(short[i]!) ? short[i]! : folder));
  const curves = stepCharts(runs, names);
  return page(names.join(", "), [comparison(runs, names), training(curves)], curves);
}

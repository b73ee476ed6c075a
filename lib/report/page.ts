/** The page around a report's content: one file that refers to no other, and that forbids itself to. */
import { createHash } from "node:crypto";
import path from "node:path";
import { decodeText, readFile } from "../files/open.js";
import { packageRoot } from "../package.js";
import type { Chart } from "./charts.js";
import { Html, html, inlineJson } from "./html.js";

/** Where assets/report.js draws the chart of this id. */
export function chartFigure({ id, title, note }: Chart): Html {
  return html`<figure class="chart" id="chart-${id}"><figcaption><b>${title}</b> ${note}</figcaption><div class="plot"></div></figure>\n`;
}

const MAX_ASSET_BYTES = 2 ** 24;

async function asset(file: string): Promise<string> {
  return decodeText(await readFile(file, { what: "file of the package (reinstall it)", limit: MAX_ASSET_BYTES }));
}

/**
 * @param charts those whose figures are in `content`
 * @param live whether the page asks the server that it came from for news (assets/live.js)
 */
export async function page(title: string, content: readonly Html[], charts: readonly Chart[], live = false): Promise<string> {
  const assets = path.join(packageRoot(), "assets");
  const chartLibrary = path.dirname(require.resolve("uplot/package.json"));
  const [chartStyle, style, ...scripts] = await Promise.all([
    asset(path.join(chartLibrary, "dist", "uPlot.min.css")),
    asset(path.join(assets, "report.css")),
    asset(path.join(chartLibrary, "dist", "uPlot.iife.min.js")),
    asset(path.join(assets, "report.js")),
    ...(live ? [asset(path.join(assets, "live.js"))] : []),
  ]);
  const hashes = scripts.map((source) => `'sha256-${createHash("sha256").update(source).digest("base64")}'`).join(" ");
  const policy = `default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src ${hashes}${live ? "; connect-src 'self'" : ""}`;
  // The chart library's licence wants to go with it.
  const licence = await asset(path.join(chartLibrary, "LICENSE"));
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
${live ? new Html('<link rel="icon" href="data:,">\n') : ""}<title>${title}</title>
<style>${new Html(chartStyle)}</style>
<style>${new Html(style)}</style>
</head>
<body>
<main>
<h1>${title}</h1>
<noscript><p>The charts of this page are drawn by a script, which is in the page itself.</p></noscript>
${content}
</main>
<footer><details><summary>Charts by uPlot</summary><pre>${licence.split("\n").map((line) => html`${line}\n`)}</pre></details></footer>
<script type="application/json" id="charts">${inlineJson(charts)}</script>
${scripts.map((source) => html`<script>${new Html(source)}</script>\n`)}</body>
</html>
`.source;
}

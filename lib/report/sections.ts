/** What a report shows beside its charts: figures, tables, the confusion matrix, images. */
import path from "node:path";
import { ACTIVATIONS } from "../network/recorder.js";
import { classScores, macroF1, namedScores } from "../network/scores.js";
import { bytes, percent, shortNumber, throughput } from "../text.js";
import type { Analysis, Mistake } from "./analysis.js";
import { storesLess } from "./charts.js";
import { type Html, html } from "./html.js";
import { dataUrl, encodePng } from "./png.js";
import type { RunFiles, SummaryRow, VerificationRow } from "./run-files.js";

const CATEGORIES = ["activations", "workspace", "parameters", "gradients", "optimizer", "data"] as const;
/** Classes up to which the confusion matrix is a table; beyond, it is a picture and a list. */
const MAX_TABLE = 20;
const MAX_CONFUSIONS = 20;
const MAX_LEFT_OUT = 100;
export const NOTHING = "–";

/** Losses from here on have diverged: their decimals say nothing. */
const LARGE = 1e6;
export const figure = (value: number | null, digits = 4) =>
  value === null ? NOTHING : Math.abs(value) >= LARGE ? shortNumber(value) : value.toFixed(digits);
export const percentage = (value: number | null) => (value === null ? NOTHING : percent(value));
export const whole = (value: number) => value.toLocaleString("en");

export function section(id: string, title: string, ...content: Html[]): Html {
  return html`<section id="${id}"><h2>${title}</h2>${content}</section>\n`;
}

/** The first row is the heading. `scroll`s within itself where the screen is narrow. */
export function table(rows: (string | number | Html)[][], className = ""): Html {
  const [head = [], ...body] = rows;
  return html`<div class="scroll"><table class="${className}"><thead><tr>${head.map((cell) => html`<th scope="col">${cell}</th>`)}</tr></thead>
<tbody>${body.map(([first = "", ...rest]) => html`<tr><th scope="row">${first}</th>${rest.map((cell) => html`<td>${cell}</td>`)}</tr>\n`)}</tbody></table></div>`;
}

/** In one sentence, how the run ended. */
export function state({ config, summary, steps, torn }: RunFiles): Html {
  const done = steps.at(-1)?.step ?? 0;
  const sentence = !summary
    ? `There is no summary: the run goes on, or was ended from outside. Its metrics reach step ${whole(done)} of ${whole(config.steps)}.`
    : summary.steps < config.steps
      ? `The run was stopped after ${whole(summary.steps)} of ${whole(config.steps)} steps.`
      : `The run did all of its ${whole(summary.steps)} steps.`;
  return html`<p class="state">${sentence}${torn ? " The last line of metrics.jsonl is incomplete and was left out." : ""}</p>\n`;
}

export function tiles({ config, summary, analysis, settings, brokenImages }: RunFiles): Html {
  if (!summary) return html``;
  const plan = analysis?.memory.find(({ factor }) => factor === 1);
  const { activations, total } = summary.memory;
  const ratio = plan && activations < plan.stored.activations ? plan.stored.activations / activations : undefined;
  const { exact } = summary.reconstruction;
  return tileList([
    ["test error", percentage(summary.testError), `loss ${figure(summary.testLoss)}`],
    ...(typeof summary.validationError === "number"
      ? [["validation error", percentage(summary.validationError), `loss ${figure(summary.validationLoss ?? null)}`] as Tile]
      : []),
    ["training loss", figure(summary.trainLoss), "mean of the last epoch"],
    ["throughput", throughput(summary.imagesPerSecond), `${summary.stepMilliseconds.median.toFixed(1)} ms a step`],
    [
      "activation memory",
      bytes(activations),
      settings.verifyEvery !== undefined
        ? "with what verifying stores"
        : ratio
          ? `stored: ${ratio.toFixed(1)} times as much`
          : `${activationsOf({ summary, config })} activations`,
    ],
    ["memory in all", bytes(total), summary.device],
    ...(exact === null
      ? []
      : [["reconstruction", exact ? "exact" : "not exact", exact ? "bit for bit" : `${summary.streams} streams`] as Tile]),
    ...alarms(summary.reconstruction.outOfRange, brokenImages.size),
  ]);
}

/** How the run kept its activations: a ResNet stores them, whatever was asked for. */
export const activationsOf = ({ summary, config }: Pick<RunFiles, "summary" | "config">): string =>
  (summary?.kind ?? config.model.kind) === "resnet" ? "stored" : (summary?.activations ?? NOTHING);

/** What a run should not have met, where it has. */
export function alarms(outOfRange: number, brokenImages: number): Tile[] {
  return [
    ...(outOfRange > 0 ? [["out of range", whole(outOfRange), "values of the streams"] as Tile] : []),
    ...(brokenImages > 0 ? [["left out", whole(brokenImages), "images that cannot be decoded"] as Tile] : []),
  ];
}

/** What it is, its value, and more about it. */
export type Tile = [string, string, string];

export function tileList(entries: readonly Tile[]): Html {
  return html`<dl class="tiles">${entries.map(([name, value, more]) => html`<div><dt>${name}</dt><dd>${value}</dd><dd class="more">${more}</dd></div>\n`)}</dl>\n`;
}

/** Numbers as they were given, unless they are long: a seed is copied, a rate of many digits is not. */
export const words = (value: unknown): string =>
  value === undefined || value === null
    ? NOTHING
    : typeof value === "number" && !Number.isInteger(value) && String(value).length > 8
      ? shortNumber(value)
      : String(value);

/** A setting in words: objects by their keys, each in a row of its own. */
function settingRows(name: string, value: unknown): [string, string][] {
  if (value === null || typeof value !== "object") return [[name, words(value)]];
  if (Array.isArray(value) && value.every((entry) => typeof entry !== "object")) return [[name, value.join(", ")]];
  return Object.entries(value).flatMap(([key, entry]) => settingRows(`${name}.${key}`, entry));
}

export function settings({ settings, summary }: RunFiles): Html {
  const rows = Object.entries(settings).flatMap(([name, value]) =>
    settingRows(name, value).map(([key, words]) => [key, html`<code>${words}</code>`]),
  );
  const results = summary
    ? [
        ["parameters", whole(summary.parameters)],
        ["weights SHA-256", html`<code>${summary.weightsSha256}</code>`],
        ["values out of range", whole(summary.reconstruction.outOfRange)],
      ]
    : [];
  return section("settings", "Settings", table([["", "value"], ...rows, ...results], "settings"));
}

/** Bars of bytes by category, one for each depth and mode, and the same as a table. */
export function memory(plans: Analysis["memory"], chart: Html): Html {
  const reversible = storesLess(plans);
  const bars = plans.flatMap(({ factor, blocks, ...modes }) =>
    (reversible ? ACTIVATIONS : (["stored"] as const)).map((mode) => ({
      name: `${mode}, ${whole(blocks)} blocks${factor === 1 ? " (this network)" : ""}`,
      report: modes[mode],
    })),
  );
  const longest = Math.max(...bars.map(({ report }) => report.total), 1);
  const legend = html`<ul class="legend">${CATEGORIES.map((name, i) => html`<li><span class="swatch color-${i}"></span>${name}</li>`)}</ul>`;
  const drawn = bars.map(
    ({ name, report }) =>
      html`<div class="bar-row"><span>${name}</span><div class="bar" role="img" aria-label="${bytes(report.total)}">${CATEGORIES.map(
        (category, i) =>
          html`<i class="color-${i}" style="width:${((100 * report[category]) / longest).toFixed(3)}%" title="${category}: ${bytes(report[category])}"></i>`,
      )}</div><b>${bytes(report.total)}</b></div>\n`,
  );
  return section(
    "memory",
    "Memory",
    html`<p>Planned bytes of one training step by category, without the rest of the data set. ${
      reversible
        ? "Reversible activations do not grow with depth."
        : "This network has no reversible blocks: it stores its activations."
    }</p>`,
    legend,
    html`<div class="bars">${drawn}</div>`,
    chart,
    html`<details><summary>In figures</summary>${table([
      ["", ...CATEGORIES, "total"],
      ...bars.map(({ name, report }) => [name, ...CATEGORIES.map((category) => bytes(report[category])), bytes(report.total)]),
    ])}</details>`,
  );
}

export function reconstruction(blocks: NonNullable<Analysis["reconstruction"]>, chart: Html): Html {
  const wrong = blocks.filter(({ error }) => error !== 0).length;
  const sentence =
    wrong === 0
      ? `0 in each of ${blocks.length} reversible blocks: inverting gave back every bit.`
      : `${wrong} of ${blocks.length} reversible blocks came back with a difference.`;
  return section(
    "reconstruction",
    "Reconstruction",
    html`<p>${sentence}</p>`,
    chart,
    html`<details><summary>In figures</summary>${blockTable(blocks)}</details>`,
  );
}

/** `rows`: at least one. */
export function verification(rows: readonly VerificationRow[], charts: readonly Html[]): Html {
  const exact = rows.filter(({ maxError, cosine }) => maxError === 0 && cosine === 1).length;
  const sentence =
    exact === rows.length
      ? `Verified ${whole(rows.length)} times: every block came back bit for bit, and the gradients are those of stored activations.`
      : `${whole(exact)} of ${whole(rows.length)} verifications were exact.`;
  const last = rows.at(-1)!;
  return section(
    "verification",
    "Verification",
    html`<p>${sentence}</p><div class="charts">${charts}</div>`,
    html`<details><summary>By block, after step ${whole(last.step)}</summary>${blockTable(last.blocks)}</details>`,
  );
}

function blockTable(blocks: NonNullable<Analysis["reconstruction"]>): Html {
  return table([
    ["block", "error"],
    ...blocks.map(({ stage, block, error }) => [`stages.${stage}.${block}`, error === null ? "not a number" : shortNumber(error)]),
  ]);
}

/** @param calibration the chart of it */
export function evaluation({ evaluation, classes }: Analysis, calibration?: Html): Html {
  if (!evaluation) return html``;
  const { step, images, confusion, mistakes } = evaluation;
  const heading = html`<p>Of ${whole(images)} test images, after step ${whole(step)}. Rows: the label; columns: the prediction.</p>`;
  return html`${confusion ? section("classes", "Classes", scores(evaluation, classes, confusion)) : ""}${
    calibration ? section("calibration", "Calibration", html`<div class="charts">${calibration}</div>`) : ""
  }${confusion ? section("confusion", "Confusion", heading, classes.length <= MAX_TABLE ? matrix(classes, confusion) : picture(classes, confusion)) : ""}${
    mistakes.length > 0
      ? section(
          "mistakes",
          "Worst classified",
          html`<p>Wrongly classified test images with the greatest loss.</p>`,
          html`<div class="images">${mistakes.map((mistake) => image(mistake, classes))}</div>`,
        )
      : ""
  }`;
}

function scores(
  { step, images, top5Error, calibrationError }: NonNullable<Analysis["evaluation"]>,
  classes: readonly string[],
  confusion: readonly (readonly number[])[],
): Html {
  const all = classScores(confusion);
  const shown = namedScores(all, classes, MAX_TABLE);
  const facts = [
    `macro F1 ${percentage(macroF1(all))}`,
    ...(typeof top5Error === "number" ? [`top-5 error ${percent(top5Error)}`] : []),
    ...(calibrationError === undefined ? [] : [`expected calibration error ${percent(calibrationError)}`]),
  ];
  return html`<p>Of ${whole(images)} test images, after step ${whole(step)}: ${facts.join(", ")}.${all.length > MAX_TABLE ? ` The ${shown.length} classes of lowest F1:` : ""}</p>${table(
    [
      ["class", "images", "precision", "recall", "F1"],
      ...shown.map(({ name, images, precision, recall, f1 }) => [
        name,
        whole(images),
        percentage(precision),
        percentage(recall),
        percentage(f1),
      ]),
    ],
  )}`;
}

function matrix(classes: readonly string[], confusion: readonly (readonly number[])[]): Html {
  const head = [html``, ...classes.map((name) => html`<span>${name}</span>`)];
  const rows = confusion.map((row, label) => {
    const all = Math.max(
      1,
      row.reduce((sum, cell) => sum + cell, 0),
    );
    return [
      classes[label]!,
      ...row.map(
        (cell, prediction) =>
          html`<span class="${prediction === label ? "right" : "wrong"}" style="--part:${(cell / all).toFixed(4)}">${cell}</span>`,
      ),
    ];
  });
  return table([head, ...rows], "confusion");
}

/** A point for each pair of classes, the more opaque the more of the label's images; and the most frequent confusions. */
function picture(classes: readonly string[], confusion: readonly (readonly number[])[]): Html {
  const n = classes.length;
  const pixels = new Uint8Array(n * n * 4);
  const pairs: { label: number; prediction: number; cell: number }[] = [];
  for (const [label, row] of confusion.entries()) {
    const all = Math.max(
      1,
      row.reduce((sum, cell) => sum + cell, 0),
    );
    for (const [prediction, cell] of row.entries()) {
      const color = prediction === label ? [37, 130, 90] : [200, 60, 60];
      // The square root shows single images among hundreds.
      pixels.set([...color, Math.round(255 * Math.sqrt(cell / all))], 4 * (label * n + prediction));
      if (prediction !== label && cell > 0) pairs.push({ label, prediction, cell });
    }
  }
  pairs.sort((a, b) => b.cell - a.cell);
  return html`<img class="heatmap" alt="confusion matrix of ${n} classes" src="${dataUrl(encodePng(pixels, [n, n, 4]))}">${table([
    ["label", "prediction", "images"],
    ...pairs.slice(0, MAX_CONFUSIONS).map(({ label, prediction, cell }) => [classes[label]!, classes[prediction]!, whole(cell)]),
  ])}`;
}

function image({ index, file, label, prediction, loss, image: source }: Mistake, classes: readonly string[]): Html {
  const drawn =
    source === null ? html`<span class="no-image">no colours</span>` : html`<img alt="test image ${index}" src="${source}">`;
  const name = !file ? `#${index}` : path.basename(file);
  const title = !file ? html`` : html` title="${file}"`;
  return html`<figure>${drawn}<figcaption><b>${classes[prediction]!}</b><br>is ${classes[label]!}<br><small${title}>${name}, loss ${figure(loss, 2)}</small></figcaption></figure>\n`;
}

/** Images that could not be decoded, and what the folder has beside images: at least one of the two. */
export function leftOut(images: RunFiles["brokenImages"], unused: SummaryRow["leftOut"]): Html {
  return section(
    "left-out",
    "Left out",
    images.size > 0 ? broken(images) : html``,
    unused && unused.count > 0
      ? html`<p>${whole(unused.count)} ${unused.count === 1 ? "entry" : "entries"} of the folder ${unused.count === 1 ? "is" : "are"} not used as an image.</p>${table(
          [
            ["why", "how many", "the first"],
            ...unused.reasons.map(({ reason, count, files }) => [
              reason,
              whole(count),
              html`${files.map((file) => html`<code>${file}</code><br>`)}`,
            ]),
          ],
          "left-out",
        )}`
      : html``,
  );
}

function broken(images: RunFiles["brokenImages"]): Html {
  const more = images.size - MAX_LEFT_OUT;
  return html`<p>${whole(images.size)} ${images.size === 1 ? "image file" : "image files"} could not be decoded. In training, other images took their places; in tests they count for nothing.</p>${table(
    [
      ["file", "what is wrong"],
      ...[...images].slice(0, MAX_LEFT_OUT).map(([file, reason]) => [html`<code>${file}</code>`, reason]),
    ],
    "left-out",
  )}${more > 0 ? html`<p>And ${whole(more)} more, in metrics.jsonl.</p>` : html``}`;
}

/** A run that goes on, as its live page shows it: the report's content, with figures of the moment instead of the summary's. */
import type { MemoryReport } from "../native/index.js";
import { bytes, duration, percent, throughput } from "../text.js";
import { planDepths } from "./analysis.js";
import { MAX_POINTS } from "./charts.js";
import { type Content, contentOf } from "./content.js";
import { type Html, html } from "./html.js";
import type { DepthPlan, Task } from "./memory-worker.js";
import { type RunFiles, readRun, type StepRow, type ValidationRow, type VerificationRow } from "./run-files.js";
import { alarms, figure, percentage, type Tile, tileList, whole } from "./sections.js";
import { ThinnedSteps } from "./thinned.js";

/** Steps over which loss and throughput are averaged. */
const HORIZON = 20;

export interface LiveRunOptions {
  /** undefined: nothing is written. */
  folder: string | undefined;
  /** What config.json holds. */
  settings: Record<string, unknown>;
  config: RunFiles["config"];
  memory: MemoryReport;
  /** Steps of the checkpoint that the run went on from, or 0. */
  resumedFrom: number;
}

/** How a run ended: in words, and where its report is. */
export interface Ending {
  sentence: string;
  report: string | undefined;
}

type LiveRecord =
  | ({ type: "step" } & StepRow)
  | ({ type: "validation" } & ValidationRow)
  | ({ type: "verification" } & VerificationRow)
  | { type: "outOfRange"; step: number; count: number }
  | { type: "brokenImage"; file: string; reason: string };

export class LiveRun {
  readonly #options: LiveRunOptions;
  /** Making the page is to hold nothing up, so its charts are not made of all steps of a long run. */
  readonly #steps = new ThinnedSteps(2 * MAX_POINTS);
  /** The last ones. */
  readonly #recent: StepRow[] = [];
  readonly #validations: ValidationRow[] = [];
  readonly #verifications: VerificationRow[] = [];
  #outOfRange = 0;
  readonly #broken = new Map<string, string>();
  #plans: DepthPlan[] = [];
  #ending: Ending | undefined;
  #files: RunFiles | undefined;

  constructor(options: LiveRunOptions) {
    this.#options = options;
  }

  /** Plans what the memory section shows; it is there from then on. */
  async plan(task: Pick<Task, "spec" | "options">): Promise<void> {
    this.#plans = await planDepths(task);
  }

  take(record: LiveRecord): void {
    switch (record.type) {
      case "step":
        this.#takeStep({ ...record, loss: finite(record.loss) });
        break;
      case "validation":
        this.#validations.push({ ...record, loss: finite(record.loss) });
        break;
      case "verification":
        this.#verifications.push({
          ...record,
          maxError: finite(record.maxError),
          cosine: finite(record.cosine),
          blocks: record.blocks.map((block) => ({ ...block, error: finite(block.error) })),
        });
        break;
      case "outOfRange":
        this.#outOfRange += record.count;
        break;
      case "brokenImage":
        this.#broken.set(record.file, record.reason);
        break;
    }
  }

  #takeStep(row: StepRow): void {
    this.#steps.push(row);
    this.#recent.push(row);
    if (this.#recent.length > HORIZON) this.#recent.shift();
  }

  /** From now on it shows how the run ended, and what a report shows of the files that it has written. */
  async end(ending: Ending): Promise<void> {
    this.#ending = ending;
    // They may be damaged, or those of an earlier run: what is known here is good enough then.
    if (ending.report !== undefined) this.#files = await readRun(this.#options.folder!).catch(() => undefined);
  }

  content(): Content {
    const { folder = "", settings, config } = this.#options;
    const rows = {
      ...this.#steps.rows,
      validations: this.#validations,
      verifications: this.#verifications,
      brokenImages: this.#broken,
    };
    const analysis = { classes: [], evaluation: null, reconstruction: null, memory: this.#plans };
    const content = contentOf(this.#files ?? { folder, config, settings, ...rows, torn: false, summary: undefined, analysis });
    const own: { [id: string]: Html | undefined } = { state: this.#state(), tiles: this.#files ? undefined : this.#tiles() };
    return { ...content, parts: content.parts.map((part) => ({ ...part, html: own[part.id] ?? part.html })) };
  }

  #state(): Html {
    if (this.#ending) {
      const { sentence, report } = this.#ending;
      const where = report === undefined ? "" : html` Open the report in the browser as a file: <code>${report}</code>`;
      return html`<p class="state"><b class="ended">${sentence}</b> This page is no longer live.${where}</p>\n`;
    }
    const { folder, resumedFrom } = this.#options;
    const resumed = resumedFrom > 0 ? `, since step ${whole(resumedFrom)} after a resume` : "";
    const files = folder === undefined ? html`Nothing is written to disk.` : html`Its folder: <code>${folder}</code>`;
    return html`<p class="state">Training${resumed}. ${files}</p>\n`;
  }

  #tiles(): Html {
    const { config, memory, settings } = this.#options;
    const recent = this.#recent;
    const mean = (value: (row: StepRow) => number | null) =>
      recent.length === 0 ? Number.NaN : recent.reduce((sum, row) => sum + (value(row) ?? Number.NaN), 0) / recent.length;
    const done = recent.at(-1)?.step ?? 0;
    const milliseconds = mean((row) => row.milliseconds);
    const eta =
      recent.length > 0 && done < config.steps && !this.#ending
        ? `, about ${duration((config.steps - done) * milliseconds)} to go`
        : "";
    const test = this.#validations.at(-1);
    const stored = this.#plans.find(({ factor }) => factor === 1)?.stored.activations ?? 0;
    const ratio =
      settings.verifyEvery !== undefined
        ? "with what verifying stores"
        : memory.activations < stored
          ? `stored: ${(stored / memory.activations).toFixed(1)} times as much`
          : "planned";
    const tiles: Tile[] = [
      ["step", `${whole(done)} of ${whole(config.steps)}`, `${percent(done / config.steps)}${eta}`],
      ["training loss", figure(finite(mean((row) => row.loss))), `error ${percentage(finite(mean((row) => row.error)))}`],
      [
        `${test?.split ?? "test"} error`,
        percentage(test?.error ?? null),
        test ? `loss ${figure(test.loss)}, step ${whole(test.step)}` : "none yet",
      ],
      [
        "throughput",
        recent.length > 0 ? throughput((1000 * config.batchSize) / milliseconds) : "–",
        recent.length > 0 ? `${milliseconds.toFixed(1)} ms a step` : "no steps yet",
      ],
      ["activation memory", bytes(memory.activations), ratio],
      ["memory in all", bytes(memory.total), "planned"],
      ...alarms(this.#outOfRange, this.#broken.size),
    ];
    return tileList(tiles);
  }
}

const finite = (value: number | null): number | null => (value !== null && Number.isFinite(value) ? value : null);

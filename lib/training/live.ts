/** The live page of a run: opens it, tells it what the trainer reports, and ends it with the run. */
import path from "node:path";
import { RevNetError } from "../errors.js";
import type { Network } from "../network/network.js";
import { LiveRun, type LiveRunOptions } from "../report/live.js";
import { LiveServer } from "../report/live-server.js";
import type { MetricsRecord } from "./metrics.js";
import type { Settings } from "./options.js";

export class Live {
  private constructor(
    private readonly run: LiveRun,
    private readonly server: LiveServer,
    private readonly outDir: string | undefined,
  ) {}

  /** @throws RevNetError ERR_UI */
  static async open(
    { batchSize, streams, precision, streamGradients, threads, outDir, ui }: Settings,
    { spec, device }: Network,
    settings: object,
    options: Pick<LiveRunOptions, "memory" | "resumedFrom"> & { steps: number },
  ): Promise<Live> {
    const run = new LiveRun({
      ...options,
      folder: outDir === undefined ? undefined : path.resolve(outDir),
      // As config.json has them.
      settings: JSON.parse(JSON.stringify(settings)) as Record<string, unknown>,
      config: { model: { name: spec.name, kind: spec.kind, units: [...spec.units] }, batchSize, steps: options.steps },
    });
    const server = await LiveServer.open(ui!.port, `${spec.name}: training`, () => run.content());
    // On a thread of its own; the page has that section when it is done.
    run.plan({ spec, options: { batchSize, streams, precision, streamGradients, threads, device } }).then(() => server.changed());
    return new Live(run, server, outDir);
  }

  get url(): string {
    return this.server.url;
  }

  take(record: MetricsRecord): void {
    if (record.type === "epoch") return;
    this.run.take(record);
    this.server.changed();
  }

  /** @param failure what ended the run before its end @param written whether its report is on the disk */
  async end(steps: number, failure: unknown, written: boolean): Promise<void> {
    const aborted = failure instanceof RevNetError && failure.code === "ERR_ABORTED";
    const sentence =
      failure === undefined
        ? "The run is complete."
        : aborted
          ? `The run was stopped after ${steps} steps.`
          : `The run failed: ${(failure as Error).message}.`;
    const report = written ? path.resolve(this.outDir!, "report.html") : undefined;
    await this.run.end({ sentence, report });
    await this.server.close();
  }
}

/**
 * checkpoints/data.jsonl: which files a run is trained on and what they held, so that a resumed run is trained on the same or says what has
 * changed. The first line is about changes that were accepted; each other one is a file: [name, size, mtimeMs, ctimeMs, digest].
 */
import path from "node:path";
import type { Contents, FileRecord } from "../data/contents.js";
import type { AnyDataset } from "../data/dataset.js";
import { Pacer } from "../data/pacer.js";
import { RevNetError } from "../errors.js";
import { makeFolder, writeFileAtomically } from "../files/atomic.js";
import { parseJson } from "../files/json.js";
import { decodeText, isAbsent, readFile } from "../files/open.js";
import type { Identity } from "./identity.js";

/** Options of a run's identity that are about its data. */
export const DATA_KEYS = ["images", "trainCount", "validationCount", "testCount"];

/** A change of the data that a resumed run went on with. */
export interface AcceptedChange {
  /** The step that the run went on from. */
  step: number;
  /** How many files, or options of the data, differed. */
  count: number;
  /** The first ones. */
  changes: string[];
}

const MAX_BYTES = 2 ** 29 - 2 ** 10; // of one string
const MAX_ACCEPTED = 1000;
const SHOWN = 10;
/** Lines of a piece that is written. */
const PIECE = 4096;

export class DataRecord {
  /** In the order of the resumes. */
  accepted: AcceptedChange[] = [];
  #saved = -1;

  private constructor(
    private readonly file: string,
    private readonly contents: Contents | undefined,
  ) {}

  static of(outDir: string, dataset: AnyDataset): DataRecord {
    const contents = "contents" in dataset ? dataset.contents : undefined;
    return new DataRecord(path.join(outDir, "checkpoints", "data.jsonl"), contents);
  }

  /**
   * Compares the data with that of the run so far.
   * @param was the identity of the checkpoint at `step`
   * @param accept whether changes are recorded and gone on with
   * @returns what has changed
   * @throws RevNetError ERR_RESUME_MISMATCH naming what has changed
   */
  async check(step: number, was: Identity, is: Identity, accept: boolean): Promise<readonly string[]> {
    const before = await this.#read();
    const changes = before && this.contents ? await this.contents.changesSince(before) : [];
    if (changes.length === 0)
      for (const key of DATA_KEYS)
        if (was[key] !== is[key]) changes.push(`${key}: was ${JSON.stringify(was[key])}, now ${JSON.stringify(is[key])}`);
    if (changes.length === 0) return changes;
    const list = `${changes.slice(0, SHOWN).join("; ")}${changes.length > SHOWN ? `; and ${changes.length - SHOWN} more` : ""}`;
    if (!accept)
      throw new RevNetError(
        "ERR_RESUME_MISMATCH",
        `the run of '${path.dirname(path.dirname(this.file))}' cannot go on, since its data has changed, and it would not be the same run: ${list}. ` +
          "Put back what it was, accept the change (acceptChangedData), or begin a new run in another outDir",
      );
    this.accepted = [...this.accepted, { step, count: changes.length, changes: changes.slice(0, SHOWN) }].slice(-MAX_ACCEPTED);
    this.#saved = -1;
    return changes;
  }

  /** Writes what is new since the last time. @throws RevNetError ERR_FILE */
  async save(): Promise<void> {
    const noted = this.contents?.noted ?? 0;
    if (noted === this.#saved || (!this.contents && this.accepted.length === 0)) return;
    const pacer = new Pacer();
    const pieces: Buffer[] = [];
    let lines = [JSON.stringify({ accepted: this.accepted })];
    for (const { name, size, mtimeMs, ctimeMs, digest } of this.contents?.records() ?? []) {
      lines.push(JSON.stringify([name, size, mtimeMs, ctimeMs, digest ?? null]));
      if (lines.length < PIECE) continue;
      pieces.push(Buffer.from(`${lines.join("\n")}\n`));
      lines = [];
      await pacer.breathe();
    }
    if (lines.length > 0) pieces.push(Buffer.from(`${lines.join("\n")}\n`));
    await makeFolder(path.dirname(this.file));
    await writeFileAtomically(this.file, pieces);
    this.#saved = noted;
  }

  /** The files of the record; undefined where there is none. @throws RevNetError ERR_FILE, ERR_INVALID_FILE */
  async #read(): Promise<FileRecord[] | undefined> {
    let text: string;
    try {
      text = decodeText(await readFile(this.file, { limit: MAX_BYTES }));
    } catch (error) {
      if (isAbsent(error)) return undefined;
      throw error;
    }
    const records: FileRecord[] = [];
    const pacer = new Pacer();
    for (const [i, line] of text.split("\n").entries()) {
      if (line === "") continue;
      const where = `${this.file}:${i + 1}`;
      const value = parseJson(line, where, "ERR_INVALID_FILE");
      if (i === 0) this.accepted = readAccepted(value, where);
      else records.push(readRecord(value, where));
      await pacer.breathe();
    }
    return records;
  }
}

const invalid = (where: string) =>
  new RevNetError("ERR_INVALID_FILE", `${where} is not what a run writes; removed, the data's sizes alone are compared`);
const isNumber = (value: unknown): value is number => typeof value === "number";

function readRecord(value: unknown, where: string): FileRecord {
  if (!Array.isArray(value) || value.length !== 5) throw invalid(where);
  const [name, size, mtimeMs, ctimeMs, digest] = value as unknown[];
  if (typeof name !== "string" || !isNumber(size) || !isNumber(mtimeMs) || !isNumber(ctimeMs)) throw invalid(where);
  if (digest !== null && typeof digest !== "string") throw invalid(where);
  return { name, size, mtimeMs, ctimeMs, digest: digest ?? undefined };
}

function readAccepted(value: unknown, where: string): AcceptedChange[] {
  const { accepted } = (value ?? {}) as { accepted?: unknown };
  if (!Array.isArray(accepted) || accepted.length > MAX_ACCEPTED) throw invalid(where);
  return accepted.map((change: unknown) => {
    const { step, count, changes } = (change ?? {}) as Partial<Record<keyof AcceptedChange, unknown>>;
    if (!isNumber(step) || !isNumber(count) || !Array.isArray(changes)) throw invalid(where);
    return { step, count, changes: changes.filter((each) => typeof each === "string") };
  });
}

/** What is read of a run's folder, line by line and key by key, and how what is not a run's is refused. */
import { mkdtemp, readFile, rm, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { readRun } from "../../lib/report/run-files.js";
import { rejection } from "../support/errors.js";
import { stepLine, validationLine, writeRun } from "./fixtures.js";

describe("the files of a run", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-run-files-"));
    await writeRun(folder);
  });
  afterEach(() => rm(folder, { recursive: true }));
  const file = (name: string) => path.join(folder, name);
  const metrics = async (text: string) => {
    await writeFile(file("metrics.jsonl"), text);
    return readRun(folder);
  };
  const verification = (step: number) =>
    JSON.stringify({ type: "verification", step, maxError: null, cosine: 0.5, blocks: [{ stage: 0, block: 1, error: null }] });
  const broken = (name: string, reason: string) => JSON.stringify({ type: "brokenImage", step: 1, file: name, reason });
  const stepsOf = (rows: readonly { step: number }[]) => rows.map(({ step }) => step);

  it("have rows of each kind, and lines of kinds to come are none of them", async () => {
    const lines = [broken("a", "cut"), stepLine(1), verification(1), stepLine(2), validationLine(2), '{"type":"epoch","step":2}'];
    const run = await metrics(`${lines.join("\n")}\n`);
    expect(run.steps).to.deep.equal(
      [1, 2]
        .map((step) => ({ ...JSON.parse(stepLine(step)), type: undefined, epoch: undefined }))
        .map(({ type: _, epoch: __, ...row }) => row),
    );
    expect(run.validations).to.deep.equal([{ step: 2, split: undefined, loss: 2.5, error: 0.25 }]);
    expect(run.verifications).to.deep.equal([
      { step: 1, maxError: null, cosine: 0.5, blocks: [{ stage: 0, block: 1, error: null }] },
    ]);
    expect([...run.brokenImages]).to.deep.equal([["a", "cut"]]);
    expect(run.torn).to.equal(false);
  });

  it("go back where a run was resumed from a step before, in all kinds of rows", async () => {
    const first = [1, 2, 3, 4].flatMap((step) => [stepLine(step), validationLine(step), verification(step)]);
    const again = [3, 4, 5].flatMap((step) => [stepLine(step), verification(step), validationLine(step)]);
    const run = await metrics(`${[...first, ...again].join("\n")}\n`);
    for (const rows of [run.steps, run.validations, run.verifications]) expect(stepsOf(rows)).to.deep.equal([1, 2, 3, 4, 5]);
    // A step takes back what came after it of the other kinds as well, and a validation other validations alone.
    const shorter = await metrics(`${[...first, stepLine(2)].join("\n")}\n`);
    expect([shorter.steps, shorter.validations, shorter.verifications].map(stepsOf)).to.deep.equal([[1, 2], [1], [1]]);
    const validated = await metrics(`${[...first, validationLine(2), verification(3)].join("\n")}\n`);
    expect([validated.steps, validated.validations, validated.verifications].map(stepsOf)).to.deep.equal([
      [1, 2, 3, 4],
      [1, 2],
      [1, 2, 3],
    ]);
  });

  it("may end with a line that is torn, and with no other", async () => {
    const line = stepLine(2);
    for (const [end, torn, steps] of [
      ["", false, 1],
      [line, true, 2],
      [line.slice(0, 20), true, 1],
      ["\0\0\0", true, 1],
      ["\0\0\0\n", true, 1],
      [`\0\0\0\n${line}\n`, true, 1],
    ] as const) {
      const run = await metrics(`${stepLine(1)}\n${end}`);
      expect([run.steps.length, run.torn && end !== line], JSON.stringify(end)).to.deep.equal([steps, torn && end !== line]);
    }
    expect(await rejection(metrics(`${stepLine(1)}\n${line.slice(0, 20)}\n${line}\n`), "ERR_INVALID_FILE")).to.include(":2");
    expect(await rejection(metrics(`${stepLine(1)}\n{"type":"step","step":-1}\n`), "ERR_INVALID_FILE"))
      .to.include(`${file("metrics.jsonl")}:2`)
      .and.include("step");
    expect(await rejection(metrics("[]\n"), "ERR_INVALID_FILE")).to.include(":1");
    expect(await rejection(metrics(`"${"x".repeat(2 ** 20)}"`), "ERR_INVALID_FILE")).to.include(
      "a line of more than 1048576 characters",
    );
    // Characters that two pieces of the file share.
    const long = broken("é".repeat(300_000), "ü");
    expect([...(await metrics(`${long}\n`)).brokenImages.values()]).to.deep.equal(["ü"]);
  });

  it("are told by name where one is missing", async () => {
    await unlink(file("metrics.jsonl"));
    expect(await rejection(readRun(folder), "ERR_FILE")).to.include("there is no metrics.jsonl");
    await unlink(file("config.json"));
    expect(await rejection(readRun(folder), "ERR_FILE"))
      .to.include("there is no config.json")
      .and.include("revnet train --out DIR");
  });

  it("have no analysis without a summary, which would be an earlier run's", async () => {
    expect((await readRun(folder)).analysis).to.not.equal(undefined);
    await unlink(file("summary.json"));
    const run = await readRun(folder);
    expect([run.summary, run.analysis]).to.deep.equal([undefined, undefined]);
  });

  it("have an analysis of their own classes, with pictures and nothing else", async () => {
    const whole = JSON.parse(await readFile(file("analysis.json"), "utf8"));
    const refused = async (change: (analysis: typeof whole) => void) => {
      const changed = structuredClone(whole);
      change(changed);
      await writeFile(file("analysis.json"), JSON.stringify(changed));
      return rejection(readRun(folder), "ERR_INVALID_FILE");
    };
    expect(await refused(({ evaluation }) => evaluation.confusion.pop())).to.include("evaluation.confusion: expected 3 x 3 counts");
    expect(await refused(({ evaluation }) => evaluation.confusion[1].push(0))).to.include("expected 3 x 3 counts");
    for (const key of ["label", "prediction"])
      expect(
        await refused(({ evaluation }) => {
          evaluation.mistakes[1][key] = 3;
        }),
      ).to.include("evaluation.mistakes: expected classes from 0 to 2");
    for (const image of [
      "data:image/svg+xml;base64,AAAA",
      "data:image/png;base64,",
      "x data:image/png;base64,AA",
      'data:image/png;base64,AA"',
    ])
      expect(
        await refused(({ evaluation }) => {
          evaluation.mistakes[0].image = image;
        }),
      ).to.include("expected a PNG image as a data URL");
    await writeFile(file("analysis.json"), JSON.stringify({ ...whole, evaluation: null, reconstruction: null }));
    expect((await readRun(folder)).analysis).to.include({ evaluation: null, reconstruction: null });
  });
});

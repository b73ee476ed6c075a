/** metrics.jsonl: what is written comes back, up to the first line that is no record, and no byte is lost or written twice. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { MetricsLog, type MetricsRecord, readMetrics } from "../../lib/training/metrics.js";

const RECORDS: MetricsRecord[] = [
  { type: "brokenImage", step: 1, file: "a b/\u00e4\n.jpg", reason: "the file is empty" },
  { type: "step", step: 1, epoch: 1, loss: 2.5, error: 0.5, learningRate: 0.1, milliseconds: 12.5 },
  { type: "outOfRange", step: 1, count: 7 },
  {
    type: "validation",
    step: 1,
    epoch: 1,
    split: "validation",
    loss: Number.NaN,
    error: 0.25,
    top5Error: null,
    calibrationError: 0.5,
    milliseconds: 3,
  },
  {
    type: "verification",
    step: 1,
    epoch: 1,
    maxError: Number.NaN,
    cosine: 1,
    milliseconds: 3,
    blocks: [{ stage: 0, block: 1, error: Number.NaN }],
  },
  { type: "epoch", step: 1, epoch: 1, loss: 2.5, error: 0.5, milliseconds: 20 },
];

describe("metrics", () => {
  let folder: string;
  let file: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-metrics-"));
    file = path.join(folder, "metrics.jsonl");
  });
  afterEach(() => rm(folder, { recursive: true }));

  async function write(records: readonly MetricsRecord[], length = 0): Promise<number> {
    const log = await MetricsLog.open(file, length);
    for (const record of records) await log.append(record);
    await log.flush();
    const { bytes } = log;
    await log.close();
    return bytes;
  }

  it("come back as they were written, one line each", async () => {
    const bytes = await write(RECORDS);
    const text = await readFile(file, "utf8");
    expect(text.split("\n")).to.have.length(RECORDS.length + 1);
    expect(bytes).to.equal(Buffer.byteLength(text));
    expect(await readMetrics(file, Number.POSITIVE_INFINITY)).to.deep.equal({ records: RECORDS, bytes });
  });

  it("are read as far as asked for, and no part of a line", async () => {
    const bytes = await write(RECORDS);
    const lines = (await readFile(file, "utf8")).split("\n");
    const firstTwo = Buffer.byteLength(`${lines[0]}\n${lines[1]}\n`);
    for (const length of [firstTwo, firstTwo + 1, firstTwo + Buffer.byteLength(lines[2]!)])
      expect(await readMetrics(file, length), String(length)).to.deep.equal({ records: RECORDS.slice(0, 2), bytes: firstTwo });
    expect((await readMetrics(file, firstTwo - 1)).records).to.deep.equal(RECORDS.slice(0, 1));
    expect(await readMetrics(file, 0)).to.deep.equal({ records: [], bytes: 0 });
    expect((await readMetrics(file, bytes)).records).to.have.length(RECORDS.length);
    expect(await readMetrics(path.join(folder, "none"), 100)).to.deep.equal({ records: [], bytes: 0 });
  });

  const damaged = [
    "{",
    "null",
    "7",
    "[]",
    "{}",
    '{"type":"unknown","step":1}',
    '{"type":"toString","step":1}',
    '{"type":5,"step":1}',
    '{"type":"step","step":1}',
    '{"type":"outOfRange","step":1,"count":"7"}',
    '{"type":"outOfRange","step":1,"count":true}',
    '{"type":"validation","step":1,"epoch":1,"split":"train","loss":1,"error":0,"milliseconds":3}',
    '{"type":"brokenImage","step":1,"file":5,"reason":"x"}',
    '{"type":"brokenImage","step":1,"file":"x"}',
    '{"type":"verification","step":1,"epoch":1,"maxError":0,"cosine":1,"milliseconds":3}',
    '{"type":"verification","step":1,"epoch":1,"maxError":0,"cosine":1,"milliseconds":3,"blocks":[{"stage":0,"block":1}]}',
    '{"type":"verification","step":1,"epoch":1,"maxError":0,"cosine":1,"milliseconds":3,"blocks":[null]}',
    '{"type":"verification","step":1,"epoch":1,"maxError":0,"cosine":1,"milliseconds":3,"blocks":[{"stage":0,"block":1,"error":0},{}]}',
    "\0\0\0\0",
  ];
  for (const line of damaged)
    it(`are read up to a line such as ${JSON.stringify(line.slice(0, 60))}`, async () => {
      const whole = await write(RECORDS);
      await writeFile(file, `${await readFile(file, "utf8")}${line}\n${JSON.stringify(RECORDS[1])}\n`);
      expect(await readMetrics(file, Number.POSITIVE_INFINITY)).to.deep.equal({ records: RECORDS, bytes: whole });
    });

  it("are read from the end where there are many, with the broken images of all", async () => {
    const step = RECORDS[1]!;
    const broken = (n: number): MetricsRecord => ({ type: "brokenImage", step: 1, file: `${n}.jpg`, reason: "it is empty" });
    const records = Array.from({ length: 3000 }, (_, i) => (i % 1000 === 500 ? broken(i) : { ...step, step: i }) as MetricsRecord);
    const bytes = await write(records);
    const line = (from: number) =>
      records
        .slice(from)
        .map((record) => `${JSON.stringify(record)}\n`)
        .join("").length;
    for (const [window, first] of [
      [line(2990), 2990],
      [line(2990) - 1, 2991],
      [line(2990) + 1, 2990],
      [line(2400), 2400],
    ] as const) {
      const expected = [...records.slice(0, first).filter(({ type }) => type === "brokenImage"), ...records.slice(first)];
      expect(await readMetrics(file, bytes, window), String(first)).to.deep.equal({ records: expected, bytes });
    }
  });

  it("go on after the part that is kept, whatever was behind it", async () => {
    await write(RECORDS);
    const kept = (await readMetrics(file, 150)).bytes;
    const bytes = await write(RECORDS.slice(2, 4), kept);
    expect((await readFile(file)).length).to.equal(bytes);
    expect((await readMetrics(file, bytes)).records).to.deep.equal([RECORDS[0], ...RECORDS.slice(2, 4)]);
  });

  it("wait in memory while the disk fails, and are written once each, in their order", async () => {
    const log = await MetricsLog.open(file, 0);
    await log.append(RECORDS[1]!);
    const { handle } = log as unknown as { handle: { write: unknown } };
    const works = handle.write;
    let tries = 0;
    handle.write = async () => {
      tries += 1;
      throw new Error("ENOSPC");
    };
    const message = (error: Error) => error.message;
    expect(await log.append(RECORDS[2]!).then(() => "", message)).to.equal("ENOSPC");
    // Until the next flush, nothing is tried.
    await log.append(RECORDS[3]!);
    expect(tries).to.equal(1);
    expect(await log.flush().then(() => "", message)).to.equal("ENOSPC");
    expect(tries).to.equal(2);
    handle.write = works;
    await log.append(RECORDS[5]!);
    expect((await readMetrics(file, Number.POSITIVE_INFINITY)).records, "not before a flush").to.deep.equal([RECORDS[1]]);
    await log.flush();
    await log.append(RECORDS[1]!);
    const { bytes } = log;
    await log.close();
    const expected = [1, 2, 3, 5, 1].map((i) => RECORDS[i]!);
    expect(await readMetrics(file, Number.POSITIVE_INFINITY)).to.deep.equal({ records: expected, bytes });
  });

  it("overwrite what a write that failed half-way has left", async () => {
    const log = await MetricsLog.open(file, 0);
    const { handle } = log as unknown as { handle: { write(...args: [Buffer, number, number, number]): Promise<unknown> } };
    const works = handle.write.bind(handle);
    let calls = 0;
    // The first write takes five bytes, the second fails; later ones take seven at a time.
    handle.write = async (bytes, offset, length, position) => {
      calls += 1;
      if (calls === 2) throw new Error("EIO");
      return works(bytes, offset, Math.min(length, calls === 1 ? 5 : 7), position);
    };
    await log.append(RECORDS[1]!).catch(() => {});
    expect((await readFile(file)).length).to.equal(5);
    expect(log.bytes).to.equal(0);
    await log.flush();
    await log.close();
    expect((await readMetrics(file, Number.POSITIVE_INFINITY)).records).to.deep.equal([RECORDS[1]]);
  });
});

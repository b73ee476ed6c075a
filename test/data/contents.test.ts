/** What a resumed run takes for changed: sizes and times first, digests where they are in doubt. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { Contents, digestOf, digestOfPacked, type FileRecord } from "../../lib/data/contents.js";

const [BEFORE, AFTER] = [Buffer.from("before"), Buffer.from("after!")];
const RECORD = { name: "a.png", size: 6, mtimeMs: 1000, ctimeMs: 2000, digest: digestOf(BEFORE) };

describe("contents of files since a run began", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-contents-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  /** What is said of a file as it is now, and the digest that it has afterwards. @param own what this process has read of it already */
  async function compare(now: Partial<FileRecord>, held: Buffer | undefined, before: Partial<FileRecord> = {}, own?: string) {
    if (held) await writeFile(path.join(folder, "a.png"), held);
    const { digest: _, ...file } = { ...RECORD, ...now };
    const contents = new Contents(folder, [{ label: 0, onDisk: file.name, ...file }]);
    if (own !== undefined) contents.note("a.png", own);
    const changes = await contents.changesSince([{ ...RECORD, ...before }]);
    return { changes, digest: [...contents.records()][0]!.digest };
  }
  const same = (digest: string | undefined = RECORD.digest) => ({ changes: [], digest });
  const CHANGED = ["a.png has changed"];

  it("does not read a file of the same size and times", async () => {
    expect(await compare({}, undefined)).to.deep.equal(same());
  });

  it("reads a file of which one time has changed, and tells by its digest", async () => {
    for (const time of [{ mtimeMs: 1001 }, { ctimeMs: 2001 }]) {
      expect(await compare(time, BEFORE), JSON.stringify(time)).to.deep.equal(same());
      expect((await compare(time, AFTER)).changes, JSON.stringify(time)).to.deep.equal(CHANGED);
      await rm(path.join(folder, "a.png"));
      expect((await compare(time, undefined)).changes, "it cannot be read").to.deep.equal(CHANGED);
    }
  });

  it("reads a file by its name on the disk", async () => {
    await writeFile(path.join(folder, "e\u0301.png"), BEFORE);
    const record = { ...RECORD, name: "\u00e9.png" };
    const contents = new Contents(folder, [{ ...record, label: 0, onDisk: "e\u0301.png", ctimeMs: 2001 }]);
    expect(await contents.changesSince([record])).to.deep.equal([]);
  });

  it("believes what was read already more than times", async () => {
    expect(await compare({ mtimeMs: 1, ctimeMs: 1 }, undefined, {}, RECORD.digest)).to.deep.equal(same());
    expect((await compare({}, undefined, {}, digestOf(AFTER))).changes).to.deep.equal(CHANGED);
  });

  it("goes by the times where digests are of different kinds or missing", async () => {
    const packed = digestOfPacked(7);
    expect(await compare({}, undefined, {}, packed)).to.deep.equal(same(packed));
    expect((await compare({ mtimeMs: 1 }, AFTER, {}, packed)).changes).to.deep.equal(CHANGED);
    for (const digest of [undefined, packed]) {
      expect((await compare({ ctimeMs: 1 }, AFTER, { digest })).changes, "renamed, not written").to.deep.equal([]);
      expect((await compare({ mtimeMs: 1 }, BEFORE, { digest })).changes).to.deep.equal(CHANGED);
    }
  });

  it("names what has another size, what is gone and what is new", async () => {
    expect((await compare({ size: 7 }, undefined)).changes).to.deep.equal(CHANGED);
    const contents = new Contents(folder, [{ label: 0, ...RECORD, name: "b.png", onDisk: "b.png" }]);
    expect(await contents.changesSince([RECORD])).to.deep.equal(["a.png is gone", "b.png is new"]);
  });
});

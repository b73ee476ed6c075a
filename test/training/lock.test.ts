/** A run's lock: whose it is, whose it stays, and what becomes of the locks of the dead. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { FolderLock } from "../../lib/training/lock.js";
import { rejection } from "../support/errors.js";

describe("the lock of a run's folder", () => {
  let folder: string;
  let file: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-lock-"));
    file = path.join(folder, "run.lock");
  });
  afterEach(() => rm(folder, { recursive: true }));

  const present = () => readFile(file, "utf8").catch(() => undefined);
  const owner = (fields: object) => `${JSON.stringify({ host: hostname(), since: "2020-02-02T02:02:02Z", ...fields })}\n`;

  it("names the process, keeps others out, and is gone with all that made it once it is released", async () => {
    const lock = await FolderLock.take(folder);
    expect(JSON.parse((await present())!)).to.include({ pid: process.pid, host: hostname() });
    expect(await rejection(FolderLock.take(folder), "ERR_RUN_LOCKED"))
      .to.include(`process ${process.pid}`)
      .and.include(file);
    expect(await readdir(folder)).to.deep.equal(["run.lock"]);
    await lock.release();
    expect(await readdir(folder)).to.deep.equal([]);
    await (await FolderLock.take(folder)).release();
  });

  it("is taken by one of many who come at once", async () => {
    const all = await Promise.allSettled(Array.from({ length: 8 }, () => FolderLock.take(folder)));
    const taken = all.filter((result) => result.status === "fulfilled");
    expect(taken).to.have.length(1);
    await taken[0]!.value.release();
    expect(await readdir(folder)).to.deep.equal([]);
  });

  it("stays where it is another's by the time it is released", async () => {
    const lock = await FolderLock.take(folder);
    for (const theirs of [owner({ pid: process.pid }), owner({ pid: 1 }), ""]) {
      await writeFile(file, theirs);
      await lock.release();
      expect(await present()).to.equal(theirs);
    }
    await rm(file);
    await lock.release();
    expect(await present()).to.equal(undefined);
  });

  const dead = 2 ** 22 + 1; // Beyond the greatest number that Linux gives a process.
  const stale: [string, () => string][] = [
    ["a process that is dead", () => owner({ pid: dead })],
    ["an earlier process of this one's number", () => owner({ pid: process.pid, process: "an earlier boot 1" })],
    ["nobody, since it is empty", () => ""],
    ["nobody, since it is no lock", () => "null"],
    ["a process of number 0", () => owner({ pid: 0 })],
    ["a process without a number", () => owner({ pid: "1" })],
  ];
  for (const [whose, content] of stale)
    it(`is taken over from ${whose}`, async function () {
      if (process.platform !== "linux" && whose.startsWith("an earlier")) this.skip();
      await writeFile(file, content());
      const lock = await FolderLock.take(folder);
      expect(JSON.parse((await present())!)).to.include({ pid: process.pid });
      await lock.release();
      expect(await readdir(folder)).to.deep.equal([]);
    });

  const held: [string, () => string][] = [
    ["a process that runs, of which no more is known", () => owner({ pid: process.pid })],
    ["another user's process", () => owner({ pid: 1 })],
    ["another machine's process, be it dead or not", () => owner({ pid: dead, host: "elsewhere" })],
  ];
  for (const [whose, content] of held)
    it(`is respected where it is that of ${whose}`, async () => {
      await writeFile(file, content());
      const message = await rejection(FolderLock.take(folder), "ERR_RUN_LOCKED");
      expect(message).to.include("since 2020-02-02T02:02:02Z");
      expect(message.includes("elsewhere")).to.equal(content().includes("elsewhere"));
      expect(await present()).to.equal(content());
      expect(await readdir(folder)).to.deep.equal(["run.lock"]);
    });

  it("cannot be taken where there is no folder", async () => {
    expect(await rejection(FolderLock.take(path.join(folder, "none")), "ERR_FILE")).to.include("none");
  });
});

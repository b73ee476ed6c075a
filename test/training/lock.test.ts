/** A run's lock: whose it is, whose it stays, and what becomes of the locks of the dead. */
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
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
  const quick = { beat: 20, stale: 60 };
  const owner = (fields: object) => `${JSON.stringify({ token: "t", pid: 7, host: hostname(), since: "2020-02-02", ...fields })}\n`;
  const elsewhere = owner({ host: "elsewhere", boot: "another" });

  it("names the process, keeps others out, and is gone with all that made it once it is released", async () => {
    const lock = await FolderLock.take(folder);
    expect(JSON.parse((await present())!)).to.include({ pid: process.pid, host: hostname() });
    expect(await rejection(FolderLock.take(folder), "ERR_RUN_LOCKED")).to.include(`process ${process.pid}, since`);
    await lock.confirm();
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

  it("is never had by two, however often it changes hands", async () => {
    let [holders, turns] = [0, 0];
    const one = async () => {
      while (turns < 60) {
        const lock = await FolderLock.take(folder).catch(() => undefined);
        if (!lock) continue;
        expect(++holders).to.equal(1);
        await lock.confirm();
        turns += 1;
        holders -= 1;
        await lock.release();
      }
    };
    await Promise.all(Array.from({ length: 6 }, one));
  });

  it("is lost where it is another's or gone, and then left alone", async () => {
    const lock = await FolderLock.take(folder);
    await writeFile(file, elsewhere);
    expect(await rejection(lock.confirm(), "ERR_RUN_LOCKED")).to.include("process 7 on elsewhere");
    await lock.release();
    expect(await present()).to.equal(elsewhere);
    await rm(file);
    const other = await FolderLock.take(folder);
    await rm(file);
    await rejection(other.confirm(), "ERR_RUN_LOCKED");
    // What was lost once is not had again.
    await writeFile(file, "");
    await rejection(other.confirm(), "ERR_RUN_LOCKED");
    await other.release();
  });

  const dead = 2 ** 22 + 1; // Beyond the greatest number that Linux gives a process.
  const boot = () => readFile("/proc/sys/kernel/random/boot_id", "utf8").then((id) => id.trim());
  const left: [string, () => Promise<string> | string][] = [
    ["a process of this machine, whatever its container was called", async () => owner({ host: "container", boot: await boot() })],
    ["a process of this one's number, which the kernel would know to have it", async () => owner({ pid: 1, boot: await boot() })],
    ["another machine's process that gives no sign of life", () => elsewhere],
    ["a process of before the machine was started", () => owner({ pid: dead, boot: "earlier" })],
    ["nobody, since it is empty", () => ""],
    ["nobody, since a power failure left zeros", () => "\0\0\0\0"],
    ["nobody, since a full disk left four bytes", () => elsewhere.slice(0, 4)],
    ["nobody, since a full disk left a half", () => elsewhere.slice(0, elsewhere.length / 2)],
  ];
  for (const [whose, content] of left)
    it(`is taken over from ${whose}`, async function () {
      if (process.platform !== "linux") this.skip();
      await writeFile(file, await content());
      const lock = await FolderLock.take(folder, quick);
      expect(JSON.parse((await present())!)).to.include({ pid: process.pid });
      await lock.release();
      expect(await readdir(folder)).to.deep.equal([]);
    });

  it("is respected where it is another machine's that gives signs of life, or that changes", async () => {
    for (const next of [elsewhere, owner({ token: "u", boot: "another" })]) {
      await writeFile(file, elsewhere);
      const beats = setInterval(() => void writeFile(file, next), 5);
      expect(await rejection(FolderLock.take(folder, { beat: 20, stale: 10_000 }), "ERR_RUN_LOCKED")).to.include("since 2020");
      clearInterval(beats);
    }
  });

  it("gives signs of life", async () => {
    const lock = await FolderLock.take(folder, quick);
    const content = await present();
    await utimes(file, 1, 1);
    while ((await stat(file)).mtimeMs === 1000) await new Promise((wake) => setTimeout(wake, 5));
    expect(await present()).to.equal(content);
    await lock.release();
  });

  it("is not waited for after an abort", async () => {
    await writeFile(file, elsewhere);
    const signal = AbortSignal.timeout(30);
    await rejection(FolderLock.take(folder, { signal }), "ERR_ABORTED");
    expect(await present()).to.equal(elsewhere);
  });

  it("is no other file, which stays as it is", async () => {
    for (const text of ["my notes", "{}", "null"]) {
      await writeFile(file, text);
      expect(await rejection(FolderLock.take(folder, quick), "ERR_FILE")).to.include("not the lock of a run");
      expect(await present()).to.equal(text);
    }
    await rm(file);
    await mkdir(file);
    await rejection(FolderLock.take(folder), "ERR_FILE");
    await rm(file, { recursive: true });
    await writeFile(path.join(folder, "target"), "");
    await symlink("target", file);
    await rejection(FolderLock.take(folder), "ERR_FILE");
    expect(await readFile(path.join(folder, "target"), "utf8")).to.equal("");
  });

  it("cannot be taken where there is no folder", async () => {
    expect(await rejection(FolderLock.take(path.join(folder, "none")), "ERR_FILE")).to.include("none");
  });
});

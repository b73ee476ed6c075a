import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { flush, makeFolder, removeTemporaryFiles, writeFileAtomically } from "../../lib/files/atomic.js";
import { expectClosed } from "../support/descriptors.js";
import { rejection } from "../support/errors.js";

describe("flushing a file", () => {
  it("needs no more of its handle than the descriptor, which is all that Yarn's Plug'n'Play gives", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "revnet-flush-"));
    const handle = await open(path.join(folder, "file"), "wx");
    try {
      const missing = () => Promise.reject(new Error("Method not implemented."));
      Object.assign(handle, { sync: missing, datasync: missing });
      await handle.writeFile("text");
      await flush(handle);
      expect(await readFile(path.join(folder, "file"), "utf8")).to.equal("text");
    } finally {
      await handle.close();
      await rm(folder, { recursive: true });
    }
  });
});

describe("files that are written whole or not at all", () => {
  let folder: string;
  const at = (...names: string[]) => path.join(folder, ...names);
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-atomic-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("hold their chunks one after another, and nothing of what was there before", async () => {
    await writeFile(at("file"), "something longer than what comes");
    await writeFileAtomically(at("file"), [Buffer.from("ab"), new Uint8Array(0), Buffer.from("c")]);
    expect(await readFile(at("file"), "utf8")).to.equal("abc");
    await writeFileAtomically(at("empty"), []);
    expect((await stat(at("empty"))).size).to.equal(0);
    expect((await readdir(folder)).sort()).to.deep.equal(["empty", "file"]);
  });

  it("are closed, whether writing succeeds or not", async () => {
    await expectClosed(() => writeFileAtomically(at("file"), [Buffer.from("a")]));
    await expectClosed(() => writeFileAtomically(at("file"), [5 as unknown as Uint8Array]).catch(() => {}));
    let made = 0;
    await expectClosed(() => makeFolder(at(`folder-${made++}`)));
  });

  it("are one of those that are written at the same time", async () => {
    const texts = Array.from({ length: 8 }, (_, i) => String(i).repeat(100_000));
    await Promise.all(texts.map((text) => writeFileAtomically(at("file"), [Buffer.from(text)])));
    expect(texts).to.include(await readFile(at("file"), "utf8"));
    expect(await readdir(folder)).to.deep.equal(["file"]);
  });

  it("stay as they were where writing fails on the way, and leave nothing beside", async () => {
    await writeFile(at("file"), "old");
    const failing = [Buffer.from("new"), 5 as unknown as Uint8Array];
    expect(await rejection(writeFileAtomically(at("file"), failing), "ERR_FILE")).to.include(`cannot write '${at("file")}': `);
    expect(await readFile(at("file"), "utf8")).to.equal("old");
    await mkdir(at("in-the-way"));
    await rejection(writeFileAtomically(at("in-the-way"), [Buffer.from("new")]), "ERR_FILE");
    expect(await rejection(writeFileAtomically(at("none", "file"), []), "ERR_FILE")).to.include("ENOENT");
    expect((await readdir(folder)).sort()).to.deep.equal(["file", "in-the-way"]);
  });
});

describe("folders", () => {
  let folder: string;
  const at = (...names: string[]) => path.join(folder, ...names);
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-folders-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("are made with those above them, or are there already", async () => {
    for (let i = 0; i < 2; i++) await makeFolder(at("a", "b", "c"));
    expect((await stat(at("a", "b", "c"))).isDirectory()).to.equal(true);
    await makeFolder("/");
  });

  it("are refused where a file is in the way, or the system makes none", async () => {
    await writeFile(at("file"), "");
    expect(await rejection(makeFolder(at("file")), "ERR_FILE")).to.include(`cannot make the folder '${at("file")}': EEXIST`);
    expect(await rejection(makeFolder(at("file", "below")), "ERR_FILE")).to.include("ENOTDIR");
    if (process.platform === "linux") await rejection(makeFolder("/proc/revnet/run"), "ERR_FILE");
  });

  it("are rid of temporary files and of nothing else", async () => {
    const others = [
      "a.tmp",
      "notes.2026.11.tmp",
      "a.revnet-12.tmp",
      "a.1.tmp",
      "a.1.2.tmp.txt",
      "a.x.2.tmp",
      "a.1.x.tmp",
      "12.tmp",
      "a.1.2",
    ];
    for (const name of [...others, "a.revnet-0123456789abcdef.tmp", "b.json.revnet-00000000000000ff.tmp"])
      await writeFile(at(name), "");
    // A folder is none; those after it are removed all the same.
    await mkdir(at("a.revnet-0000000000000000.tmp"));
    await removeTemporaryFiles(folder);
    expect((await readdir(folder)).sort()).to.deep.equal([...others, "a.revnet-0000000000000000.tmp"].sort());
    await removeTemporaryFiles(at("none"));
    await removeTemporaryFiles(at("a.tmp"));
  });
});

/** What scripts/build.js makes of a build folder that is not its own any more. What compiling does then is tried by install.test. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";

interface BuildFolder {
  empty(folder: string): string[];
  hashSources(root: string, folders: string[]): Record<string, string>;
  staleness(folder: string, root: string, settings: object, sources: Record<string, string>): string | undefined;
  writeStamp(folder: string, root: string, settings: object, sources: Record<string, string>): void;
}
const { empty, hashSources, staleness, writeStamp } = require("../../../scripts/build-folder.js") as BuildFolder;

describe("a build folder", () => {
  let root: string;
  const build = (at = root) => path.join(at, "build");
  const settings = { compiler: "g++ 12", generator: "Ninja" };
  const sources = (at = root) => hashSources(at, ["CMakeLists.txt", "native"]);
  const why = (changed: object = {}, at = root) => staleness(build(at), at, { ...settings, ...changed }, sources(at));
  const past = new Date(Date.now() - 60_000);

  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), "revnet-build-"));
    mkdirSync(path.join(root, "native", "core"), { recursive: true });
    for (const file of ["CMakeLists.txt", "native/core/a.cc"]) {
      writeFileSync(path.join(root, file), "old");
      utimesSync(path.join(root, file), past, past);
    }
    mkdirSync(path.join(build(), "Release"), { recursive: true });
    writeFileSync(
      path.join(build(), "CMakeCache.txt"),
      `CMAKE_CACHEFILE_DIR:INTERNAL=${build()}\nREVNET_CUDA:STRING=off\nREVNET_CUDA_ARCHITECTURES:STRING=\n`,
    );
    writeStamp(build(), root, settings, sources());
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  it("is built on where nothing but sources with their new times has changed", () => {
    expect(why()).to.equal(undefined);
    writeFileSync(path.join(root, "native/core/a.cc"), "new");
    const later = new Date(Date.now() + 1000);
    utimesSync(path.join(root, "native/core/a.cc"), later, later);
    expect(why()).to.equal(undefined);
  });

  it("is stale after another compiler, another generator, another place", () => {
    expect(why({ compiler: "clang++ 16" })).to.match(/another compiler/);
    expect(why({ generator: "Unix Makefiles" })).to.match(/another generator/);
    const moved = `${root}-moved`;
    renameSync(root, moved);
    expect(why({}, moved)).to.match(/was made at/);
    renameSync(moved, root);
  });

  it("is stale where a source has changed and its time does not tell, or an old one is new there", () => {
    writeFileSync(path.join(root, "native/core/a.cc"), "new");
    utimesSync(path.join(root, "native/core/a.cc"), past, past);
    expect(why()).to.match(/another native.core.a\.cc/);
    writeFileSync(path.join(root, "native/core/a.cc"), "old");
    writeFileSync(path.join(root, "native/core/b.cc"), "");
    utimesSync(path.join(root, "native/core/b.cc"), past, past);
    expect(why()).to.match(/another native.core.b\.cc/);
  });

  it("is stale where it is incomplete, of unknown origin or damaged, and fresh where nothing was built", () => {
    writeFileSync(path.join(build(), "revnet-build.json"), "{");
    expect(why()).to.match(/does not say/);
    rmSync(path.join(build(), "revnet-build.json"));
    expect(why()).to.match(/does not say/);
    rmSync(path.join(build(), "CMakeCache.txt"));
    expect(why()).to.match(/incomplete/);
    rmSync(path.join(build(), "Release"), { recursive: true });
    expect(why()).to.equal(undefined);
  });

  it("loses what a build has left and nothing else, and keeps the choices that were made for it", () => {
    for (const name of ["build.ninja", ".ninja_log", "Makefile", "notes.txt"]) writeFileSync(path.join(build(), name), "");
    const before = process.env.REVNET_CUDA;
    try {
      delete process.env.REVNET_CUDA;
      expect(empty(build())).to.deep.equal(["--CDREVNET_CUDA=off"]);
    } finally {
      if (before !== undefined) process.env.REVNET_CUDA = before;
    }
    expect(readdirSync(build())).to.deep.equal(["notes.txt"]);
    expect(existsSync(path.join(root, "native"))).to.equal(true);
  });
});

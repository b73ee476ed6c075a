import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { MAX_DEPTH, parseJson, readJson } from "../../lib/files/json.js";
import { isAbsent, OpenFile, openFileSync, readFile, readFileSync } from "../../lib/files/open.js";
import { rejection, thrown } from "../support/errors.js";

describe("files: the one way to open them", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "revnet-files-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const at = (name: string) => path.join(folder, name);

  /** What each way of opening says of a file. */
  async function refusals(file: string, limit = 100): Promise<string[]> {
    const expected = { what: "thing", limit };
    return [
      await rejection(OpenFile.open(file, expected), "ERR_FILE"),
      await rejection(readFile(file, expected), "ERR_FILE"),
      thrown(() => openFileSync(file, expected)).message,
      thrown(() => readFileSync(file, expected)).message,
    ];
  }

  it("says what something is that is no regular file, and never waits for it", async () => {
    for (const message of await refusals(folder)) expect(message).to.contain(`thing '${folder}' cannot be read: it is a folder`);
    if (process.platform === "win32") return;
    execFileSync("mkfifo", [at("pipe")]);
    symlinkSync(at("pipe"), at("link"));
    for (const name of ["pipe", "link"])
      for (const message of await refusals(at(name))) expect(message).to.match(/it is a named pipe, expected a regular file$/);
    for (const message of await refusals("/dev/zero")) expect(message).to.contain("it is a device");
    const server = createServer().listen(at("socket"));
    await new Promise((resolve) => server.once("listening", resolve));
    for (const message of await refusals(at("socket"))) expect(message).to.contain("it is a socket");
    server.close();
  });

  it("refuses what is too large by its size, and says what was expected", async () => {
    writeFileSync(at("large"), Buffer.alloc(101));
    for (const message of await refusals(at("large")))
      expect(message).to.match(/it has 101 B \(101 bytes\), expected at most 100 B$/);
    writeFileSync(at("right"), Buffer.alloc(100, 7));
    expect(await readFile(at("right"), { limit: 100 })).to.deep.equal(Buffer.alloc(100, 7));
    expect(readFileSync(at("right"), { limit: 100 })).to.deep.equal(Buffer.alloc(100, 7));
  });

  it("holds the limit where a file has more bytes than it says", async function () {
    if (process.platform !== "linux") this.skip();
    expect(String(await readFile("/proc/self/stat", { limit: 10_000 }))).to.match(new RegExp(`^${process.pid} `));
    expect(await rejection(readFile("/proc/self/stat", { limit: 10 }), "ERR_FILE")).to.contain("expected at most 10 B");
    expect(thrown(() => readFileSync("/proc/self/stat", { limit: 10 })).message).to.contain("expected at most 10 B");
  });

  it("tells an absent file from others", async () => {
    for (const name of ["absent", "right/below"]) {
      writeFileSync(at("right"), "x");
      expect(isAbsent(await readFile(at(name), { limit: 1 }).catch((error) => error))).to.equal(true);
    }
    expect(isAbsent(await readFile(folder, { limit: 1 }).catch((error) => error))).to.equal(false);
  });

  it("reads parts, and says where a file ends before", async () => {
    writeFileSync(at("digits"), "0123456789");
    const file = await OpenFile.open(at("digits"));
    try {
      expect(Buffer.from(await file.read(3, 4)).toString()).to.equal("3456");
      let text = "";
      for await (const piece of file.pieces(2, 9)) text += Buffer.from(piece).toString();
      expect(text).to.equal("2345678");
      expect(await rejection(file.read(8, 3), "ERR_FILE")).to.contain("it ended while it was read");
    } finally {
      await file.close();
    }
  });

  it("limits the depth of JSON, brackets in strings aside", async () => {
    const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
    expect(parseJson(nested(MAX_DEPTH), "it", "ERR_FILE")).to.be.an("array");
    for (const text of [nested(MAX_DEPTH + 1), nested(100_000), '{"a":'.repeat(100_000)])
      expect(thrown(() => parseJson(text, "it", "ERR_INVALID_SPEC")).message).to.equal(
        "it nests more than 64 levels of arrays and objects",
      );
    const quoted = JSON.stringify({ text: `${'\\"['.repeat(500)}"{{` });
    expect(parseJson(quoted, "it", "ERR_FILE")).to.deep.equal(JSON.parse(quoted));
    writeFileSync(at("config.json"), '\ufeff{"a": 1}');
    expect(await readJson(at("config.json"), "ERR_INVALID_FILE", { limit: 100 })).to.deep.equal({ a: 1 });
    writeFileSync(at("config.json"), "{");
    expect(await rejection(readJson(at("config.json"), "ERR_INVALID_FILE", { limit: 100 }), "ERR_INVALID_FILE")).to.contain(
      `'${at("config.json")}' is not JSON`,
    );
  });
});

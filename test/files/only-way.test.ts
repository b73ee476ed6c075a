/** No file of lib/ opens a file to read but by lib/files/open.ts, and none parses a file's JSON in another way. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect } from "chai";
import { packageRoot } from "../../lib/package.js";

/** Ways of opening a file, as they are written. */
const OPENING =
  /\b(?:fs\.|promises\.)(?:readFile|readFileSync|open|openSync|openAsBlob|createReadStream|opendir|opendirSync|readv|cp|cpSync)\s*\(|\bJSON\.parse\s*\(|import\s*\{[^}]*\b(?:readFile|readFileSync|open|openSync|openAsBlob|createReadStream|opendir|cp|cpSync)\b[^}]*\}\s*from\s*"(?:node:)?fs(?:\/promises)?"/g;

/** What may stand there all the same, and why it is no file of anybody else's that is read. */
const ALLOWED: readonly [file: string, text: string, times: number][] = [
  ["files/atomic.ts", 'fs.open(temporary, "wx")', 1], // a new file
  ["files/atomic.ts", 'fs.open(folder, "r")', 1], // a folder, to flush it
  ["data/pack.ts", 'fs.open(temporary, "wx")', 1], // a new file
  ["data/fetch.ts", "fs.open(part, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o666)", 1], // to write, no link, no pipe
  ["training/identity.ts", "JSON.parse(JSON.stringify(", 1], // an object of our own
  ["training/live.ts", "JSON.parse(JSON.stringify(", 1],
];
/** Those that open and parse for all others. */
const WAYS = ["files/open.ts", "files/json.ts"];
/** Those of a run's folder. */
const OWN = ["training/lock.ts", "training/metrics.ts", "training/folder.ts", "verify/expectation.ts"];

/** Sources of lib/ other than these, without their comments. */
function sources(): Map<string, string> {
  const lib = path.join(packageRoot(), "lib");
  const names = readdirSync(lib, { recursive: true, encoding: "utf8" }).map((name) => name.split(path.sep).join("/"));
  const wanted = names.filter((name) => name.endsWith(".ts") && !WAYS.includes(name) && !OWN.includes(name));
  return new Map(wanted.map((name) => [name, readFileSync(path.join(lib, name), "utf8").replace(/^\s*(?:\/\/|\/?\*).*$/gm, "")]));
}

describe("lib/files", () => {
  it("is the only place where files are opened", () => {
    const found: string[] = [];
    for (const [name, source] of sources()) {
      let rest = source;
      for (const [file, text, times] of ALLOWED) if (file === name) for (let i = 0; i < times; i++) rest = rest.replace(text, "");
      for (const match of rest.matchAll(OPENING)) found.push(`${name}: ${match[0].replace(/\s+/g, " ")}`);
    }
    expect(found, "open files by lib/files/open.ts, parse by lib/files/json.ts").to.deep.equal([]);
  });

  it("is needed by all that is allowed", () => {
    const all = sources();
    for (const [file, text] of ALLOWED) expect(all.get(file), file).to.include(text);
  });
});

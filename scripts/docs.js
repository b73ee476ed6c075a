#!/usr/bin/env node
/** Writes docs/api.md, the API reference, from the comments in lib/ (typedoc.json says how); --check only says whether it is current. */

const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const root = path.resolve(__dirname, "..");
const reference = path.join(root, "docs", "api.md");
const check = process.argv.includes("--check");

const HEAD = `<!-- Written by \`npm run docs\` from the comments in lib/: change those. -->

Everything that the package exports. Arrays of images are NHWC, sizes are bytes, durations milliseconds, errors and shares fractions;
whatever is thrown is a [RevNetError](errors.md).
`;

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-docs-"));
try {
  const typedoc = path.join(path.dirname(require.resolve("typedoc/package.json", { paths: [root] })), "bin", "typedoc");
  const { status } = spawnSync(process.execPath, [typedoc, "--logLevel", "Warn", "--out", folder], { cwd: root, stdio: "inherit" });
  if (status !== 0) process.exit(1);
  const [title, ...rest] = fs.readFileSync(path.join(folder, "api.md"), "utf8").split("\n");
  // TrainOptions extends what is derived from its declarations, which is nobody's business outside.
  const body = rest.join("\n").replace(/#### Extends\n\n(- `(Asked|Offered)`.*\n)+\n/, "");
  const text = `${title}\n\n${HEAD}${body}`;
  const current = fs.existsSync(reference) && fs.readFileSync(reference, "utf8") === text;
  if (!check) fs.writeFileSync(reference, text);
  else if (!current) {
    console.error("docs/api.md is not what the comments in lib/ say: run `npm run docs`");
    process.exitCode = 1;
  }
} finally {
  fs.rmSync(folder, { recursive: true });
}

/** The package as others see it: both entry points, what is packed, and what it says where the addon is missing. */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";

const root = path.resolve(__dirname, "../../..");

/** Runs `source` in a process of its own and returns what it prints, parsed. */
function evaluate(source: string, type: "commonjs" | "module", folder = root): unknown {
  return JSON.parse(execFileSync(process.execPath, [`--input-type=${type}`, "-e", source], { cwd: folder, encoding: "utf8" }));
}

/** Files of a folder of the repository, relative to its root. */
function allFiles(folder: string): string[] {
  return readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)));
}

describe("package", () => {
  it("exports the same names to ES modules and to CommonJS", () => {
    const required = evaluate("console.log(JSON.stringify(Object.keys(require('revnet')).sort()))", "commonjs") as string[];
    const imported = evaluate(
      "import * as r from 'revnet'; console.log(JSON.stringify(Object.keys(r).sort()))",
      "module",
    ) as string[];
    expect(imported.filter((name) => !["__esModule", "default", "module.exports"].includes(name))).to.deep.equal(required);
    expect(required).to.include.members([
      "trainRevNet",
      "createNetwork",
      "loadNetwork",
      "memoryPlan",
      "openDataset",
      "devices",
      "RevNetError",
    ]);
  });

  it("packs what an installation needs, and no more", function () {
    if (process.platform === "win32") return this.skip(); // npm is a script there
    const [{ files }] = JSON.parse(
      execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: root, encoding: "utf8" }),
    );
    const names = (files as { path: string }[]).map((file) => file.path);
    expect(names).to.include.members([
      "CMakeLists.txt",
      "LICENSE",
      "README.md",
      "binding.d.ts",
      "scripts/build.js",
      "models/revnet-38.json",
      "assets/report.js",
      "assets/report.css",
    ]);
    expect(names).to.include.members([
      "dist/index.js",
      "dist/index.mjs",
      "dist/index.d.ts",
      "dist/index.d.mts",
      "dist/cli/main.js",
    ]);
    expect(names).to.include.members(["native/core/ops.h", "native/binding/module.cc"]);
    expect(names).to.include.members(["CHANGELOG.md", "docs/errors.md", "docs/architecture.md", "docs/data.md"]);
    expect(names).to.include.members(allFiles("native").filter((name) => !name.endsWith("README.md")));
    expect(names.filter((name) => /^(test|lib|build|dist-test|bench|examples|\.)|\.map$/.test(name))).to.deep.equal([]);
    expect(names.filter((name) => name.startsWith("docs/") && !name.endsWith(".md"))).to.deep.equal([]);
  });

  it("packs every file that the README and the docs refer to, but for those of the repository", () => {
    const repository = ["examples", "bench/", "test/", "models", "CONTRIBUTING.md"];
    for (const file of ["README.md", "CHANGELOG.md", ...allFiles("docs")]) {
      const text = readFileSync(path.join(root, file), "utf8");
      for (const [, link] of text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)) {
        const target = path.relative(root, path.resolve(root, path.dirname(file), link!));
        expect(existsSync(path.join(root, target)), `${file} refers to ${link}`).to.equal(true);
        const packed =
          repository.some((name) => target.startsWith(name)) || /^(docs\/.*\.md|LICENSE|CHANGELOG\.md|README\.md)$/.test(target);
        expect(packed, `${file} refers to ${link}, which is not packed`).to.equal(true);
      }
    }
  });

  it("says what to do where the addon was not built", () => {
    const folder = mkdtempSync(path.join(tmpdir(), "revnet-unbuilt-"));
    try {
      for (const name of ["dist", "models", "package.json"])
        cpSync(path.join(root, name), path.join(folder, name), { recursive: true });
      symlinkSync(path.join(root, "node_modules"), path.join(folder, "node_modules"), "junction");
      const source =
        "const r = require('revnet'); try { r.devices(); } catch ({ name, code, message }) { console.log(JSON.stringify({ name, code, message })); }";
      const error = evaluate(source, "commonjs", folder) as Record<string, string>;
      expect(error.name).to.equal("RevNetError");
      expect(error.code).to.equal("ERR_ADDON_MISSING");
      expect(error.message)
        .to.match(/revnet\.node/)
        .and.match(/install scripts are blocked/i)
        .and.match(/npm run build:native/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("tells apart why the addon cannot be loaded", () => {
    const source =
      "try { require('./dist/index.js').devices(); } catch ({ code, message }) { console.log(JSON.stringify({ code, message })); }";
    const told = (flags: string[], folder = root) => {
      const output = execFileSync(process.execPath, [...flags, "-e", source], {
        cwd: folder,
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      });
      return JSON.parse(output) as { code: string; message: string };
    };
    const permission = process.allowedNodeEnvironmentFlags.has("--permission") ? "--permission" : "--experimental-permission";
    const cases: [RegExp, ReturnType<typeof told>][] = [
      [/--no-addons/, told(["--no-addons"])],
      [/permission model.*--allow-addons/, told([permission, "--allow-fs-read=*"])],
    ];
    // As a bundler leaves it: the code in a file of the application's, and nothing of the package beside it.
    const application = mkdtempSync(path.join(tmpdir(), "revnet-bundled-"));
    try {
      cpSync(path.join(root, "dist"), path.join(application, "dist"), { recursive: true });
      symlinkSync(path.join(root, "node_modules"), path.join(application, "node_modules"), "junction");
      writeFileSync(path.join(application, "package.json"), '{ "name": "application" }');
      cases.push([/bundler.*--external:revnet/, told([], application)]);
    } finally {
      rmSync(application, { recursive: true });
    }
    for (const [words, { code, message }] of cases) {
      expect(code, message).to.equal("ERR_ADDON_MISSING");
      expect(message)
        .to.match(words)
        .and.not.match(/install scripts|npx/i);
    }
  });
});

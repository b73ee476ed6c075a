/** What a caller gives may be of another realm (a vm context, jest's), whose classes are not this one's. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect } from "chai";
import { packageRoot } from "../../lib/package.js";

describe("lib", () => {
  it("asks for no built-in class by instanceof: what is of another realm is none of it", () => {
    const lib = path.join(packageRoot(), "lib");
    const sources = readdirSync(lib, { recursive: true, encoding: "utf8" })
      .filter((name) => /\.m?ts$/.test(name))
      .map((name) => [name, readFileSync(path.join(lib, name), "utf8").replace(/^\s*(?:\/\/|\/?\*).*$/gm, "")] as const);
    const own = new Set(sources.flatMap(([, source]) => [...source.matchAll(/\bclass (\w+)/g)].map(([, name]) => name!)));
    const asked = sources.flatMap(([file, source]) =>
      [...source.matchAll(/\binstanceof\s+([\w.]+)/g)].map(([, name]) => ({ file, name: name! })),
    );
    expect(asked.length, "is anything found at all").to.be.greaterThan(10);
    expect(asked.filter(({ name }) => !own.has(name))).to.deep.equal([]);
  });
});

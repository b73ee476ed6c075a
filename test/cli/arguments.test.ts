/** How a command's arguments are read, where the words alone do not say. */
import { expect } from "chai";
import { bench } from "../../lib/cli/bench.js";
import { readArguments } from "../../lib/cli/command.js";

describe("arguments of a command", () => {
  it("takes a peer's flags as a value, though they begin like options", () => {
    for (const given of [["--peer-flags=--compile"], ["--peer-flags", "--compile --bf16"]])
      expect(readArguments(bench, given).values).to.deep.equal({ peerFlags: given.join("=").slice("--peer-flags=".length) });
    expect(() => readArguments(bench, ["--peer-flags", "--compile"])).to.throw("expects a value");
  });
});

/** `revnet export`: the file is the one that exportOnnx writes; what is asked wrongly costs nothing. */
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect } from "chai";
import { createNetwork } from "../../lib/network/network.js";
import { TINY_REVNET } from "../support/tiny.js";

const MAIN = path.join(__dirname, "../../lib/cli/main.js");

describe("revnet export", function () {
  this.timeout(120_000);
  let folder: string;
  const file = (name: string) => path.join(folder, name);
  const revnet = (...args: string[]) => spawnSync(process.execPath, [MAIN, "export", ...args], { encoding: "utf8" });
  before(async () => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-export-"));
    const network = createNetwork(TINY_REVNET, { device: "cpu", threads: 1 });
    await network.save(file("model.safetensors"));
    await network.exportOnnx(file("expected.onnx"));
    network.dispose();
  });
  after(() => fs.rmSync(folder, { recursive: true }));

  it("writes the model and says what it is", () => {
    const said = revnet(file("model.safetensors"), file("a.onnx"));
    expect(said.status, said.stderr).to.equal(0);
    expect(said.stdout).to.match(
      /^tiny-revnet: .*a\.onnx, .* images \[batch, 8, 8, 3\] in \[0, 255\] to 4 logits and probabilities\n$/,
    );
    const expected = fs.readFileSync(file("expected.onnx"));
    expect(fs.readFileSync(file("a.onnx")).equals(expected)).to.equal(true);
    const { stdout } = revnet(file("model.safetensors"), file("b.onnx"), "--json");
    expect(JSON.parse(stdout)).to.deep.equal({
      model: "tiny-revnet",
      file: file("b.onnx"),
      bytes: expected.length,
      input: [8, 8, 3],
      classes: 4,
    });
  });

  it("exits 2 on bad usage, and never writes over a model", () => {
    const model = fs.readFileSync(file("model.safetensors"));
    expect(revnet(file("model.safetensors")).status).to.equal(2);
    const exchanged = revnet(file("expected.onnx"), file("model.safetensors"));
    expect(exchanged.status).to.equal(2);
    expect(exchanged.stderr).to.match(/ends in \.onnx, got '.*model\.safetensors'/);
    expect(fs.readFileSync(file("model.safetensors")).equals(model)).to.equal(true);
  });

  it("exits 1 where there is no model, or nowhere to write", () => {
    for (const args of [
      [file("none.safetensors"), file("c.onnx")],
      [file("expected.onnx"), file("c.onnx")],
      [file("model.safetensors"), file("none/c.onnx")],
    ]) {
      const { status, stderr } = revnet(...args);
      expect(status, stderr).to.equal(1);
      expect(stderr)
        .to.match(/^revnet: .*'.*'.*\n$/)
        .and.not.match(/\n\s+at /);
    }
    expect(fs.existsSync(file("c.onnx"))).to.equal(false);
  });
});

/**
 * Weights to PyTorch and back, by examples/pytorch_weights.py. Runs where REVNET_TEST_PYTHON is a Python with PyTorch and
 * REVNET_TEST_PEER a file whose `Network(name)` is a PyTorch module of a published CIFAR network.
 */
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect } from "chai";
import { normalize } from "../../lib/network/images.js";
import { resolveModel } from "../../lib/network/models.js";
import { loadNetwork, type Network } from "../../lib/network/network.js";
import { largestDifference, randomSplit, roughNetwork } from "../network/support.js";
import { rejection } from "../support/errors.js";

const ROOT = path.join(__dirname, "../../..");
/** Of the largest logit. */
const TOLERANCE = 1e-5;

describe("PyTorch weights", function () {
  this.timeout(300_000);
  const { REVNET_TEST_PYTHON: python, REVNET_TEST_PEER: peer } = process.env;
  if (!python || !peer) {
    it("skipped: REVNET_TEST_PYTHON (a Python with PyTorch) and REVNET_TEST_PEER (a file with the networks) are not set", function () {
      this.skip();
    });
    return;
  }

  let folder: string;
  const file = (name: string) => path.join(folder, name);
  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-pytorch-"));
  });
  afterEach(() => fs.rmSync(folder, { recursive: true }));

  const floats = (name: string) => {
    const bytes = fs.readFileSync(file(name));
    return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  };
  const error = async (network: Network, images: Uint8Array, theirs: Float32Array) => {
    const logits = await network.logits(images);
    return largestDifference(logits, theirs) / Math.max(...Array.from(theirs, Math.abs));
  };

  for (const name of ["revnet-38", "resnet-32", "revnet-164", "resnet-164"])
    it(`${name}: the same logits both ways, and the same bits back`, async () => {
      const spec = resolveModel(name);
      const { images } = randomSplit(spec, 20);
      using ours = roughNetwork(spec, { device: "cpu", threads: 2 });
      await ours.save(file("ours.safetensors"));
      const normalised = Float32Array.from(normalize(images, ours.preprocessing));
      fs.writeFileSync(file("images.bin"), new Uint8Array(normalised.buffer));
      const example = path.join(ROOT, "examples/pytorch_weights.py");
      execFileSync(python, ["-B", path.join(ROOT, "test/interchange/pytorch_roundtrip.py"), peer, example, folder, name]);

      expect(await error(ours, images, floats("ours.bin")), "our weights there").to.be.below(TOLERANCE);
      using theirs = await loadNetwork(file("theirs.safetensors"), { spec: name, device: "cpu", threads: 2 });
      expect(await error(theirs, images, floats("theirs.bin")), "their weights here").to.be.below(TOLERANCE);
      using again = await loadNetwork(file("again.safetensors"), { device: "cpu", threads: 2 });
      expect(again.spec).to.deep.equal(spec);
      expect(again.weightsSha256()).to.equal(ours.weightsSha256());
      expect(theirs.weightsSha256()).to.not.equal(ours.weightsSha256());
      await rejection(loadNetwork(file("wrong.safetensors"), { spec: name, device: "cpu" }), "ERR_INVALID_FILE");
    });
});

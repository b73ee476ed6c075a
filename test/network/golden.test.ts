/**
 * PyTorch's float64 results for five small networks: weights, a batch, and what must come out. The files lie beside the
 * repository (REVNET_GOLDEN_DIR, or ../shared/golden): the reference must agree within 1e-9, fast devices within 1e-4.
 */
import * as fs from "node:fs";
import * as path from "node:path";
import { expect } from "chai";
import { readSafetensors, type Tensor } from "../../lib/formats/safetensors.js";
import { createNetwork, type Network, type NetworkOptions } from "../../lib/network/network.js";
import type { NetworkSpec } from "../../lib/network/spec.js";
import { largestDifference, onEveryDevice, relativeError } from "./support.js";

const folder = process.env.REVNET_GOLDEN_DIR ?? path.join(repositoryRoot(), "..", "shared", "golden");
const files = fs.existsSync(folder) ? fs.readdirSync(folder).filter((file) => file.endsWith(".safetensors")) : [];

function repositoryRoot(): string {
  let root = __dirname;
  while (!fs.existsSync(path.join(root, "package.json"))) root = path.dirname(root);
  return root;
}

interface Golden {
  readonly spec: NetworkSpec;
  readonly recipe: {
    readonly learningRate: number;
    readonly momentum: number;
    readonly weightDecay: number;
    readonly steps: number;
  };
  /** NHWC. */
  readonly images: Float64Array;
  readonly labels: number[];
  readonly logits: Float64Array;
  readonly evalLogits: Float64Array;
  readonly losses: Float64Array;
  /** The tensors under "weights.", "gradients.", "running." or "after.". */
  under(prefix: string): Map<string, { shape: readonly number[]; data: Float64Array }>;
}

async function readGolden(file: string): Promise<Golden> {
  const { metadata, tensors } = await readSafetensors(path.join(folder, file));
  const numbers = (name: string) => tensors.get(name)!.data as Float64Array;
  return {
    spec: JSON.parse(metadata.get("spec")!) as NetworkSpec,
    recipe: JSON.parse(metadata.get("recipe")!) as Golden["recipe"],
    images: toNhwc(tensors.get("images")!),
    labels: Array.from(tensors.get("labels")!.data as BigInt64Array, Number),
    logits: numbers("logits"),
    evalLogits: numbers("eval_logits"),
    losses: numbers("losses"),
    under: (prefix) =>
      new Map(
        [...tensors]
          .filter(([name]) => name.startsWith(`${prefix}.`))
          .map(([name, { shape, data }]) => [name.slice(prefix.length + 1), { shape, data: data as Float64Array }]),
      ),
  };
}

function toNhwc({ shape, data }: Tensor): Float64Array {
  const [n, c, h, w] = shape as [number, number, number, number];
  const nhwc = new Float64Array(n * h * w * c);
  let from = 0;
  for (let i = 0; i < n; ++i)
    for (let j = 0; j < c; ++j)
      for (let pixel = 0; pixel < h * w; ++pixel) nhwc[(i * h * w + pixel) * c + j] = Number(data[from++]);
  return nhwc;
}

if (files.length === 0)
  describe("golden files", () => {
    it(`skipped: there are none in ${folder} (set REVNET_GOLDEN_DIR)`, function () {
      this.skip();
    });
  });
else
  onEveryDevice("golden files", (device) => {
    const tolerance = device.exact ? 1e-9 : 1e-4;
    for (const file of files)
      for (const streams of ["fixed", "float32"] as const) suite(file, { ...device.options, streams }, tolerance);
  });

function suite(file: string, options: NetworkOptions, tolerance: number): void {
  describe(`${file}, ${options.streams} streams`, () => {
    let golden: Golden;
    let network: Network;
    const expectTensors = (prefix: string, actual: ReadonlyMap<string, { data: ArrayLike<number> }>, bound = tolerance) => {
      const expected = golden.under(prefix);
      expect(expected.size).to.be.greaterThan(0);
      for (const [name, { data }] of expected)
        expect(relativeError(actual.get(name)!.data, data), `${prefix}.${name}`).to.be.below(bound);
    };

    before(async () => {
      golden = await readGolden(file);
    });
    beforeEach(() => {
      network = createNetwork(golden.spec, options);
      network.setParameters(golden.under("weights"));
    });
    afterEach(() => network.dispose());

    for (const activations of ["reversible", "stored"] as const)
      it(`loss, logits and gradients, ${activations}`, async () => {
        const result = await network.lossAndGradients(golden.images, golden.labels, { activations });
        expect(largestDifference(result.logits, golden.logits)).to.be.below(tolerance);
        expect(result.loss).to.be.closeTo(golden.losses[0]!, tolerance);
        const gradients = golden.under("gradients");
        expect([...result.gradients.keys()]).to.have.members([...gradients.keys()]);
        expectTensors("gradients", result.gradients);
      });

    it("logits with running statistics", async () => {
      // Powers of two: the pixels come out as the normalised images exactly.
      network.preprocessing = { mean: new Float32Array(golden.images.length / golden.labels.length), scale: 1 / 256 };
      const logits = await network.logits(golden.images.map((value) => value * 256));
      expect(largestDifference(logits, golden.evalLogits)).to.be.below(tolerance);
    });

    it("running statistics, updated once by a step", async () => {
      const step = await network.prepareTraining({ batchSize: golden.labels.length });
      await step.run({ learningRate: 0, momentum: 0, weightDecay: 0, images: golden.images, labels: golden.labels });
      await network.refreshParameters();
      expectTensors("running", network.parameters);
    });

    for (const activations of ["reversible", "stored"] as const)
      it(`three steps of SGD, ${activations}`, async () => {
        const { steps, ...hyperparameters } = golden.recipe;
        const step = await network.prepareTraining({ batchSize: golden.labels.length, activations });
        for (let i = 0; i < steps; ++i) {
          const { loss } = await step.run({ ...hyperparameters, images: golden.images, labels: golden.labels });
          expect(loss).to.be.closeTo(golden.losses[i]!, tolerance);
        }
        await network.refreshParameters();
        expectTensors("after", network.parameters);
      });
  });
}

/** Specs and models: the ten published networks by their exact parameter counts, and what is refused. */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect } from "chai";
import { type Model, modelNames, resolveModel } from "../../lib/network/models.js";
import { ParameterLayout } from "../../lib/network/parameters.js";
import { checkSpec, type NetworkSpec } from "../../lib/network/spec.js";
import { buildTopology } from "../../lib/network/topology.js";
import { TINY, thrown } from "./support.js";

/** Of 10 and 100 classes for CIFAR, of 1000 for ImageNet. */
const PUBLISHED: Readonly<Record<string, readonly number[]>> = {
  "resnet-32": [464_154, 470_004],
  "resnet-110": [1_727_962, 1_733_812],
  "resnet-164": [1_703_258, 1_726_388],
  "revnet-38": [464_890, 475_060],
  "revnet-110": [1_729_194, 1_740_804],
  "revnet-164": [1_748_778, 1_794_948],
  "resnet-50": [25_549_352],
  "resnet-101": [44_541_480],
  "revnet-56": [27_553_128],
  "revnet-104": [45_428_072],
};

const parameters = (spec: NetworkSpec) => new ParameterLayout(buildTopology(spec)).count;

describe("the published networks", () => {
  it("are ten", () => expect(modelNames()).to.have.members(Object.keys(PUBLISHED)));

  for (const [name, [own, hundred]] of Object.entries(PUBLISHED))
    it(`${name} has ${own} parameters`, () => {
      expect(resolveModel(name).name).to.equal(name);
      expect(parameters(resolveModel(name))).to.equal(own);
      if (hundred) expect(parameters(resolveModel(name, { classes: 100 }))).to.equal(hundred);
    });

  it("carry the authors' recipe", () => {
    expect(resolveModel("revnet-164").recipe).to.deep.equal({
      batchSize: 100,
      steps: 80_000,
      optimizer: { learningRate: 0.1, momentum: 0.9, weightDecay: 2e-4 },
      schedule: { type: "step", milestones: [0.5, 0.75], gamma: 0.1 },
      augment: { padding: 2, flip: true },
    });
    const { steps, schedule } = resolveModel("revnet-104").recipe!;
    const milestones = schedule.type === "step" ? schedule.milestones : [];
    expect(milestones.map((fraction) => fraction * steps)).to.deep.equal([160_000, 320_000, 480_000]);
  });

  it("name their parameters as PyTorch does", () => {
    const names = [...new ParameterLayout(buildTopology(resolveModel("revnet-164"))).entries.keys()];
    expect(names.slice(0, 6)).to.deep.equal([
      "stem.conv.weight",
      "stem.bn.weight",
      "stem.bn.bias",
      "stem.bn.running_mean",
      "stem.bn.running_var",
      "stages.0.0.f.conv1.weight",
    ]);
    expect(names).to.include.members([
      "stages.2.8.g.bn3.running_var",
      "stages.0.0.shortcut1.conv.weight",
      "stages.1.0.shortcut2.conv.weight",
      "head.fc.bias",
    ]);
    expect(names).not.to.include("stages.0.0.f.bn1.weight");
    expect([...new ParameterLayout(buildTopology(resolveModel("resnet-164"))).entries.keys()]).to.include(
      "stages.1.0.shortcut.conv.weight",
    );
  });
});

describe("the flat layout of parameters", () => {
  for (const [title, spec] of Object.entries(TINY))
    it(`gives each its own place, decayed ones first: ${title}`, () => {
      const layout = new ParameterLayout(buildTopology(spec));
      for (const [buffer, size] of [
        ["parameters", layout.elements],
        ["running", layout.runningElements],
      ] as const) {
        const owner = new Map<number, string>();
        for (const entry of layout.entries.values()) {
          if (entry.buffer !== buffer) continue;
          expect(entry.segments.reduce((sum, { elements }) => sum + elements, 0)).to.equal(entry.elements);
          for (const { offset, elements } of entry.segments)
            for (let i = offset; i < offset + elements; ++i) {
              expect(owner.get(i), `${entry.name} and another`).to.equal(undefined);
              expect(i).to.be.below(size);
              if (buffer === "parameters") expect(entry.decayed, entry.name).to.equal(i < layout.decayed);
              owner.set(i, entry.name);
            }
        }
      }
    });
});

describe("a spec", () => {
  const valid = TINY.revnet!;
  const refused = (change: object, words: RegExp, base: NetworkSpec = valid) =>
    expect(thrown("ERR_INVALID_SPEC", () => checkSpec({ ...base, ...change }))).to.match(words);

  it("comes back as it was", () => {
    for (const spec of Object.values(TINY)) expect(checkSpec(spec)).to.deep.equal(spec);
  });

  it("is refused where it is no spec at all", () => {
    for (const value of [undefined, null, 3, "revnet", [], () => {}]) thrown("ERR_INVALID_SPEC", () => checkSpec(value));
    expect(thrown("ERR_INVALID_SPEC", () => checkSpec({ ...valid, units: undefined }))).to.match(/'units' is missing/);
  });

  it("is refused with the nearest name for an unknown key or value", () => {
    refused({ filter: [1] }, /unknown key 'filter'; did you mean 'filters'\?/);
    refused({ kind: "revnett" }, /kind: unknown value 'revnett'; did you mean 'revnet'\?/);
    refused({ stem: "mnist" }, /stem: unknown value 'mnist'; expected one of cifar, imagenet/);
  });

  it("is refused where lengths, types or ranges are wrong", () => {
    refused({ name: "" }, /name: expected a string/);
    refused({ input: [8, 8] }, /input: expected an array of 3 integers, got an array of 2/);
    refused({ input: [8, 8, 0] }, /input\[2\]: expected an integer from 1 to 8192, got 0/);
    refused({ input: [8192, 8192, 8192] }, /an image may have at most/);
    refused({ classes: 1 }, /classes: expected an integer from 2/);
    refused({ classes: NaN }, /classes/);
    refused({ classes: "10" }, /classes: .*got "10"/);
    refused(
      { filters: [8, 8] },
      /filters has 2 entries, but units has 2 entries, so there are 2 stages; expected filters to have 3/,
    );
    refused({ filters: "8" }, /filters: expected an array of 3 integers/);
    refused({ units: [2, 2, 2] }, /filters has 3 entries, but units has 3 entries/);
    refused({ strides: [1] }, /strides has 1 entry, but units has 2 entries/);
    refused({ strides: [1, 2, 2] }, /strides has 3 entries, but units has 2 entries/);
    refused({ units: [] }, /units/);
    refused({ units: [1e9, 1] }, /units\[0\]/);
    refused({ units: Array(1e6).fill(1) }, /units: expected an array of 1 to 16/);
    refused({ bottleneck: "no" }, /bottleneck: expected true or false/);
    refused({ recipe: { batchSize: 100 } }, /recipe: 'steps' is missing/);
  });

  it("is refused where a block could not be built", () => {
    refused({ filters: [8, 8, 13] }, /filters\[2\]: a revnet splits its channels in two/);
    refused({ filters: [8, 8, 10] }, /filters\[2\]: .*multiple of 4/);
    refused({ filters: [8, 8, 4] }, /filters\[2\]/);
    refused({ filters: [4, 4, 7] }, /filters\[2\]/, TINY.resnet);
    refused({ input: [7, 8, 3] }, /strides\[1\]: .*2x2 pixels, but stage 1 begins with 7x8/);
    refused({ filters: [8, 4, 4096] }, /filters\[2\]: a bottleneck block is 16384 channels wide/, TINY["revnet, bottleneck"]);
    refused({ filters: [8192, 8192, 8192], units: [512, 512], bottleneck: false }, /parameters/);
    refused({ filters: [8192, 8192, 8192], units: [1, 1], bottleneck: false }, /parameters/);
    const absurd = { filters: [1024, 1024], units: [40], strides: [1], bottleneck: false };
    refused({ ...absurd, input: [512, 512, 3] }, /9\.9e\+13 multiplications; expected at most 7\.0e\+13/);
    checkSpec({ ...valid, ...absurd, input: [256, 256, 3] });
    refused({ units: [1024, 1] }, /units: expected at most 1024 blocks/);
    // A projection takes any size and any width.
    checkSpec({ ...TINY["revnet, bottleneck"], input: [7, 9, 1], filters: [8, 10, 2] });
  });
});

describe("a model", () => {
  let folder: string;
  const write = (name: string, content: unknown) => {
    const file = path.join(folder, name);
    fs.writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
    return file;
  };
  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-models-"));
  });
  afterEach(() => fs.rmSync(folder, { recursive: true }));

  it("may extend a published one or a file beside it, and override keys down into the recipe", () => {
    write("wide.json", {
      extends: "revnet-38",
      name: "wide",
      filters: [64, 64, 128, 224],
      recipe: { batchSize: 50, optimizer: { learningRate: 0.05 } },
    });
    const file = write("deep.json", {
      extends: "./wide.json",
      name: "deep",
      units: [5, 5, 5],
      recipe: { schedule: { type: "cosine" } },
    });
    const spec = resolveModel(file);
    expect(spec).to.include({ name: "deep", kind: "revnet", classes: 10 });
    expect(spec.filters).to.deep.equal([64, 64, 128, 224]);
    expect(spec.recipe).to.deep.equal({
      batchSize: 50,
      steps: 80_000,
      optimizer: { learningRate: 0.05, momentum: 0.9, weightDecay: 2e-4 },
      schedule: { type: "cosine" },
      augment: { padding: 2, flip: true },
    });
    expect(resolveModel({ extends: "revnet-38", classes: 3 }).classes).to.equal(3);
  });

  it("is refused by a name that there is not, with the nearest", () => {
    expect(thrown("ERR_UNKNOWN_MODEL", () => resolveModel("revnet38"))).to.match(/did you mean 'revnet-38'\?/);
    expect(thrown("ERR_UNKNOWN_MODEL", () => resolveModel("x".repeat(1e6)))).to.have.length.below(500);
    for (const name of ["", "..", "__proto__", "\0"]) thrown("ERR_UNKNOWN_MODEL", () => resolveModel(name));
    for (const value of [undefined, null, 3, () => {}]) thrown("ERR_INVALID_SPEC", () => resolveModel(value as unknown as Model));
  });

  it("is refused where files are missing, no JSON, or extend each other in a circle", () => {
    thrown("ERR_FILE", () => resolveModel(path.join(folder, "none.json")));
    thrown("ERR_FILE", () => resolveModel(`${folder}/`));
    expect(thrown("ERR_INVALID_SPEC", () => resolveModel(write("a.json", "{")))).to.match(/a\.json' is not JSON/);
    thrown("ERR_INVALID_SPEC", () => resolveModel(write("a.json", "[]")));
    thrown("ERR_INVALID_SPEC", () => resolveModel(write("a.json", { extends: 3 })));
    for (let i = 0; i < 40; ++i) write(`chain${i}.json`, { extends: i === 0 ? "revnet-38" : `./chain${i - 1}.json` });
    expect(resolveModel(path.join(folder, "chain20.json")).classes).to.equal(resolveModel("revnet-38").classes);
    expect(thrown("ERR_INVALID_SPEC", () => resolveModel(path.join(folder, "chain39.json")))).to.match(/at most 32 files/);
    write("a.json", { extends: "./b.json" });
    expect(thrown("ERR_INVALID_SPEC", () => resolveModel(write("b.json", { extends: "./a.json" })))).to.match(
      /b\.json -> a\.json -> b\.json/,
    );
    thrown("ERR_FILE", () => resolveModel(write("big.json", " ".repeat(2 << 20))));
  });
});

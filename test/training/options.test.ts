/** What follows from the declarations of trainRevNet's options. */
import { expect } from "chai";
import type { Option } from "../../lib/training/option.js";
import { OPTION_NAMES, OPTIONS, type TrainOptions } from "../../lib/training/options.js";
import { configOf, resolveOptions } from "../../lib/training/settings.js";
import { thrown } from "../support/errors.js";
import { TINY_REVNET, tinyDataset } from "../support/tiny.js";

const NAMED: readonly string[] = ["dataDir", "trainCount", "testCount", "validationShare", "brokenImages"];
const KEPT: readonly string[] = ["checkpointEvery", "keepCheckpoints", "resume", "acceptChangedData"];

const ranges = OPTION_NAMES.flatMap((name) => {
  const { range } = OPTIONS[name] as Option<unknown, unknown>;
  return range ? [[name, ...range] as const] : [];
});
/** What else an option needs. */
const given = (name: string, value: unknown): TrainOptions =>
  ({
    model: TINY_REVNET,
    data: NAMED.includes(name) ? "shapes" : tinyDataset(1, 1),
    ...(KEPT.includes(name) && { outDir: "x" }),
    [name]: value,
  }) as TrainOptions;

describe("the options' declarations", () => {
  it("take the ends of each range and nothing beyond, with the option's name", () => {
    expect(ranges.length).to.be.above(10);
    for (const [name, low, high] of ranges) {
      for (const end of [low, high]) expect(resolveOptions(given(name, end))[name], name).to.equal(end);
      // Not above the largest safe integer, where there is no next one.
      for (const beyond of [low - 1, high + 1, Number.NaN, String(low)])
        if (beyond !== high)
          expect(thrown(() => resolveOptions(given(name, beyond))).message).to.match(new RegExp(`^${name}: expected`));
    }
  });

  it("refuse what makes no sense together", () => {
    for (const name of NAMED) {
      const message = thrown(() => resolveOptions({ ...given(name, 1), data: tinyDataset(1, 1) })).message;
      expect(message).to.equal(`${name}: is for data sets given by name`);
    }
    for (const name of KEPT) {
      const message = thrown(() => resolveOptions({ ...given(name, true), outDir: undefined })).message;
      expect(message).to.equal(`${name}: needs outDir, the folder of the checkpoints`);
    }
    resolveOptions({ ...given("resume", false), outDir: undefined });
  });

  it("give each flag to one option, and every option but the signal a flag", () => {
    const flags = OPTION_NAMES.flatMap((name) => Object.keys(OPTIONS[name].flags(name)));
    expect(new Set(flags).size).to.equal(flags.length);
    expect(OPTION_NAMES.filter((name) => Object.keys(OPTIONS[name].flags(name)).length === 0)).to.deep.equal(["signal"]);
  });

  it("keep what a run is, and nothing of the process, in config.json", () => {
    const { signal } = new AbortController();
    const settings = resolveOptions({
      ...given("epochs", 2),
      outDir: "/x",
      resume: true,
      acceptChangedData: true,
      ui: true,
      signal,
    });
    const config = configOf(settings, TINY_REVNET, 8);
    expect(config).to.include({ model: TINY_REVNET, data: "quadrants", epochs: 2, steps: 8, outDir: "/x", seed: 0 });
    expect(config).to.not.have.any.keys("resume", "acceptChangedData", "ui", "signal", "patience");
  });
});

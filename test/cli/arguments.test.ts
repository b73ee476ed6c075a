/** What stands on a command line: flags, their values, and the names that errors give them. */
import { expect } from "chai";
import { type Command, defineCommand, helpText, readArguments, UsageError, withFlags } from "../../lib/cli/command.js";
import { RevNetError } from "../../lib/errors.js";

const command = defineCommand({
  name: "try",
  summary: "Tries things.",
  positionals: "FILE [MORE]",
  arity: [1, 2],
  flags: {
    "batch-size": { type: "integer", help: "images at a time" },
    "learning-rate": { type: "number", help: "of SGD" },
    data: { type: "string", value: "NAME", help: "what to read" },
    out: { type: "string", value: "DIR", help: "where to write" },
    resume: { type: "boolean", help: "go on" },
    seed: { type: "integer", help: "of chance" },
    title: { type: "string", help: "a text" },
    "no-augment": { type: "boolean", help: "plain images" },
  },
  run: async () => 0,
});
const read = (...args: string[]) => readArguments(command, args);

function refused(...args: string[]): string {
  try {
    read(...args);
  } catch (error) {
    expect(error).to.be.instanceOf(UsageError);
    return (error as Error).message;
  }
  throw new Error(`expected a refusal of ${args.join(" ")}`);
}

describe("arguments", () => {
  it("are values by the names of the API's options, in either spelling", () => {
    expect(read("a", "--batch-size", "5", "--learning-rate=1e-3", "--data", "shapes", "--resume", "b")).to.deep.equal({
      help: false,
      values: { batchSize: 5, learningRate: 0.001, data: "shapes", resume: true },
      positionals: ["a", "b"],
    });
    expect(read("a").values).to.deep.equal({});
    expect(read("a", "--seed", "-3", "--learning-rate", "-0.5").values).to.deep.equal({ seed: -3, learningRate: -0.5 });
    expect(read("a", "--title", " x ").values).to.deep.equal({ title: " x " });
    expect(read("--", "--resume")).to.deep.include({ values: {}, positionals: ["--resume"] });
  });

  it("ask for help wherever it stands, without what else is needed", () => {
    for (const args of [["--help"], ["-h"], ["a", "--help"], ["--seed", "1", "-h"]])
      expect(read(...args).help, args.join(" ")).to.equal(true);
    expect(read("a", "b", "c", "d", "--help").help).to.equal(true);
  });

  it("are refused where a value is missing or none is taken", () => {
    for (const args of [["--data"], ["--data="], ["--data", "--resume"], ["--seed", ""]])
      expect(refused("a", ...args)).to.equal(`${args[0]!.replace("=", "")} expects a value`);
    expect(refused("a", "--resume=yes")).to.equal("--resume takes no value, got 'yes'");
  });

  it("are refused where a number is none, or no integer", () => {
    for (const text of ["x", "1.5", "1e400", " ", "9007199254740993", "Infinity"])
      expect(refused("a", "--seed", text)).to.equal(`--seed expects an integer, got '${text}'`);
    for (const text of ["x", "NaN", "Infinity", " ", "1,5"])
      expect(refused("a", "--learning-rate", text)).to.equal(`--learning-rate expects a number, got '${text}'`);
    expect(read("a", "--seed", "1e3", "--learning-rate", "2").values).to.deep.equal({ seed: 1000, learningRate: 2 });
  });

  it("are refused where a flag is unknown or given twice", () => {
    expect(refused("a", "--batchsize", "5"))
      .to.include("--batchsize")
      .and.include("did you mean '--batch-size'");
    for (const name of ["--toString", "--__proto__", "--constructor", "-x"])
      expect(refused("a", name)).to.include("unknown option");
    expect(refused("a", "--seed", "1", "--seed", "1")).to.equal("--seed is given twice");
    expect(refused("a", "--resume", "--resume")).to.equal("--resume is given twice");
  });

  it("are refused where there are too few or too many", () => {
    expect(refused()).to.equal("an argument is missing; usage: revnet try FILE [MORE] [options]");
    expect(refused("a", "b", "c", "d")).to.equal("unexpected argument 'c'; usage: revnet try FILE [MORE] [options]");
  });
});

describe("a command's help", () => {
  it("has the usage, the summary, and each flag with what it takes", () => {
    expect(helpText(command, undefined)).to.deep.equal([
      "Usage: revnet try FILE [MORE] [options]",
      "",
      "Tries things.",
      "",
      "Options:",
      "  --batch-size N     images at a time",
      "  --learning-rate X  of SGD",
      "  --data NAME        what to read",
      "  --out DIR          where to write",
      "  --resume           go on",
      "  --seed N           of chance",
      "  --title TEXT       a text",
      "  --no-augment       plain images",
      "  --help             show this",
    ]);
    const bare = { ...command, positionals: "", flags: {} } as Command;
    expect(helpText(bare, undefined)[0]).to.equal("Usage: revnet try [options]");
  });
});

describe("errors in the names of flags", () => {
  const renamed: [message: string, shown: string][] = [
    ["batchSize: expected an integer, got 0", "--batch-size: expected an integer, got 0"],
    ["batchSize, seed: give one of them", "--batch-size, --seed: give one of them"],
    ["outDir: is in use", "--out: is in use"],
    ["optimizer.learningRate: expected a number", "--learning-rate: expected a number"],
    ["the run exists; resume it (resume: true)", "the run exists; resume it (--resume)"],
    ["other options: seed: was 1, now 2", "other options: --seed: was 1, now 2"],
    ["a smaller batchSize would fit", "a smaller --batch-size would fit"],
    // What is no option of this command, an English word, a name in quotes, or part of a path.
    ["threads: expected an integer", "threads: expected an integer"],
    ["the data is damaged, and the seed lost", "the data is damaged, and the seed lost"],
    ["'batchSize: was' is not known", "'batchSize: was' is not known"],
    ["cannot read /data/batchSize/x", "cannot read /data/batchSize/x"],
  ];
  for (const [message, shown] of renamed)
    it(`say: ${shown}`, () => {
      const error = new RevNetError("ERR_X", message);
      const result = withFlags(error, command);
      expect([result.code, result.message]).to.deep.equal(["ERR_X", shown]);
      if (message === shown) expect(result).to.equal(error);
      else expect(result.cause).to.equal(error);
    });
});

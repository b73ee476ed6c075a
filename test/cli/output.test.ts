/** Text for people: in lines that fit, tables whose columns stand below each other, bars whose lengths are true. */
import { expect } from "chai";
import fc from "fast-check";
import { Meter } from "../../lib/cli/meter.js";
import { canRedraw, count, definitions, stackedBars, table, wrap } from "../../lib/cli/output.js";
import { bytes, duration, percent, shortNumber } from "../../lib/text.js";

describe("wrapped text", () => {
  const words = fc.array(fc.stringMatching(/^[a-z]{1,12}$/), { minLength: 1, maxLength: 30 }).map((all) => all.join(" "));

  it("breaks between words, at most as wide as the terminal, and loses none", () => {
    fc.assert(
      fc.property(words, fc.nat(6), fc.integer({ min: 20, max: 60 }), (text, indent, columns) => {
        const margin = " ".repeat(indent);
        const lines = wrap(margin + text, columns);
        for (const line of lines) expect(line.length).to.be.at.most(columns);
        for (const line of lines) expect(line.slice(0, indent)).to.equal(margin);
        expect(lines.map((line) => line.slice(indent)).join(" ")).to.equal(text);
        // Not a line more than is needed: the next word would not have fitted.
        for (const [i, line] of lines.slice(0, -1).entries()) {
          const next = lines[i + 1]!.trimStart().split(" ", 1)[0]!;
          expect(line.length + 1 + next.length).to.be.greaterThan(columns);
        }
      }),
    );
  });

  it("fills a line to its last column", () => {
    expect(wrap("aaaa bbbb cccc dddd eeee", 24)).to.deep.equal(["aaaa bbbb cccc dddd eeee"]);
    expect(wrap("aaaa bbbb cccc dddd eeee", 23)).to.deep.equal(["aaaa bbbb cccc dddd", "eeee"]);
  });

  it("is left alone where the columns are unknown, or too few", () => {
    const text = "word ".repeat(20).trim();
    for (const columns of [undefined, 0, 19]) expect(wrap(text, columns)).to.deep.equal([text]);
    expect(wrap(text, 20).length).to.be.greaterThan(1);
  });

  it("has a line of its own for a word that is too long", () => {
    expect(wrap(`a ${"x".repeat(30)} b`, 20)).to.deep.equal(["a", "x".repeat(30), "b"]);
  });
});

describe("definitions", () => {
  const rows = [
    ["--a", "first meaning of all"],
    ["--longest", "second"],
  ] as const;

  it("stand beside their names, below each other", () => {
    for (const columns of [undefined, 100])
      expect(definitions(rows, columns)).to.deep.equal(["  --a        first meaning of all", "  --longest  second"]);
    // 53 columns leave 40 beside the names; what does not fit goes on below.
    const long = "word ".repeat(10).trim();
    expect(definitions([["--longest", long]], 53)).to.deep.equal([
      `  --longest  ${"word ".repeat(8).trim()}`,
      `             word word`,
    ]);
  });

  it("stand below their names where there is less room beside them", () => {
    expect(definitions(rows, 52)).to.deep.equal(["  --a", "      first meaning of all", "  --longest", "      second"]);
  });
});

describe("tables", () => {
  it("have their columns below each other, numbers to the right", () => {
    expect(
      table([
        ["name", "count", "text"],
        ["a", "5", "x1"],
        ["longer", "1234", "2y"],
        ["b", "-17", "long"],
      ]),
    ).to.deep.equal(["name    count  text", "a           5  x1", "longer   1234  2y", "b         -17  long"]);
  });

  it("keep the first column to the left, and empty cells", () => {
    expect(
      table([
        ["", "n"],
        ["10", "1"],
        ["9", ""],
      ]),
    ).to.deep.equal(["    n", "10  1", "9"]);
    expect(table([])).to.deep.equal([]);
    expect(table([["a\nb", "c"]])).to.deep.equal(["a\\nb  c"]);
  });
});

describe("bars", () => {
  const rows = [
    { name: "one", parts: [10, 20, 0], after: "30 B" },
    { name: "three", parts: [30, 20, 10], after: "60 B" },
  ];

  it("are as long as their sums say, each part with its filling", () => {
    const lines = stackedBars(rows, ["x", "y", "z"], 44);
    expect(lines).to.deep.equal([
      // 44 columns less names, figures and gaps leave 30.
      `one    ${"#".repeat(5)}${"=".repeat(10)}${" ".repeat(15)}  30 B`,
      `three  ${"#".repeat(15)}${"=".repeat(10)}${"+".repeat(5)}  60 B`,
      "",
      "# x   = y   + z",
    ]);
  });

  it("are no wider than 100 columns, and no narrower than 10", () => {
    const width = (columns?: number) => stackedBars(rows, [], columns)[1]!.length - "three    60 B".length;
    expect(width(300)).to.equal(width(100)).and.equal(86);
    expect(width(undefined)).to.equal(width(80)).and.equal(66);
    expect(width(0)).to.equal(66);
    expect(width(10)).to.equal(10);
    expect(stackedBars([{ name: "none", parts: [0, 0], after: "0 B" }], [], 40)[0]).to.match(/^none +0 B$/);
  });
});

describe("numbers for people", () => {
  it("are bytes in their largest unit", () => {
    const expected: [number, string][] = [
      [0, "0 B"],
      [1023, "1023 B"],
      [1024, "1.0 KiB"],
      [1536, "1.5 KiB"],
      [1023.9 * 1024, "1023.9 KiB"],
      [2 ** 20 - 1, "1.0 MiB"],
      [2 ** 20, "1.0 MiB"],
      [45 * 2 ** 30, "45.0 GiB"],
      [2 ** 40, "1.0 TiB"],
      [2 ** 52, "4096.0 TiB"],
    ];
    for (const [value, text] of expected) expect(bytes(value)).to.equal(text);
  });

  it("are durations with hours where there are any", () => {
    const expected: [number, string][] = [
      [0, "0:00"],
      [499, "0:00"],
      [500, "0:01"],
      [59_499, "0:59"],
      [59_500, "1:00"],
      [61_000, "1:01"],
      [3_599_000, "59:59"],
      [3_600_000, "1:00:00"],
      [3_723_000, "1:02:03"],
      [100 * 3_600_000, "100:00:00"],
    ];
    for (const [value, text] of expected) expect(duration(value)).to.equal(text);
  });

  it("are shares in percent, and counts with the right word", () => {
    expect([0, 0.12345, 1].map(percent)).to.deep.equal(["0.00 %", "12.35 %", "100.00 %"]);
    expect([0, 1, 2].map((n) => count(n, "step"))).to.deep.equal(["0 steps", "1 step", "2 steps"]);
  });
});

describe("a number in few characters", () => {
  it("has four digits, commas where it is whole, and a power of ten where it is small or large", () => {
    const numbers = [0, 0.05, 0.0000054836273193359375, 1_234_567, 0.0001, 0.00002, 0.1 + 0.2, 1e20, -12.34567, Number.NaN];
    expect(numbers.map(shortNumber)).to.deep.equal([
      "0",
      "0.05",
      "5.48e-6",
      "1,234,567",
      "0.0001",
      "2e-5",
      "0.3",
      "1e20",
      "-12.35",
      "NaN",
    ]);
  });
});

describe("a line that is drawn again", () => {
  it("is for terminals that know how, where nobody asked to be spared", () => {
    const terminal = { isTTY: true };
    expect(canRedraw({ isTTY: false }, {})).to.equal(false);
    for (const env of [{ TERM: "dumb" }, { NO_COLOR: "1" }, { CI: "1" }, { CI: "true" }])
      expect(canRedraw(terminal, env), JSON.stringify(env)).to.equal(false);
    for (const env of [{}, { TERM: "xterm" }, { NO_COLOR: "" }, { CI: "" }, { CI: "false" }, { CI: "0" }])
      expect(canRedraw(terminal, env), JSON.stringify(env)).to.equal(true);
  });
});

describe("a meter", () => {
  const meter = (rest: object) => {
    const written: string[] = [];
    const stream = { write: (text: string) => written.push(text), ...rest } as unknown as NodeJS.WriteStream;
    return { written, stream };
  };

  it("shows how far something is, in one line that is taken away again", () => {
    const { written, stream } = meter({ isTTY: true, columns: 80 });
    const shown = new Meter("read", stream, String, {});
    shown.update(1, 3);
    shown.update(2, 3); // sooner than anybody could read it
    shown.update(3, 3);
    shown.clear();
    shown.clear();
    expect(written).to.deep.equal(["\r\x1b[Kread 1 of 3 (33 %)", "\r\x1b[Kread 3 of 3 (100 %)", "\r\x1b[K"]);
  });

  it("shows no share where the end is unknown, and what fits the terminal", () => {
    const { written, stream } = meter({ isTTY: true, columns: 12 });
    new Meter("received", stream, bytes, {}).update(2048);
    expect(written).to.deep.equal(["\r\x1b[Kreceived 2."]);
    const unknown = meter({ isTTY: true, columns: 0 });
    new Meter("received", unknown.stream, bytes, {}).update(2048, 4096);
    expect(unknown.written).to.deep.equal(["\r\x1b[Kreceived 2.0 KiB of 4.0 KiB (50 %)"]);
  });

  it("is silent where there is no terminal", () => {
    const { written, stream } = meter({ isTTY: false });
    const shown = new Meter("read", stream, String, {});
    shown.update(1, 1);
    shown.clear();
    expect(written).to.deep.equal([]);
  });
});

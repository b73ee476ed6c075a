/** What is read of a run's files is what it should be, or the message says where it is not. */
import { expect } from "chai";
import { type Check, count, flag, list, nullable, number, record, text } from "../../lib/report/checks.js";
import { thrown } from "../support/errors.js";

describe("checks of JSON", () => {
  const accepted: [what: string, check: Check<unknown>, values: unknown[]][] = [
    ["a number", number, [0, -1.5, 1e300]],
    ["a string", text, ["", "x"]],
    ["true or false", flag, [true, false]],
    ["a count", count, [0, 1, Number.MAX_SAFE_INTEGER]],
    ["an array", list(count), [[], [1, 2]]],
    ["an object", record({}), [{}]],
  ];
  const all = [0.5, -1, 2 ** 53, "x", true, null, undefined, [], ["x"], {}];
  const isOne: Record<string, (value: unknown) => boolean> = {
    "a number": (value) => typeof value === "number",
    "a string": (value) => typeof value === "string",
    "true or false": (value) => typeof value === "boolean",
    "a count": () => false,
    "an array": Array.isArray,
    "an object": (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  };
  for (const [what, check, values] of accepted) {
    it(`take ${what} as it is`, () => {
      for (const value of values) expect(check(value, "here")).to.deep.equal(value);
    });
    it(`say that they expected ${what}, and where`, () => {
      for (const value of all.filter((value) => !isOne[what]!(value))) {
        const { code, message } = thrown(() => check(value, "here"));
        expect(code).to.equal("ERR_INVALID_FILE");
        expect(message).to.match(new RegExp(`^here: expected ${what}, got `));
      }
    });
  }

  it("take null where it may be", () => {
    const maybe = nullable(number);
    expect([maybe(null, "x"), maybe(5, "x")]).to.deep.equal([null, 5]);
    expect(thrown(() => maybe(undefined, "x")).message).to.include("x: expected a number");
  });

  it("name the entry and the key, and leave out what they do not know", () => {
    const rows = list(record({ a: number, b: list(text) }));
    expect(rows([{ a: 1, b: ["x"], c: 5 }], "f")).to.deep.equal([{ a: 1, b: ["x"] }]);
    expect(
      thrown(() =>
        rows(
          [
            { a: 1, b: [] },
            { a: 1, b: ["x", 5] },
          ],
          "f",
        ),
      ).message,
    ).to.equal("f[1].b[1]: expected a string, got 5");
    expect(thrown(() => rows([{ b: [] }], "f")).message).to.equal("f[0].a: expected a number, got undefined");
  });
});

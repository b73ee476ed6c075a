import { expect } from "chai";
import { createNetwork } from "../../lib/index.js";
import { matchClasses } from "../../lib/network/classes.js";
import { thrown } from "../support/errors.js";
import { TINY_REVNET, tinyDataset } from "../support/tiny.js";

describe("classes of a network and of data", () => {
  const spec = { ...TINY_REVNET, classes: 3 };
  const match = (own: string[] | undefined, classes: string[]) => matchClasses(spec, own, { name: "photos", classes });

  it("are matched by name, in any order, some of them absent", () => {
    expect(match(["a", "b", "c"], ["a", "b", "c"])).to.equal(undefined);
    expect(match(["a", "b", "c"], ["c", "a"])).to.deep.equal(Int32Array.of(2, 0));
    expect(match(["a", "b", "c"], ["c", "b", "a"])).to.deep.equal(Int32Array.of(2, 1, 0));
  });

  it("are refused where the network has not all of the data's, and by their number where names are not known", () => {
    expect(thrown(() => match(["a", "b", "c"], ["b", "c", "d"])).message).to.equal(
      "data: 1 of the 3 classes of photos (d) are not among the 3 that tiny-revnet was trained on (a, b, c)",
    );
    const numbered = ["class 0", "class 1", "class 2"];
    expect(match(undefined, ["x", "y", "z"])).to.equal(undefined);
    expect(match(["a", "b", "c"], numbered)).to.equal(undefined);
    expect(match(numbered, ["x", "y", "z"])).to.equal(undefined);
    expect(thrown(() => match(undefined, ["x", "y"])).code).to.equal("ERR_INVALID_ARGUMENT");
  });

  it("give the same figures in whatever order the data has them", async () => {
    using network = createNetwork(TINY_REVNET, { device: "reference" });
    const data = tinyDataset();
    network.classNames = data.classes;
    const { test } = data;
    const order = [2, 0, 3, 1];
    const labels = test.labels.map((label) => order.indexOf(label));
    const shuffled = { ...data, classes: order.map((label) => data.classes[label]!), test: { ...test, labels } };
    const [expected, found] = [await network.evaluate(data), await network.evaluate(shuffled)];
    expect(found.confusion).to.deep.equal(expected.confusion);
    expect(found.loss).to.equal(expected.loss);
    expect((await network.evaluate(shuffled, { split: "all" })).labels).to.have.length(86);
  });
});

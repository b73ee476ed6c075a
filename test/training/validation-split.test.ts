/** A validation split of its own: it is what training looks at, and the test split is for the end. */
import { expect } from "chai";
import { openDataset } from "../../lib/index.js";
import { tinyDataset, trainTiny } from "../support/tiny.js";

describe("a validation split", () => {
  it("decides on the best, and the test split is evaluated once, at the end", async () => {
    const data = tinyDataset();
    // In one of the two, all labels are others: their figures cannot be taken for each other's.
    const wrong = { ...data.test, labels: data.test.labels.map((label) => (label + 1) % 4) };
    const plain = await trainTiny({ data, patience: 50, validateEvery: 2 });
    const { summary, history } = await trainTiny({
      data: { ...data, validation: data.test, test: wrong },
      patience: 50,
      validateEvery: 2,
    });
    expect(history.validations.map(({ loss }) => loss)).to.deep.equal(plain.history.validations.map(({ loss }) => loss));
    expect(summary.weightsSha256).to.equal(plain.summary.weightsSha256);
    expect([summary.validationLoss, summary.validationError]).to.deep.equal([plain.summary.testLoss, plain.summary.testError]);
    expect([history, plain.history].map(({ validations }) => validations.at(-1)!.split)).to.deep.equal(["validation", "test"]);
    expect(summary.testLoss).to.be.greaterThan(summary.validationLoss!);
    expect(plain.summary.validationLoss).to.equal(null);
  });

  it("is held out of data in memory by a share of each class, always the same images", async () => {
    const options = { trainCount: 100, testCount: 10, validationShare: 0.2 };
    const [data, again] = [await openDataset("shapes", options), await openDataset("shapes", options)];
    expect([data.train.count, data.validation!.count, data.test.count]).to.deep.equal([80, 20, 10]);
    expect(again.validation).to.deep.equal(data.validation);
    const whole = await openDataset("shapes", { trainCount: 100, testCount: 10 });
    expect(whole.validation).to.equal(undefined);
    const images = ({ images, count }: { images: Uint8Array; count: number }) =>
      Array.from({ length: count }, (_, i) => Buffer.from(images.subarray(i * 3072, (i + 1) * 3072)).toString("base64"));
    expect([...images(data.train), ...images(data.validation!)].sort()).to.deep.equal(images(whole.train).sort());
  });
});

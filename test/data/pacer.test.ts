import { expect } from "chai";
import { Pacer } from "../../lib/data/pacer.js";

describe("the pacer", () => {
  it("lets the event loop turn once its time has passed, again and again", async () => {
    const pacer = new Pacer(0);
    for (let i = 0; i < 3; i++) {
      // What was waiting for the event loop has been done by then.
      let before = false;
      setImmediate(() => {
        before = true;
      });
      await pacer.breathe();
      expect(before).to.equal(true);
    }
  });

  it("costs nothing until then", () => {
    const pacer = new Pacer(3_600_000);
    for (let i = 0; i < 3; i++) expect(pacer.breathe()).to.equal(undefined);
  });
});

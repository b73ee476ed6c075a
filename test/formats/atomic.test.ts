import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { flush } from "../../lib/formats/atomic.js";

describe("flushing a file", () => {
  it("needs no more of its handle than the descriptor, which is all that Yarn's Plug'n'Play gives", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "revnet-flush-"));
    const handle = await open(path.join(folder, "file"), "wx");
    try {
      const missing = () => Promise.reject(new Error("Method not implemented."));
      Object.assign(handle, { sync: missing, datasync: missing });
      await handle.writeFile("text");
      await flush(handle);
      expect(await readFile(path.join(folder, "file"), "utf8")).to.equal("text");
    } finally {
      await handle.close();
      await rm(folder, { recursive: true });
    }
  });
});

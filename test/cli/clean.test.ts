/** revnet clean: what it removes, what it keeps, and what it refuses. */
import { mkdtemp, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { clean } from "../../lib/cli/clean.js";
import { runCommand } from "../support/command.js";
import { rejection } from "../support/errors.js";
import { trainTiny } from "../support/tiny.js";

describe("revnet clean", () => {
  let folder: string;
  const checkpoints = () => readdir(path.join(folder, "checkpoints")).then((names) => names.sort());
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-clean-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("keeps the last checkpoint and the best one, from which the run goes on", async () => {
    await trainTiny({ outDir: folder, checkpointEvery: 2 });
    const mine = ["notes.txt", "step-00000002.safetensors.mine"];
    for (const name of [...mine, "step-00000001.safetensors.damaged", "best.safetensors.revnet-0123456789abcdef.tmp"])
      await writeFile(path.join(folder, "checkpoints", name), "12345");
    const { stdout } = await runCommand(clean, folder);
    expect(stdout)
      .to.match(/^4 files removed, /m)
      .and.match(/^kept .*step-00000006\.safetensors, /m);
    const left = ["best.safetensors", ...mine, "step-00000006.safetensors"];
    expect((await checkpoints()).filter((name) => name !== "data.jsonl")).to.deep.equal(left.sort());
    expect(JSON.parse((await runCommand(clean, folder, "--json")).stdout).removed).to.deep.equal([]);
    const { history } = await trainTiny({ outDir: folder, checkpointEvery: 2, resume: true });
    expect(history.steps).to.have.length(6);
  });

  it("removes nothing where the last checkpoint is damaged, nor in a folder of no run", async () => {
    await trainTiny({ outDir: folder, checkpointEvery: 2 });
    await truncate(path.join(folder, "checkpoints", "step-00000006.safetensors"), 5000);
    const before = await checkpoints();
    await rejection(runCommand(clean, folder), "ERR_INVALID_FILE");
    expect(await checkpoints()).to.deep.equal(before);
    await rejection(runCommand(clean, path.join(folder, "checkpoints")), "ERR_FILE");
    expect(await checkpoints()).to.deep.equal(before);
    expect(await readdir(folder)).to.not.include("run.lock");
  });
});

/**
 * Every write of a short run fails once, for good or half-way; the run is killed after it, or the power fails after it. What is gone on
 * with then ends with the bits of the run that nothing happened to. A sample by seed; all of them with REVNET_TEST_STORAGE=all.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { RevNetError, type TrainOptions, trainRevNet } from "../../lib/index.js";
import { native } from "../../lib/native/index.js";
import { type Fault, Storage } from "../support/storage.js";
import { tinyOptions } from "../support/tiny.js";

const KINDS = ["ENOSPC once", "EIO once", "EIO forever", "ENOSPC short", "killed", "power lost", "power lost, names kept"] as const;
const SAMPLE = 14;

describe("storage that fails", function () {
  this.timeout(3_600_000);
  let folder: string;
  let whole: string;
  let changes: number;
  const overrides: Partial<TrainOptions> = { checkpointEvery: 2, validateEvery: 2, patience: 100, keepCheckpoints: 1 };
  const run = (outDir: string) =>
    trainRevNet(tinyOptions({ ...overrides, device: "cpu", threads: 1, outDir, resume: true })).then(
      ({ network, summary, fileError }) => {
        network.dispose();
        return { sha256: summary.weightsSha256, fileError };
      },
    );

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-storage-"));
    const storage = new Storage(path.join(folder, "whole"));
    storage.install();
    try {
      const { sha256, fileError } = await run(storage.root);
      expect(fileError).to.equal(undefined);
      whole = sha256;
    } finally {
      storage.uninstall();
    }
    changes = storage.changes;
    expect(changes).to.be.greaterThan(50);
  });
  after(() => rm(folder, { recursive: true }));

  async function check(at: number, kind: (typeof KINDS)[number]): Promise<void> {
    const root = path.join(folder, `${kind} ${at}`);
    const storage = new Storage(root);
    let resumed = root;
    const [code, how] = kind.split(" ");
    if (code === "ENOSPC" || code === "EIO") storage.fault = { at, code, kind: how as Fault["kind"] };
    else {
      resumed = `${root} left`;
      storage.onChange = (change) => {
        if (change !== at) return;
        if (kind === "killed") storage.copyTo(resumed);
        else storage.restoreTo(resumed, kind.endsWith("kept"));
      };
    }
    storage.install();
    let outcome: Awaited<ReturnType<typeof run>> | RevNetError;
    try {
      outcome = await run(root).catch((error) => error);
    } finally {
      storage.uninstall();
    }
    const where = `${kind} at ${at}: ${storage.log[at - 1]}`;
    // The process ends, or its result is the right one; whatever it says names a file.
    const error = outcome instanceof Error ? outcome : outcome.fileError;
    if (error) expect(error, where).to.be.instanceOf(RevNetError).with.property("message").that.includes(root);
    if (!(outcome instanceof Error)) expect(outcome.sha256, where).to.equal(whole);
    const { sha256, fileError } = await run(resumed);
    expect([sha256, fileError], where).to.deep.equal([whole, undefined]);
    for (const name of new Set([root, resumed])) await rm(name, { recursive: true, force: true });
  }

  it("costs no bit, whichever write it is and however it fails", async () => {
    const cases = KINDS.flatMap((kind) => Array.from({ length: changes }, (_, i) => [i + 1, kind] as const));
    const all = process.env.REVNET_TEST_STORAGE === "all";
    const draws = native.philox(BigInt(process.env.REVNET_TEST_STORAGE_SEED ?? 1), 0, 0, "dataset", SAMPLE);
    // As many of each kind.
    const drawn = Array.from(draws, (draw, i) => cases[(i % KINDS.length) * changes + (draw % changes)]!);
    const failures: string[] = [];
    for (const [at, kind] of all ? cases : drawn)
      await check(at, kind).catch((error: Error) => failures.push(`${kind} ${at}: ${error.message}`));
    if (all) console.log(`      ${cases.length} cases: ${KINDS.length} kinds at each of ${changes} changes`);
    expect(failures).to.deep.equal([]);
  });
});

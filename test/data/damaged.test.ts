/**
 * Damaged inputs made at random, by a seed, for each reader: an error with a code, never another one, in bounded memory. REVNET_TEST_WHOLE=1
 * tries 500 of each, otherwise a sample.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { CIFAR_10 } from "../../lib/data/cifar.js";
import { readPack } from "../../lib/data/pack.js";
import { memoryPlan, openDataset, packFolder, RevNetError } from "../../lib/index.js";
import { resolveModel } from "../../lib/network/models.js";
import { readRun } from "../../lib/report/run-files.js";
import { DataRecord } from "../../lib/training/data-record.js";
import { Chance, seeds } from "../support/chance.js";
import { writeClasses } from "../support/pictures.js";
import { TINY_REVNET } from "../support/tiny.js";

const MEMORY = 2 ** 28;
const VALUES = [
  null,
  true,
  -1,
  0,
  0.5,
  1e308,
  2 ** 53,
  "",
  "x",
  [],
  {},
  [[]],
  Array(100_000).fill(1),
  { length: 2 ** 40 },
  "\ud800",
];

/** Bytes changed, moved, repeated, cut off. */
function damage(bytes: Buffer, chance: Chance): Buffer {
  const at = () => chance.below(bytes.length + 1);
  switch (chance.below(6)) {
    case 0:
      return bytes.subarray(0, at());
    case 1:
      return Buffer.concat([bytes, Buffer.alloc(chance.below(5000), chance.below(256))]);
    case 2: {
      const [from, to] = [at(), at()];
      return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]);
    }
    case 3:
      return Buffer.concat([bytes.subarray(0, at()), bytes.subarray(at())]);
    default: {
      const changed = Buffer.from(bytes);
      for (let i = 0; i <= chance.below(8); i++) changed[chance.below(changed.length || 1)] = chance.below(256);
      return changed;
    }
  }
}

/** One value in the JSON is another, or all of it is nested a hundred thousand deep. */
function damageJson(value: unknown, chance: Chance): string {
  if (chance.oneIn(20)) return `${'{"a":['.repeat(50_000)}${"]}".repeat(50_000)}`;
  if (chance.oneIn(3)) return damage(Buffer.from(JSON.stringify(value)), chance).toString("latin1");
  const copy = JSON.parse(JSON.stringify({ value }));
  let [holder, key]: [Record<string, unknown>, string] = [copy, "value"];
  while (typeof holder[key] === "object" && holder[key] !== null && !chance.oneIn(4)) {
    const keys = Object.keys(holder[key] as object);
    if (keys.length === 0) break;
    [holder, key] = [holder[key] as Record<string, unknown>, chance.of(keys)];
  }
  if (chance.oneIn(4)) delete holder[key];
  else holder[chance.oneIn(5) ? "__proto__" : key] = chance.of(VALUES);
  return JSON.stringify(copy.value) ?? "";
}

/** Something else in a file's place. */
async function replace(file: string, chance: Chance): Promise<void> {
  await rm(file, { recursive: true, force: true });
  switch (chance.below(5)) {
    case 0:
      return void (await mkdir(file));
    case 1:
      return symlink("/dev/zero", file);
    case 2:
      return void execFileSync("mkfifo", [file]);
    case 3:
      return symlink(file, file);
    default:
      await writeFile(file, "");
      // Sparse: it takes no room.
      return truncate(file, 1.8e9);
  }
}

describe("damaged inputs", function () {
  this.timeout(3_600_000);
  let folder: string;
  before(function () {
    if (process.platform === "win32") this.skip();
  });
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-damaged-"));
  });
  afterEach(() => rm(folder, { recursive: true }));
  const at = (...names: string[]) => path.join(folder, ...names);

  /** @returns how many were refused: a damage need not matter */
  async function each(prepare: (chance: Chance) => Promise<unknown>, read: () => unknown): Promise<number> {
    let refused = 0;
    const before = process.memoryUsage().rss;
    for (const seed of seeds("REVNET_TEST_WHOLE", 500, 25)) {
      await prepare(new Chance(seed));
      try {
        await read();
      } catch (error) {
        expect(error, `seed ${seed}: ${(error as Error).stack}`).to.be.instanceOf(RevNetError);
        expect((error as RevNetError).code, `seed ${seed}: ${(error as Error).stack}`).to.match(/^ERR_(?!INTERNAL)/);
        refused += 1;
      }
      expect(process.memoryUsage().rss - before, `seed ${seed}`).to.be.below(MEMORY);
    }
    return refused;
  }

  it("of CIFAR-10 are refused or read", async () => {
    const names = [...CIFAR_10.trainFiles, CIFAR_10.testFile, CIFAR_10.namesFile];
    const whole = Buffer.alloc(3 * 3073, 7);
    const refused = await each(
      async (chance) => {
        for (const name of names) {
          await rm(at(name), { recursive: true, force: true });
          await writeFile(at(name), name === CIFAR_10.namesFile ? "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n" : whole);
        }
        const name = chance.of(names);
        if (chance.oneIn(4)) await replace(at(name), chance);
        else await writeFile(at(name), damage(await readFile(at(name)), chance));
      },
      () => openDataset("cifar-10", { dataDir: folder }),
    );
    expect(refused).to.be.greaterThan(5);
  });

  it("of packs are refused or read, with a right digest too", async () => {
    await writeClasses(at("data"), 2, 8, 8);
    const { file } = await packFolder(at("data"), [8, 8, 3]);
    const whole = await readFile(file);
    const [start, length] = [Number(whole.readBigUInt64LE(whole.length - 48)), Number(whole.readBigUInt64LE(whole.length - 40))];
    const index = JSON.parse(whole.toString("utf8", start, start + length));
    const refused = await each(
      async (chance) => {
        if (chance.oneIn(8)) return replace(file, chance);
        await rm(file, { recursive: true, force: true });
        if (chance.oneIn(3)) return writeFile(file, damage(whole, chance));
        const other = Buffer.from(damageJson(index, chance));
        const trailer = Buffer.alloc(48);
        trailer.writeBigUInt64LE(BigInt(start), 0);
        trailer.writeBigUInt64LE(BigInt(other.length), 8);
        createHash("sha256").update(other).digest().copy(trailer, 16);
        return writeFile(file, Buffer.concat([whole.subarray(0, start), other, trailer]));
      },
      () => readPack(file, [8, 8, 3]),
    );
    expect(refused).to.be.greaterThan(15);
  });

  it("of specs are refused or planned", async () => {
    const spec = { ...TINY_REVNET, recipe: resolveModel("revnet-38").recipe };
    const refused = await each(
      async (chance) => {
        if (chance.oneIn(10)) return replace(at("model.json"), chance);
        await rm(at("model.json"), { recursive: true, force: true });
        return writeFile(at("model.json"), damageJson(spec, chance));
      },
      () => memoryPlan(at("model.json"), { batchSize: 4, device: "cpu" }),
    );
    expect(refused).to.be.greaterThan(10);
  });

  it("of config.json and of the record of a run's data are refused or read", async () => {
    await writeFile(at("metrics.jsonl"), "");
    await mkdir(at("checkpoints"));
    const config = { model: { name: "m", units: [1, 2] }, batchSize: 4, steps: 10, seed: 0, optimizer: { learningRate: 0.1 } };
    const lines = [
      { accepted: [{ step: 1, count: 1, changes: ["a"] }] },
      ["a/1.png", 5, 1.5, 1.5, "sha256:00"],
      ["a/2.png", 5, 1, 1, null],
    ];
    const record = () => DataRecord.of(folder, {} as never).check(1, {}, {}, false);
    const refused = await each(
      async (chance) => {
        for (const name of ["config.json", "checkpoints/data.jsonl"]) await rm(at(name), { recursive: true, force: true });
        await writeFile(at("config.json"), JSON.stringify(config));
        const chosen = chance.below(lines.length);
        const damaged = await Promise.all(lines.map((line, i) => (i === chosen ? damageJson(line, chance) : JSON.stringify(line))));
        await writeFile(at("checkpoints/data.jsonl"), damaged.join("\n"));
        if (chance.oneIn(2)) await writeFile(at("config.json"), damageJson(config, chance));
        if (chance.oneIn(8)) await replace(at(chance.of(["config.json", "checkpoints/data.jsonl"])), chance);
      },
      async () => {
        const errors: unknown[] = [];
        for (const read of [() => readRun(folder), record])
          await Promise.resolve(read()).catch((error: unknown) => errors.push(error));
        for (const error of errors) if (!(error instanceof RevNetError)) throw error;
        if (errors.length > 0) throw errors[0];
      },
    );
    expect(refused).to.be.greaterThan(5);
  });
});

/**
 * Damaged inputs made at random, by a seed, for each reader: an error with a code, never another one, in bounded memory. REVNET_TEST_WHOLE=1
 * tries 500 of each, otherwise a sample.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { expect } from "chai";
import sharp from "sharp";
import * as tar from "tar";
import { CIFAR_10 } from "../../lib/data/cifar.js";
import { readPack } from "../../lib/data/pack.js";
import { toPixels } from "../../lib/data/picture.js";
import { downloadDataset, loadNetwork, memoryPlan, openDataset, packFolder, RevNetError, trainRevNet } from "../../lib/index.js";
import { resolveModel } from "../../lib/network/models.js";
import { readRun } from "../../lib/report/run-files.js";
import { readCheckpoint } from "../../lib/training/checkpoint.js";
import { DataRecord } from "../../lib/training/data-record.js";
import { readMetrics } from "../../lib/training/metrics.js";
import { Chance, seeds } from "../support/chance.js";
import { writeClasses } from "../support/pictures.js";
import { TINY_REVNET, tinyOptions } from "../support/tiny.js";

const MEMORY = 2 ** 28;
/** Of one input. Looked at where all are tried: elsewhere, other suites may keep the machine. */
const MILLISECONDS = 2000;
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

/** Another header, of the right length, under a right digest where there is one. */
function damageSafetensors(bytes: Buffer, chance: Chance): Buffer {
  const start = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString("utf8", 8, start));
  const zeros = "0".repeat(64);
  const digested = header.__metadata__.sha256 !== undefined;
  if (digested) header.__metadata__.sha256 = zeros;
  // What is JSON in the metadata is damaged as such, too.
  const inner = Object.keys(header.__metadata__).filter((key) => /^[{["]/.test(header.__metadata__[key]));
  const text = chance.oneIn(2)
    ? damageJson(header, chance)
    : (() => {
        const key = chance.of(inner);
        const value = damageJson(JSON.parse(header.__metadata__[key]), chance);
        return JSON.stringify({ ...header, __metadata__: { ...header.__metadata__, [key]: value } });
      })();
  const json = Buffer.from(text);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const whole = Buffer.concat([length, json, bytes.subarray(start)]);
  const at = whole.indexOf(`"sha256":"${zeros}`);
  if (digested && at >= 0) whole.write(createHash("sha256").update(whole).digest("hex"), at + '"sha256":"'.length);
  return whole;
}

/** Fields of an entry's header changed, under a right checksum: names, kinds and sizes that lead elsewhere. */
function damageTar(bytes: Buffer, chance: Chance): Buffer {
  const changed = Buffer.from(bytes);
  const headers = Array.from({ length: changed.length / 512 }, (_, i) => 512 * i).filter(
    (at) => changed.toString("latin1", at + 257, at + 262) === "ustar",
  );
  const at = chance.of(headers);
  const put = (offset: number, length: number, text: string) =>
    changed.fill(0, at + offset, at + offset + length).write(text, at + offset);
  const names = ["../escaped", "/tmp/revnet-escaped", "cifar-10-batches-bin/../../escaped", "a".repeat(99), "\x1b[2J", ""];
  switch (chance.below(4)) {
    case 0:
      put(0, 100, chance.of(names));
      break;
    case 1:
      put(156, 1, chance.of(["1", "2", "3", "5", "6", "L", "x", "g", "K"]));
      put(157, 100, chance.of(names));
      break;
    case 2:
      put(124, 12, chance.of(["77777777777", "00000000000", "-1", "x", "00000010000"]));
      break;
    default:
      for (let i = 0; i <= chance.below(8); i++) changed[at + chance.below(512)] = chance.below(256);
  }
  changed.fill(32, at + 148, at + 156);
  const sum = changed.subarray(at, at + 512).reduce((total, byte) => total + byte, 0);
  put(148, 8, `${sum.toString(8).padStart(6, "0")}\0 `);
  return changed;
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
    const whole = process.env.REVNET_TEST_WHOLE !== undefined;
    for (const seed of seeds("REVNET_TEST_WHOLE", 500, 25)) {
      await prepare(new Chance(seed));
      const start = performance.now();
      try {
        await read();
      } catch (error) {
        expect(error, `seed ${seed}: ${(error as Error).stack}`).to.be.instanceOf(RevNetError);
        expect((error as RevNetError).code, `seed ${seed}: ${(error as Error).stack}`).to.match(/^ERR_(?!INTERNAL)/);
        refused += 1;
      }
      if (whole) expect(performance.now() - start, `seed ${seed}`).to.be.below(MILLISECONDS);
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

  it("of models and checkpoints are refused or loaded, with a right digest too", async () => {
    const options = { device: "cpu", threads: 1 } as const;
    const { network } = await trainRevNet({ ...tinyOptions(), ...options, steps: 2, outDir: at("run"), checkpointEvery: 2 });
    network.dispose();
    const checkpoint = at(
      "run",
      "checkpoints",
      (await readdir(at("run", "checkpoints"))).find((name) => /\d\.safetensors$/.test(name))!,
    );
    const files = await Promise.all([at("run", "model.safetensors"), checkpoint].map((file) => readFile(file)));
    const file = at("damaged.safetensors");
    const refused = await each(
      async (chance) => {
        if (chance.oneIn(10)) return replace(file, chance);
        await rm(file, { recursive: true, force: true });
        const bytes = chance.of(files);
        return writeFile(file, chance.oneIn(3) ? damage(bytes, chance) : damageSafetensors(bytes, chance));
      },
      async () => {
        const errors: unknown[] = [];
        await loadNetwork(file, options).then(
          (network) => network.dispose(),
          (error: unknown) => errors.push(error),
        );
        await readCheckpoint(file).catch((error: unknown) => errors.push(error));
        for (const error of errors) if (!(error instanceof RevNetError)) throw error;
        if (errors.length > 0) throw errors[0];
      },
    );
    expect(refused).to.be.greaterThan(15);
  });

  it("of metrics.jsonl are read as far as they go, by reports and by runs that go on", async () => {
    const lines: object[] = [{ type: "brokenImage", step: 1, file: "a.png", reason: "cut" }];
    for (let step = 1; step <= 6; step++) {
      lines.push({ type: "step", step, epoch: step / 2, loss: 1, error: 0.5, learningRate: 0.1, milliseconds: 5, outOfRange: 0 });
      if (step % 2 === 0) lines.push({ type: "validation", step, epoch: step / 2, loss: 1, error: 0.5, milliseconds: 2 });
    }
    const model = { name: "m", units: [1, 2] };
    await writeFile(
      at("config.json"),
      JSON.stringify({ model, batchSize: 4, steps: 10, seed: 0, optimizer: { learningRate: 0.1 } }),
    );
    const file = at("metrics.jsonl");
    await each(
      async (chance) => {
        if (chance.oneIn(10)) return replace(file, chance);
        await rm(file, { recursive: true, force: true });
        const damaged = lines.map((line) => (chance.oneIn(4) ? damageJson(line, chance) : JSON.stringify(line))).join("\n");
        return writeFile(file, chance.oneIn(3) ? damage(Buffer.from(damaged), chance) : damaged);
      },
      async () => {
        const results = await Promise.allSettled([readRun(folder), readMetrics(file, 1000)]);
        const errors = results.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
        for (const error of errors) if (!(error instanceof RevNetError)) throw error;
        if (errors.length > 0) throw errors[0];
      },
    );
  });

  it("of archives are refused or unpacked, and nothing lands beside their place", async () => {
    await mkdir(at("cifar-10-batches-bin"));
    for (const name of [...CIFAR_10.trainFiles, CIFAR_10.testFile])
      await writeFile(
        at("cifar-10-batches-bin", path.basename(name)),
        Buffer.alloc(3073, createHash("sha256").update(name).digest()),
      );
    await tar.c({ file: at("whole.tar"), cwd: folder }, ["cifar-10-batches-bin"]);
    const whole = await readFile(at("whole.tar"));
    await rm(at("cifar-10-batches-bin"), { recursive: true });
    let archive: Buffer;
    const server = createServer((_, response) => response.end(archive));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/cifar.tar.gz`;
    try {
      const refused = await each(
        async (chance) => {
          await rm(at("data"), { recursive: true, force: true });
          archive = chance.oneIn(2) ? damage(gzipSync(whole), chance) : gzipSync(damageTar(whole, chance));
        },
        () => downloadDataset("cifar-10", { dataDir: at("data"), url, md5: createHash("md5").update(archive).digest("hex") }),
      );
      expect(refused).to.be.greaterThan(5);
      expect((await readdir(folder)).filter((name) => name !== "data")).to.deep.equal(["whole.tar"]);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it("of images are refused or decoded", async () => {
    const pixels = Uint8Array.from({ length: 40 * 30 * 3 }, (_, i) => (i * 31) % 256);
    const image = () => sharp(pixels, { raw: { width: 40, height: 30, channels: 3 } });
    const files = await Promise.all(
      [
        image().jpeg(),
        image().jpeg({ progressive: true }),
        image().png(),
        image().webp(),
        image().gif(),
        image().tiff(),
        image().avif(),
      ].map((encoder) => encoder.toBuffer()),
    );
    let file: Buffer;
    const refused = await each(
      async (chance) => {
        file = damage(chance.of(files), chance);
      },
      () => toPixels(file, [32, 32, 3], "image"),
    );
    expect(refused).to.be.greaterThan(5);
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

/** safetensors: what is written is read back, and no file, however malformed, does more than throw. */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect } from "chai";
import * as fc from "fast-check";
import { RevNetError } from "../../lib/errors.js";
import { readSafetensors, writeSafetensors } from "../../lib/formats/safetensors.js";
import { rejection } from "../support/errors.js";

describe("safetensors", () => {
  let folder: string;
  let file: string;
  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "revnet-safetensors-"));
    file = path.join(folder, "t.safetensors");
  });
  afterEach(() => fs.rmSync(folder, { recursive: true }));

  const bytesOf = (header: unknown, data: Uint8Array = new Uint8Array(0)) => {
    const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    return Buffer.concat([length, json, data]);
  };
  const refused = (bytes: Uint8Array) => {
    fs.writeFileSync(file, bytes);
    return rejection(readSafetensors(file), "ERR_INVALID_FILE");
  };
  const f32 = (begin: number, end: number, shape: unknown = [(end - begin) / 4]) => ({
    dtype: "F32",
    shape,
    data_offsets: [begin, end],
  });

  const tensors = new Map([
    ["bytes", { shape: [3], data: Uint8Array.of(1, 2, 255) }],
    ["floats", { shape: [2, 2], data: Float32Array.of(1, -0.5, NaN, Infinity) }],
    ["doubles", { shape: [1, 2], data: Float64Array.of(Math.PI, -0) }],
    ["ints", { shape: [2], data: Int32Array.of(-1, 2 ** 31 - 1) }],
    ["longs", { shape: [], data: BigInt64Array.of(-(2n ** 63n)) }],
    ["none", { shape: [0, 5], data: new Float32Array(0) }],
    ['a name, "quoted" \n \u{1f600}', { shape: [1], data: Float32Array.of(3) }],
  ] as [string, { shape: number[]; data: Float32Array }][]);

  it("reads back what it wrote", async () => {
    const metadata = { spec: '{"a":1}', empty: "" };
    await writeSafetensors(file, tensors, metadata);
    const read = await readSafetensors(file);
    expect(Object.fromEntries(read.metadata)).to.deep.equal(metadata);
    expect(read.tensors.size).to.equal(tensors.size);
    for (const [name, tensor] of tensors) expect(read.tensors.get(name), name).to.deep.equal(tensor);
  });

  it("aligns each tensor in the file to its elements", async () => {
    await writeSafetensors(file, tensors);
    const bytes = fs.readFileSync(file);
    const headerBytes = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerBytes)) as Record<
      string,
      { dtype: string; data_offsets: number[] }
    >;
    for (const { dtype, data_offsets } of Object.values(header))
      expect((8 + headerBytes + data_offsets[0]!) % (dtype === "U8" ? 1 : Number(dtype.slice(1)) / 8)).to.equal(0);
  });

  it("writes a view's part of its buffer only", async () => {
    const whole = Float32Array.of(0, 1, 2, 3);
    await writeSafetensors(file, new Map([["part", { shape: [2], data: whole.subarray(1, 3) }]]));
    expect((await readSafetensors(file)).tensors.get("part")!.data).to.deep.equal(Float32Array.of(1, 2));
  });

  it("replaces a file whole, and leaves the old one where it cannot", async () => {
    await writeSafetensors(file, new Map([["x", { shape: [1], data: Float32Array.of(1) }]]));
    await writeSafetensors(file, new Map([["x", { shape: [1], data: Float32Array.of(2) }]]));
    expect((await readSafetensors(file)).tensors.get("x")!.data[0]).to.equal(2);
    fs.mkdirSync(path.join(folder, "in-the-way"));
    await rejection(writeSafetensors(path.join(folder, "in-the-way"), tensors), "ERR_FILE");
    expect(fs.readdirSync(folder)).to.have.members(["t.safetensors", "in-the-way"]);
  });

  it("reads half precision as float32", async () => {
    const halves = Uint16Array.of(0x3c00, 0xc000, 0x7bff, 0x0001, 0x8000, 0x7c00, 0x7e00, 0x3555);
    const brains = Uint16Array.of(0x3f80, 0xc000, 0x7f80, 0x0001);
    const header = {
      h: { dtype: "F16", shape: [8], data_offsets: [0, 16] },
      b: { dtype: "BF16", shape: [4], data_offsets: [16, 24] },
    };
    fs.writeFileSync(file, bytesOf(header, Buffer.concat([Buffer.from(halves.buffer), Buffer.from(brains.buffer)])));
    const read = (await readSafetensors(file)).tensors;
    expect(read.get("h")!.data).to.deep.equal(Float32Array.of(1, -2, 65504, 2 ** -24, -0, Infinity, NaN, 0.333251953125));
    expect(read.get("b")!.data).to.deep.equal(Float32Array.of(1, -2, Infinity, 2 ** -133));
  });

  it("refuses files whose lengths are wrong", async () => {
    expect(await refused(new Uint8Array(7))).to.match(/t\.safetensors' is not a valid .* fewer than the 8/);
    expect(await refused(Buffer.alloc(8, 255))).to.match(/longer than the 100000000 allowed/);
    expect(await refused(bytesOf("{}").subarray(0, 9))).to.match(/does not fit a file of 9; is it truncated/);
    expect(await refused(bytesOf({ x: f32(0, 8) }, new Uint8Array(7)))).to.match(/take 8 bytes, but 7 follow/);
    expect(await refused(bytesOf({ x: f32(0, 8) }, new Uint8Array(9)))).to.match(/take 8 bytes, but 9 follow/);
  });

  it("refuses headers that are none", async () => {
    expect(await refused(bytesOf("{"))).to.match(/not JSON/);
    expect(await refused(bytesOf("[]"))).to.match(/not a JSON object/);
    expect(await refused(bytesOf({ __metadata__: { a: 1 } }))).to.match(/'a' is not a string/);
    expect(await refused(bytesOf({ __metadata__: [] }))).to.match(/__metadata__ is not an object/);
    expect(await refused(bytesOf({ x: 3 }))).to.match(/tensor 'x' is not described by an object/);
    expect(await refused(bytesOf({ x: { ...f32(0, 0), dtype: "F99" } }))).to.match(/dtype "F99" is not one of/);
    for (const shape of [null, "2", [-1], [0.5], [2 ** 60], Array(17).fill(1)])
      await refused(bytesOf({ x: f32(0, 4, shape) }, new Uint8Array(4)));
    for (const offsets of [undefined, [0], [0, 4, 8], [4, 0], [-4, 0], [0, 1e300]])
      await refused(bytesOf({ x: { dtype: "F32", shape: [1], data_offsets: offsets } }, new Uint8Array(4)));
    expect(await refused(Buffer.concat([bytesOf(`{"x": "`), Buffer.of(0xff)]))).to.match(/is not a valid/);
  });

  it("refuses tensors that overlap, leave holes or have one name", async () => {
    const eight = new Uint8Array(8);
    expect(await refused(bytesOf({ x: f32(0, 8), y: f32(4, 8) }, eight))).to.match(/overlap or leave a hole/);
    expect(await refused(bytesOf({ y: f32(4, 8) }, eight))).to.match(/overlap or leave a hole/);
    expect(await refused(bytesOf({ x: f32(0, 4, [2]) }, eight))).to.match(/4 bytes from 0 to 4, but its shape takes 8/);
    expect(await refused(bytesOf(`{"x": ${JSON.stringify(f32(0, 4))}, "x": ${JSON.stringify(f32(4, 8))}}`, eight))).to.match(
      /hole/,
    );
  });

  it("refuses what is not a file", async () => {
    await rejection(readSafetensors(folder), "ERR_FILE");
    await rejection(readSafetensors(path.join(folder, "none")), "ERR_FILE");
    await rejection(readSafetensors("\0"), "ERR_FILE");
  });

  it("throws a RevNetError or reads, whatever bytes are changed", async function () {
    this.timeout(120_000);
    await writeSafetensors(file, tensors, { a: "b" });
    const whole = fs.readFileSync(file);
    let thrown = 0;
    const change = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(change, fc.nat(whole.length), fc.boolean(), async (changes, length, cut) => {
        const bytes = Buffer.from(whole);
        for (const [at, value] of changes) bytes[at] = value;
        fs.writeFileSync(file, cut ? bytes.subarray(0, length) : bytes);
        try {
          await readSafetensors(file);
        } catch (error) {
          expect(error).to.be.instanceOf(RevNetError);
          expect((error as RevNetError).code).to.equal("ERR_INVALID_FILE");
          ++thrown;
        }
      }),
      { numRuns: Number(process.env.REVNET_FUZZ_RUNS ?? 500), seed: 1 },
    );
    expect(thrown).to.be.greaterThan(100);
  });
});

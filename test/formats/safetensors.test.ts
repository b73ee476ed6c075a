/** safetensors: what is written is read back, and no file, however malformed, does more than throw. */
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect } from "chai";
import * as fc from "fast-check";
import { RevNetError } from "../../lib/errors.js";
import { readSafetensors, writeSafetensors } from "../../lib/formats/safetensors.js";
import { expectClosed } from "../support/descriptors.js";
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

  it("closes the file, whether it is whole or not", async () => {
    await writeSafetensors(file, tensors);
    await expectClosed(() => readSafetensors(file));
    fs.truncateSync(file, 100);
    await expectClosed(() => readSafetensors(file).catch(() => {}));
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

  it("takes sizes for what they are, whatever they multiply to", async () => {
    const sixteen = new Uint8Array(16);
    for (const shape of [[-2, -2], [0.5, 8], [Number.MAX_SAFE_INTEGER + 1, 0], ["4"], { 0: 4, length: 1 }])
      expect(await refused(bytesOf({ x: f32(0, 16, shape) }, sixteen))).to.match(
        /tensor 'x': shape is not a list of up to 16 sizes/,
      );
    for (const offsets of [["0", "16"], [-16, 0], [0, 16, 16], [16], { 0: 0, 1: 16, length: 2 }])
      expect(await refused(bytesOf({ x: { dtype: "F32", shape: [4], data_offsets: offsets } }, sixteen))).to.match(
        /tensor 'x': data_offsets are not two positions/,
      );
    fs.writeFileSync(file, bytesOf({ x: f32(0, 16, [4, ...Array(15).fill(1)]) }, sixteen));
    expect((await readSafetensors(file)).tensors.get("x")!.shape).to.have.length(16);
    expect(await refused(bytesOf({ x: f32(0, 16, [4, ...Array(16).fill(1)]) }, sixteen))).to.include("up to 16 sizes");
  });

  it("says which tensor is wrong, in no more words than a line holds", async () => {
    const message = await refused(bytesOf({ ["x".repeat(5000)]: { ...f32(0, 0), dtype: "F".repeat(5000) } }));
    expect(message).to.include("is not one of F64, F32, F16, BF16, I64, I32, U8").and.have.length.below(600);
    expect(await refused(bytesOf({ x: { ...f32(0, 0), dtype: undefined } }))).to.include("dtype undefined is not one of");
    expect(await refused(bytesOf({ x: null }))).to.include("tensor 'x' is not described by an object");
    expect(await refused(bytesOf({ x: [] }))).to.include("tensor 'x' is not described by an object");
  });

  it("reads tensors in any order, those of no bytes anywhere, and keeps the header's order", async () => {
    const data = Buffer.from(Float32Array.of(1, 2, 3).buffer);
    const header = { c: f32(8, 12), none: f32(8, 8), a: f32(0, 4), last: f32(12, 12), b: f32(4, 8), first: f32(0, 0) };
    fs.writeFileSync(file, bytesOf(header, data));
    const { tensors, metadata } = await readSafetensors(file);
    expect([...tensors].map(([name, tensor]) => [name, ...tensor.data])).to.deep.equal([
      ["c", 3],
      ["none"],
      ["a", 1],
      ["last"],
      ["b", 2],
      ["first"],
    ]);
    expect(metadata.size).to.equal(0);
  });

  it("pads its header to whole words, and writes no metadata where there is none", async () => {
    for (const name of ["x", "xy", "xyz", "wxyz", "vwxyz", "uvwxyz", "tuvwxyz", "stuvwxyz"]) {
      await writeSafetensors(file, new Map([[name, { shape: [1], data: Uint8Array.of(7) }]]));
      const bytes = fs.readFileSync(file);
      const length = Number(bytes.readBigUInt64LE());
      expect(length % 8, name).to.equal(0);
      expect(bytes.length, name).to.equal(8 + length + 1);
      const text = bytes.toString("utf8", 8, 8 + length);
      expect(text.length - text.trimEnd().length, name).to.be.below(8);
      expect(Object.keys(JSON.parse(text)), name).to.deep.equal([name]);
    }
    expect(
      await rejection(writeSafetensors(file, new Map([["__metadata__", tensors.get("bytes")!]])), "ERR_INVALID_ARGUMENT"),
    ).to.include("__metadata__");
  });

  describe("with a digest", () => {
    const metadata = { kind: "checkpoint", note: `"sha256":"${"0".repeat(64)}"` };
    const always = { digest: () => true };
    const sha256Of = async () => (await readSafetensors(file)).metadata.get("sha256")!;

    it("carries the SHA-256 of its bytes, its own digits taken as zeros", async () => {
      await writeSafetensors(file, tensors, metadata, { digest: true });
      const read = await readSafetensors(file, always);
      const digits = read.metadata.get("sha256")!;
      expect(Object.fromEntries(read.metadata)).to.deep.equal({ ...metadata, sha256: digits });
      const bytes = fs.readFileSync(file);
      const zeroed = Buffer.from(bytes.toString("latin1").replace(digits, "0".repeat(64)), "latin1");
      expect(digits).to.equal(createHash("sha256").update(zeroed).digest("hex"));
      await writeSafetensors(file, tensors, { ...metadata, note: "another" }, { digest: true });
      expect(await sha256Of()).to.not.equal(digits);
    });

    it("is refused with any byte changed, where its metadata asks for the check", async () => {
      await writeSafetensors(file, tensors, metadata, { digest: true });
      const whole = fs.readFileSync(file);
      for (let at = 0; at < whole.length; at += 7) {
        const bytes = Buffer.from(whole);
        bytes[at]! ^= 1;
        fs.writeFileSync(file, bytes);
        await rejection(readSafetensors(file, always), "ERR_INVALID_FILE");
      }
      // The last byte is data, which nothing else notices.
      const bytes = Buffer.from(whole);
      bytes[whole.length - 1]! ^= 1;
      fs.writeFileSync(file, bytes);
      const asked = { digest: (of: ReadonlyMap<string, string>) => of.get("kind") === "checkpoint" };
      expect(await rejection(readSafetensors(file, asked), "ERR_INVALID_FILE")).to.match(/damaged: their SHA-256 is [0-9a-f]{64}/);
      await readSafetensors(file, { digest: (of) => of.get("kind") === "model" });
      await readSafetensors(file);
    });

    it("is checked over the data as it lies in the file, whatever the header's order", async () => {
      const [first, second] = [Float32Array.of(1), Float32Array.of(2)].map(({ buffer }) => Buffer.from(buffer)) as [Buffer, Buffer];
      const build = (digits: string) =>
        bytesOf({ b: f32(4, 8), a: f32(0, 4), __metadata__: { sha256: digits } }, Buffer.concat([first, second]));
      const digits = createHash("sha256")
        .update(build("0".repeat(64)))
        .digest("hex");
      fs.writeFileSync(file, build(digits));
      expect((await readSafetensors(file, always)).tensors.get("a")!.data[0]).to.equal(1);
    });

    it("is refused without one, or with what is none", async () => {
      for (const digits of [undefined, "", "0".repeat(63), "0".repeat(65), "g".repeat(64), `${"a".repeat(64)} `, "A".repeat(64)]) {
        fs.writeFileSync(file, bytesOf({ __metadata__: digits === undefined ? {} : { sha256: digits } }));
        expect(await rejection(readSafetensors(file, always), "ERR_INVALID_FILE")).to.include("carries no SHA-256 of its bytes");
      }
    });
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

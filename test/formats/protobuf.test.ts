/** The wire format of Protocol Buffers, byte by byte, by the examples of its specification. */
import { expect } from "chai";
import { Message } from "../../lib/formats/protobuf.js";

const bytesOf = (message: Message) => Buffer.concat(message.pieces());
const hex = (message: Message) => bytesOf(message).toString("hex");

describe("protocol buffers", () => {
  it("write integers seven bits at a time, the lowest first", () => {
    const values: [number, string][] = [
      [0, "00"],
      [1, "01"],
      [127, "7f"],
      [128, "8001"],
      [150, "9601"],
      [16_383, "ff7f"],
      [16_384, "808001"],
      [2 ** 31, "8080808008"],
      [2 ** 32 + 1, "8180808010"],
      [Number.MAX_SAFE_INTEGER, "ffffffffffffff0f"],
    ];
    for (const [value, expected] of values) expect(hex(new Message().integer(1, value)), String(value)).to.equal(`08${expected}`);
    // A field of more than four bits takes two bytes.
    expect(hex(new Message().integer(16, 5))).to.equal("800105");
  });

  it("write numbers, strings, lists and messages, each with its field and kind", () => {
    expect(hex(new Message().float(2, 1.5))).to.equal("150000c03f");
    expect(hex(new Message().double(3, -2))).to.equal("1900000000000000c0");
    expect(hex(new Message().string(2, "testing"))).to.equal("120774657374696e67");
    expect(hex(new Message().string(2, "\u00e4"))).to.equal("1202c3a4");
    expect(hex(new Message().bytes(4, Uint8Array.of(0, 255)))).to.equal("220200ff");
    expect(hex(new Message().integers(6, [3, 270, 86_942]))).to.equal("3206038e029ea705");
    expect(hex(new Message().message(3, new Message().integer(1, 150)))).to.equal("1a03089601");
    expect(hex(new Message().integers(1, []).message(2, new Message()))).to.equal("0a001200");
    expect(new Message().pieces()).to.deep.equal([]);
  });

  it("know their length, and nest whatever it is", () => {
    for (const length of [0, 1, 65_530, 65_535, 65_536, 65_537, 200_000]) {
      const data = Uint8Array.from({ length }, (_, i) => i);
      const inner = new Message().integer(1, 7).bytes(2, data);
      const outer = new Message().message(5, inner).integer(6, 1);
      expect(bytesOf(inner).length, `inner ${length}`).to.equal(inner.length);
      expect(bytesOf(outer).length, `outer ${length}`).to.equal(outer.length);
      expect(bytesOf(outer).includes(bytesOf(inner)), `nested ${length}`).to.equal(true);
    }
  });

  it("come in few pieces, and long byte strings uncopied", () => {
    const [short, long] = [new Uint8Array(1000).fill(1), new Uint8Array(65_536).fill(2)];
    const message = new Message();
    for (let i = 0; i < 200; i++) message.bytes(1, short);
    message.bytes(2, long);
    for (let i = 0; i < 10; i++) message.bytes(1, short);
    const pieces = message.pieces();
    expect(pieces).to.include(long);
    // 200,600 bytes in pieces of at least 65,536, the long one, and the rest.
    expect(pieces).to.have.length(4 + 1 + 1);
    for (const piece of pieces) expect(piece.length).to.be.within(1, 65_536 + 1003);
    expect(Buffer.concat(pieces).length).to.equal(message.length);
  });
});

/**
 * Philox4x32-10 (Salmon et al., SC 2011): a plain implementation here, checked against the known answers that its authors
 * publish with Random123, and the native one against it (whose last counter word, the purpose, is never zero).
 */
import { expect } from "chai";
import { native } from "../../lib/native/index.js";

type Words = [number, number, number, number];

function philox([c0, c1, c2, c3]: Words, [k0, k1]: [number, number]): Words {
  const product = (a: number, b: number): [high: number, low: number] => {
    const p = BigInt(a) * BigInt(b);
    return [Number(p >> 32n), Number(p & 0xffffffffn)];
  };
  for (let round = 0; round < 10; ++round) {
    const [high0, low0] = product(0xd2511f53, c0);
    const [high1, low1] = product(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    [k0, k1] = [(k0 + 0x9e3779b9) >>> 0, (k1 + 0xbb67ae85) >>> 0];
  }
  return [c0, c1, c2, c3];
}

describe("philox", () => {
  it("gives the known answers", () => {
    const ones = 0xffffffff;
    expect(philox([0, 0, 0, 0], [0, 0])).to.deep.equal([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    expect(philox([ones, ones, ones, ones], [ones, ones])).to.deep.equal([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    expect(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).to.deep.equal([
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
    ]);
  });

  const purposes = ["initialization", "shuffle", "augmentation", "dataset"] as const;
  for (const [seed, low, high] of [
    [0n, 0, 0],
    [1n, 2, 3],
    [0x0123456789abcdefn, 0xffffffff, 0x80000000],
    [0xffffffffffffffffn, 7, 0],
  ] as const)
    it(`native draws are its blocks: seed ${seed}, stream ${low} ${high}`, () => {
      for (const [i, purpose] of purposes.entries()) {
        const key: [number, number] = [Number(seed & 0xffffffffn), Number(seed >> 32n)];
        const expected = [0, 1, 2].flatMap((position) => philox([position, low, high, i + 1], key)).slice(0, 11);
        expect([...native.philox(seed, low, high, purpose, 11)]).to.deep.equal(expected);
        const words = new Uint32Array(13);
        expect(native.philox(seed, low, high, purpose, words.subarray(1, 12)).buffer).to.equal(words.buffer);
        expect([...words]).to.deep.equal([0, ...expected, 0]);
      }
    });
});

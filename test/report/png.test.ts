/** Images of pages, as another program's decoder reads them. */
import { expect } from "chai";
import { loadSharp } from "../../lib/data/sharp.js";
import { dataUrl, encodePng, shrinkImage } from "../../lib/report/png.js";

describe("PNG images", () => {
  for (const channels of [1, 3, 4])
    it(`of ${channels} channels have the same pixels to a decoder, which checks their sums`, async () => {
      const pixels = Uint8Array.from({ length: 3 * 5 * channels }, (_, i) => (i * 37 + 11) % 256);
      const image = loadSharp()(encodePng(pixels, [3, 5, channels]), { failOn: "warning" });
      const { format, width, height, channels: found } = await image.metadata();
      expect([format, width, height, found]).to.deep.equal(["png", 5, 3, channels]);
      const { data } = await image
        .toColourspace(channels === 1 ? "b-w" : "srgb")
        .raw()
        .toBuffer({ resolveWithObject: true });
      expect([...data]).to.deep.equal([...pixels]);
    });

  it("end as the format wants it", () => {
    expect(encodePng(new Uint8Array(1), [1, 1, 1]).subarray(-12).toString("hex")).to.equal("0000000049454e44ae426082");
    expect(dataUrl(Buffer.of(1, 2, 3))).to.equal("data:image/png;base64,AQID");
  });

  it("shrink to the means of squares, channel by channel, without what is left at the edges", () => {
    // 4 x 5 pixels of two channels: ten times the row plus the column, and 200 less that.
    const pixels = Uint8Array.from({ length: 4 * 5 * 2 }, (_, i) => {
      const value = 10 * Math.floor(i / 10) + (Math.floor(i / 2) % 5);
      return i % 2 === 0 ? value : 200 - value;
    });
    const half = shrinkImage(pixels, [4, 5, 2], 2);
    expect(half.shape).to.deep.equal([2, 2, 2]);
    // The mean of rows 0 and 1 and columns 0 and 1 is 5.5, and so on; halves are rounded up.
    expect([...half.pixels]).to.deep.equal([6, 195, 8, 193, 26, 175, 28, 173]);
    expect(shrinkImage(pixels, [4, 5, 2], 3).shape).to.deep.equal([1, 1, 2]);
    expect([...shrinkImage(pixels, [4, 5, 2], 3).pixels]).to.deep.equal([11, 189]);
    expect([...shrinkImage(pixels, [4, 5, 2], 1).pixels]).to.deep.equal([...pixels]);
  });
});

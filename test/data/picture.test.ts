/** From an image file to a network's input: which way up, which part of it, and how it is resized. */
import { randomBytes } from "node:crypto";
import { expect } from "chai";
import sharp from "sharp";
import {
  type Box,
  cropCentre,
  cropResized,
  decodePicture,
  type Picture,
  pictureSize,
  randomBox,
  type Shape,
} from "../../lib/data/picture.js";
import { loadSharp } from "../../lib/data/sharp.js";
import { picture } from "../support/pictures.js";

type Colour = readonly [number, number, number];

/** An image of colours by place, as a PNG or JPEG file. */
async function draw(width: number, height: number, at: (x: number, y: number) => Colour, orientation?: number): Promise<Buffer> {
  const pixels = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3);
    return at(pixel % width, Math.floor(pixel / width))[i % 3]!;
  });
  const image = loadSharp()(pixels, { raw: { width, height, channels: 3 } });
  if (orientation === undefined) return image.png().toBuffer();
  return image.withMetadata({ orientation }).jpeg({ quality: 100, chromaSubsampling: "4:4:4" }).toBuffer();
}

/** Each pixel's number, from 0; so many channels, of which the others are constant. */
function numbered(height: number, width: number, channels = 1): Picture {
  const pixels = Uint8Array.from({ length: height * width * channels }, (_, i) =>
    i % channels === 0 ? i / channels : 200 + (i % channels),
  );
  return { height, width, pixels };
}

describe("pictures", () => {
  it("cover 8/7 of the input, whatever their shape", async () => {
    const size = async (width: number, height: number) => {
      const made = await decodePicture(await picture([1, 2, 3], 1, width, height), [14, 14, 3]);
      expect(made.pixels.length).to.equal(made.width * made.height * 3);
      return [made.width, made.height];
    };
    expect(await size(40, 40)).to.deep.equal([16, 16]);
    expect(await size(80, 40)).to.deep.equal([32, 16]);
    expect(await size(40, 80)).to.deep.equal([16, 32]);
    expect(await size(3, 2)).to.deep.equal([21, 14]);
    expect(await size(400, 10)).to.deep.equal([56, 14]);
    expect(await size(10, 400)).to.deep.equal([14, 56]);
  });

  it("stay as they are where they cover the input and not 8/7 of it, pixel by pixel", async () => {
    for (const [width, height] of [
      [14, 14],
      [16, 15],
      [14, 30],
      [15, 56],
    ] as const) {
      const colour = (x: number, y: number): Colour => [(17 * x + 31 * y) % 256, (101 * x * y) % 256, (x * x + 7 * y) % 256];
      const made = await decodePicture(await draw(width, height, colour), [14, 14, 3]);
      expect([made.width, made.height]).to.deep.equal([width, height]);
      const expected = Array.from({ length: width * height }, (_, i) => colour(i % width, Math.floor(i / width))).flat();
      expect([...made.pixels], `${width} x ${height}`).to.deep.equal(expected);
    }
  });

  it("are enlarged no further than they must, and the less the nearer they are", () => {
    expect(pictureSize({ width: 13, height: 26 }, [14, 14])).to.deep.equal({ width: 14, height: 28 });
    expect(pictureSize({ width: 17, height: 17 }, [14, 14])).to.deep.equal({ width: 16, height: 16 });
    expect(pictureSize({ width: 100, height: 20 }, [10, 40])).to.deep.equal({ width: 57, height: 11 });
  });

  it("are grey by ITU-R 601 where the input is, and grey files are what they were", async () => {
    const colours: [Colour, number][] = [
      [[255, 0, 0], 76],
      [[0, 255, 0], 150],
      [[0, 0, 255], 29],
      [[255, 255, 255], 255],
      [[10, 200, 90], 131],
      [[77, 77, 77], 77],
    ];
    for (const [colour, expected] of colours) {
      const { pixels } = await decodePicture(await draw(14, 14, () => colour), [14, 14, 1]);
      expect(
        pixels.every((value) => value === expected),
        `${colour}: ${pixels[0]}`,
      ).to.equal(true);
    }
    const grey = Uint8Array.from({ length: 196 }, (_, i) => i);
    const file = await loadSharp()(grey, { raw: { width: 14, height: 14, channels: 1 } })
      .toColourspace("b-w")
      .png()
      .toBuffer();
    expect([...(await decodePicture(file, [14, 14, 1])).pixels]).to.deep.equal([...grey]);
  });

  describe("of files that are odd", () => {
    const bytesBefore = (file: Buffer, marker: number, count: number) => {
      const at = file.indexOf(Buffer.of(0xff, marker));
      return Buffer.concat([file.subarray(0, at), Buffer.alloc(count, 0x5a), file.subarray(at)]);
    };
    const jpeg = () => picture([200, 50, 60], 1, 40, 30, "jpeg");
    /** With a JFIF header of a revision. */
    const revised = (file: Buffer, major: number, minor: number) => {
      const header = Buffer.from([0xff, 0xe0, 0, 16, ...Buffer.from("JFIF\0"), major, minor, 0, 0, 1, 0, 1, 0, 0]);
      return Buffer.concat([file.subarray(0, 2), header, file.subarray(2)]);
    };
    const harmless: [what: string, change: (file: Buffer) => Buffer][] = [
      ["JFIF revision 0.00", (file) => revised(file, 0, 0)],
      ["JFIF revision 2.01", (file) => revised(file, 2, 1)],
      ["bytes before a table", (file) => bytesBefore(file, 0xc4, 18)],
      ["bytes before the scan", (file) => bytesBefore(file, 0xda, 5)],
      ["bytes after the end", (file) => Buffer.concat([file, Buffer.alloc(100, 7)])],
    ];
    for (const [what, change] of harmless)
      it(`are the same with ${what}`, async () => {
        const file = await jpeg();
        const changed = change(file);
        expect(changed.equals(file)).to.equal(false);
        const [expected, made] = [await decodePicture(file, [14, 14, 3]), await decodePicture(changed, [14, 14, 3])];
        expect(Buffer.compare(made.pixels, expected.pixels)).to.equal(0);
      });

    for (const format of ["jpeg", "png", "webp", "gif", "avif"] as const)
      it(`are refused as ${format} where zeros are in place of the rest`, async () => {
        const random = randomBytes(120 * 90 * 3);
        const file = await sharp(random, { raw: { width: 120, height: 90, channels: 3 } })
          [format]()
          .toBuffer();
        expect(file.length).to.be.greaterThan(4096);
        await decodePicture(file, [14, 14, 3]);
        for (const share of [0.3, 0.6, 0.9]) {
          const zeroed = Buffer.from(file).fill(0, Math.floor(share * file.length));
          const reason = await decodePicture(zeroed, [14, 14, 3]).then(
            () => "it was read",
            (error: Error) => error.message,
          );
          expect(reason, `${share} of ${format}`).to.include("cannot be read");
        }
      });

    it("are read as animated and as extended WebP and GIF, with bytes behind, and without a GIF's trailer", async () => {
      const frames = randomBytes(20 * 60 * 3);
      const animated = sharp(frames, { raw: { width: 20, height: 60, channels: 3, pageHeight: 20 } });
      const gif = await animated
        .clone()
        .gif({ delay: [50, 50, 50] })
        .toBuffer();
      const webp = await animated
        .clone()
        .webp({ delay: [50, 50, 50] })
        .toBuffer();
      const lossless = await sharp(frames, { raw: { width: 20, height: 60, channels: 3 } })
        .withMetadata()
        .webp({ lossless: true })
        .toBuffer();
      for (const file of [gif, webp, lossless, gif.subarray(0, -1)])
        for (const behind of [0, 1, 700]) {
          const { pixels } = await decodePicture(Buffer.concat([file, Buffer.alloc(behind)]), [14, 14, 3]);
          expect(pixels.length).to.be.greaterThan(0);
        }
    });

    for (const format of ["jpeg", "png", "webp", "gif", "tiff", "avif"] as const)
      it(`are read as ${format}, and refused where they are cut short`, async () => {
        const file = await picture([200, 50, 60], 1, 40, 30, format);
        expect((await decodePicture(file, [14, 14, 3])).pixels).to.have.length(21 * 16 * 3);
        for (const share of [0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9]) {
          const cut = decodePicture(file.subarray(0, Math.floor(share * file.length)), [14, 14, 3]);
          const reason = await cut.then(
            () => "",
            (error: Error) => error.message,
          );
          expect(reason, `${share} of ${format}`).to.match(/cannot be read|is empty|it is not a/);
        }
      });
  });

  // Of an upright image of W x H: which of its pixels is at (x, y) of the file.
  const [W, H] = [48, 24];
  const stored: [orientation: number, (x: number, y: number) => [number, number]][] = [
    [1, (x, y) => [x, y]],
    [2, (x, y) => [W - 1 - x, y]],
    [3, (x, y) => [W - 1 - x, H - 1 - y]],
    [4, (x, y) => [x, H - 1 - y]],
    [5, (x, y) => [y, x]],
    [6, (x, y) => [W - 1 - y, x]],
    [7, (x, y) => [W - 1 - y, H - 1 - x]],
    [8, (x, y) => [y, H - 1 - x]],
  ];
  for (const [orientation, from] of stored)
    it(`are turned upright from EXIF orientation ${orientation}`, async () => {
      const quarter = (x: number, y: number): Colour => [x < W / 2 ? 40 : 210, y < H / 2 ? 40 : 210, 128];
      const [width, height] = orientation < 5 ? [W, H] : [H, W];
      const file = await draw(width, height, (x, y) => quarter(...from(x, y)), orientation);
      const upright = await decodePicture(file, [14, 14, 3]);
      expect([upright.width, upright.height]).to.deep.equal([32, 16]);
      for (const [x, y] of [
        [6, 3],
        [25, 3],
        [6, 12],
        [25, 12],
      ] as const)
        for (const [channel, value] of quarter((x * W) / 32, (y * H) / 16).entries())
          expect(upright.pixels[3 * (32 * y + x) + channel], `(${x}, ${y}) channel ${channel}`).to.be.closeTo(value, 6);
    });

  it("are the middle of a strip, in either direction and however it is turned", async () => {
    // Strips whose kept part has the picture's very size, so that nothing is resized: column 0 says where it begins.
    for (const [length, first] of [
      [64, 0],
      [65, 0],
      [66, 1],
      [69, 2],
      [70, 3],
    ] as const) {
      const across = await decodePicture(await draw(length, 16, (x) => [x, 0, 0]), [14, 14, 3]);
      expect([across.width, across.height, across.pixels[0]], `${length} across`).to.deep.equal([64, 16, first]);
      const down = await decodePicture(await draw(16, length, (_, y) => [y, 0, 0]), [14, 14, 3]);
      expect([down.width, down.height, down.pixels[0]], `${length} down`).to.deep.equal([16, 64, first]);
    }
    // Upright it is 16 wide and 128 high, of which rows 32 to 95 are kept: those that are darker than white.
    const turned = await draw(128, 16, (x) => (x >= 32 && x < 96 ? [100, 100, 100] : [255, 255, 255]), 6);
    const kept = await decodePicture(turned, [14, 14, 3]);
    expect([kept.width, kept.height]).to.deep.equal([16, 64]);
    for (const row of [1, 20, 62]) expect(kept.pixels[3 * (16 * row + 8)], `row ${row}`).to.be.closeTo(100, 6);
  });

  it("come from grey images, from images with alpha and as grey ones", async () => {
    const sharp = loadSharp();
    const grey = await sharp({ create: { width: 20, height: 20, channels: 3, background: "#808080" } })
      .toColourspace("b-w")
      .png()
      .toBuffer();
    const red = await decodePicture(grey, [14, 14, 3]);
    expect([...red.pixels.subarray(0, 3)]).to.deep.equal([128, 128, 128]);
    const clear = await sharp({ create: { width: 20, height: 20, channels: 4, background: { r: 255, g: 0, b: 0, alpha: 0 } } })
      .png()
      .toBuffer();
    expect([...(await decodePicture(clear, [14, 14, 3])).pixels.subarray(0, 3)]).to.deep.equal([255, 255, 255]);
    expect((await decodePicture(clear, [14, 14, 1])).pixels).to.have.length(16 * 16);
  });

  it("are cropped at random within their bounds, and down to the smallest share", () => {
    const words = (...fractions: number[]) => Uint32Array.from(fractions, (fraction) => Math.min(2 ** 32 - 1, fraction * 2 ** 32));
    const made = { width: 40, height: 20, pixels: new Uint8Array(0) };
    for (let i = 0; i < 500; i++) {
      const box = randomBox(made, [10, 10, 3], 0.1, words(...[1, 3, 7, 13].map((k) => (i * k * 0.0618) % 1)));
      expect(box.width).to.be.within(1, 40);
      expect(box.height).to.be.within(1, 20);
      expect(box.left).to.be.within(0, 40 - box.width);
      expect(box.top).to.be.within(0, 20 - box.height);
    }
    const smallest = randomBox(made, [10, 10, 3], 0.125, words(0, 0.5, 0, 0));
    expect([smallest.width, smallest.height]).to.deep.equal([10, 10]);
    const largest = randomBox(made, [10, 10, 3], 0.125, words(1, 0.5, 1, 1));
    expect(largest).to.deep.equal({ width: 20, height: 20, left: 20, top: 0 });
  });

  describe("cropped at random", () => {
    const square = { width: 1000, height: 1000, pixels: new Uint8Array(0) };
    /** By four numbers in [0, 1), from a picture that is large enough for any such part. */
    const boxOf = (fractions: readonly number[], shape: Shape = [10, 10, 3], smallest = 0.04): Box =>
      randomBox(
        square,
        shape,
        smallest,
        Uint32Array.from(fractions, (fraction) => fraction * 2 ** 32),
      );

    it("have shapes between 3:4 and 4:3 of the input's, uniform in the logarithm", () => {
      const aspect = (fraction: number, shape?: Shape) => {
        const { width, height } = boxOf([0, fraction, 0, 0], shape);
        return width / height;
      };
      const nearly = 1 - 2 ** -32;
      // A box's sides are some 200 pixels, rounded.
      for (const [fraction, expected] of [
        [0, 3 / 4],
        [0.25, Math.sqrt(3 / 4)],
        [0.5, 1],
        [0.75, Math.sqrt(4 / 3)],
        [nearly, 4 / 3],
      ] as const) {
        expect(aspect(fraction), `${fraction}`).to.be.closeTo(expected, 0.008);
        // Of an input that is twice as wide as it is high.
        expect(aspect(fraction, [10, 20, 3]) / 2, `${fraction}, wide`).to.be.closeTo(expected, 0.012);
      }
    });

    it("have areas from the smallest share up to all, uniform", () => {
      const share = (fraction: number, smallest: number) => {
        const { width, height } = boxOf([fraction, 0.5, 0, 0], [10, 10, 3], smallest);
        return (width * height) / 1e6;
      };
      for (const [fraction, smallest, expected] of [
        [0, 0.04, 0.04],
        [0.5, 0.04, 0.52],
        [0.25, 0.2, 0.4],
        [1 - 2 ** -32, 0.2, 1],
        [0, 1, 1],
      ] as const)
        expect(share(fraction, smallest), `${fraction} from ${smallest}`).to.be.closeTo(expected, 0.002);
    });

    it("lie anywhere, each place alike, the last one as well", () => {
      // A box of 500 x 500 has 501 places along each edge.
      const place = (x: number, y: number) => boxOf([0, 0.5, x, y], [10, 10, 3], 0.25);
      expect(place(0, 0)).to.deep.equal({ width: 500, height: 500, left: 0, top: 0 });
      expect(place(0.5, 0.25)).to.deep.include({ left: 250, top: 125 });
      expect(place(1 - 2 ** -32, 1 - 2 ** -32)).to.deep.include({ left: 500, top: 500 });
      const lefts = Array.from({ length: 501 }, (_, i) => place((i + 0.5) / 501, 0).left);
      expect(lefts).to.deep.equal([...Array(501).keys()]);
    });
  });

  describe("cropped to the middle", () => {
    for (const [height, width] of [
      [4, 3],
      [5, 3],
      [4, 4],
      [5, 5],
      [6, 5],
      [7, 6],
      [6, 8],
    ] as const)
      it(`lose as much on either side, and of ${height} x ${width} the odd row and column at their ends`, () => {
        for (const channels of [1, 3]) {
          const out = new Uint8Array(4 * 3 * channels);
          cropCentre(numbered(height, width, channels), [4, 3, channels], out);
          const [top, left] = [Math.floor((height - 4) / 2), Math.floor((width - 3) / 2)];
          const expected = [0, 1, 2, 3].flatMap((row) => [0, 1, 2].map((column) => (top + row) * width + left + column));
          expect([...out.filter((_, i) => i % channels === 0)]).to.deep.equal(expected);
          expect(out.filter((_, i) => channels === 3 && i % 3 === 2)).to.satisfy((values: Uint8Array) =>
            values.every((value) => value === 202),
          );
        }
      });
  });

  describe("resized", () => {
    const resized = (from: Picture, [h, w, c]: Shape, box: Box) => {
      const out = new Uint8Array(h * w * c);
      cropResized(from, [h, w, c], box, out);
      return [...out];
    };

    it("are themselves at their own size, and a part of them is that part", () => {
      const from = numbered(5, 7);
      expect(resized(from, [5, 7, 1], { top: 0, left: 0, height: 5, width: 7 })).to.deep.equal([...from.pixels]);
      expect(resized(from, [2, 3, 1], { top: 3, left: 2, height: 2, width: 3 })).to.deep.equal([23, 24, 25, 30, 31, 32]);
      const colours = numbered(3, 3, 3);
      expect(resized(colours, [1, 2, 3], { top: 1, left: 1, height: 1, width: 2 })).to.deep.equal([4, 201, 202, 5, 201, 202]);
    });

    it("are means of neighbours at half their size", () => {
      const from: Picture = { height: 2, width: 4, pixels: Uint8Array.of(0, 10, 100, 200, 20, 30, 40, 255) };
      expect(resized(from, [1, 2, 1], { top: 0, left: 0, height: 2, width: 4 })).to.deep.equal([15, 149]); // 148.75
    });

    it("are interpolated at twice their size, and repeated at the edges", () => {
      const row: Picture = { height: 1, width: 3, pixels: Uint8Array.of(0, 100, 200) };
      const twice = [0, 25, 75, 125, 175, 200];
      expect(resized(row, [1, 6, 1], { top: 0, left: 0, height: 1, width: 3 })).to.deep.equal(twice);
      expect(resized({ ...row, height: 3, width: 1 }, [6, 1, 1], { top: 0, left: 0, height: 3, width: 1 })).to.deep.equal(twice);
      // The box's edges, not the picture's: what is beyond is not mixed in.
      expect(resized(row, [1, 2, 1], { top: 0, left: 1, height: 1, width: 1 })).to.deep.equal([100, 100]);
    });
  });
});

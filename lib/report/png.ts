/** Images as PNG data URLs, for pages that must not refer to other files. */
import { deflateSync } from "node:zlib";

/** Colour types of the format, by channels: grey, grey and alpha, RGB, RGBA. */
const COLOR_TYPES = [undefined, 0, 4, 2, 6];
const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff]!;
  return (crc ^ 0xffffffff) >>> 0;
}

function chunk(type: string, data: Uint8Array): Buffer {
  const whole = Buffer.alloc(12 + data.length);
  whole.writeUInt32BE(data.length, 0);
  whole.write(type, 4, "latin1");
  whole.set(data, 8);
  whole.writeUInt32BE(crc32(whole.subarray(4, 8 + data.length)), 8 + data.length);
  return whole;
}

/** @param pixels [height][width][channels] bytes, 1 to 4 channels */
export function encodePng(pixels: Uint8Array, [height, width, channels]: readonly [number, number, number]): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = 8; // bits of a channel
  header[9] = COLOR_TYPES[channels]!;
  // Each row is preceded by its filter; 0 is none.
  const row = width * channels;
  const rows = Buffer.alloc(height * (row + 1));
  for (let y = 0; y < height; y++) rows.set(pixels.subarray(y * row, (y + 1) * row), y * (row + 1) + 1);
  return Buffer.concat([SIGNATURE, chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}

export const dataUrl = (png: Buffer): string => `data:image/png;base64,${png.toString("base64")}`;

/** The image with the mean of each `factor` x `factor` pixels as one; what is left at the edges is dropped. */
export function shrinkImage(
  pixels: Uint8Array,
  [height, width, channels]: readonly [number, number, number],
  factor: number,
): { pixels: Uint8Array; shape: [number, number, number] } {
  const [h, w] = [Math.floor(height / factor), Math.floor(width / factor)];
  const small = new Uint8Array(h * w * channels);
  for (let i = 0; i < small.length; i++) {
    const [y, x, c] = [Math.floor(i / (w * channels)), Math.floor(i / channels) % w, i % channels];
    let sum = 0;
    for (let dy = 0; dy < factor; dy++)
      for (let dx = 0; dx < factor; dx++) sum += pixels[((y * factor + dy) * width + x * factor + dx) * channels + c]!;
    small[i] = Math.round(sum / factor ** 2);
  }
  return { pixels: small, shape: [h, w, channels] };
}

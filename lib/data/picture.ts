/**
 * From an image file to a network's input, in two parts. First a *picture*: the image decoded, turned upright, and resized so
 * that it just covers 8/7 of the input's height and width (256 for 224); a smaller image that covers the input stays as it is. Then the *crop*: the input's size out of the middle of
 * the picture, or a random part of it, resized. A pack (pack.ts) keeps pictures, so a packed image and its file give the same bits.
 */
import type Sharp from "sharp";
import { exponential, logarithm } from "../elementary.js";
import { RevNetError } from "../errors.js";
import { damageOf } from "./container.js";
import { loadSharp } from "./sharp.js";

export type Shape = readonly [height: number, width: number, channels: number];

/** Interleaved bytes. */
export interface Picture {
  readonly height: number;
  readonly width: number;
  readonly pixels: Uint8Array;
}

/** Pictures are larger than the input by at most this: what is usual, 256 for 224. */
const MARGIN = 8 / 7;
/** Of the sides of what is kept of an image; the middle of one that is longer. It bounds a picture's bytes. */
const MAX_ASPECT = 4;
/** Of an image file: as many bytes as an uncompressed one of 64 million colours takes, and some more. */
export const MAX_IMAGE_BYTES = 2 ** 28;
/** Pixels of an image file: beyond, it is refused rather than decoded. */
const MAX_PIXELS = 2 ** 28;

/** Image files are grey or RGB. */
export const hasPictures = ([, , channels]: Shape): boolean => channels === 1 || channels === 3;

/** Extensions of the files that the decoder reads, in lower case. */
export const IMAGE_EXTENSIONS: readonly string[] = [
  ".jpg",
  ".jpeg",
  ".jpe",
  ".jfif",
  ".png",
  ".webp",
  ".gif",
  ".tif",
  ".tiff",
  ".avif",
];
/** The same for messages. */
export const IMAGE_FORMATS = "JPEG, PNG, WebP, GIF, TIFF or AVIF";

/** Bytes in Latin-1 that files begin with, at an offset; some hold another mark further on. */
const MAGIC: readonly (readonly [at: number, bytes: string])[][] = [
  [[0, "\xff\xd8\xff"]],
  [[0, "\x89PNG\r\n"]],
  [
    [0, "RIFF"],
    [8, "WEBP"],
  ],
  [[0, "GIF8"]],
  [[0, "II*\0"]],
  [[0, "MM\0*"]],
  [[4, "ftypavi"]],
];

/** Whether bytes begin as a file of one of IMAGE_FORMATS does. */
export function isEncoded(bytes: Uint8Array): boolean {
  const starts = (at: number, magic: string) => Array.from(magic).every((byte, i) => bytes[at + i] === byte.charCodeAt(0));
  return MAGIC.some((marks) => marks.every(([at, magic]) => starts(at, magic)));
}

/** Rejects with an Error that says what is wrong with the file's bytes. */
export async function decodePicture(bytes: Uint8Array, [height, width, channels]: Shape): Promise<Picture> {
  if (bytes.length === 0) throw new Error("the file is empty");
  if (!isEncoded(bytes)) throw new Error(`it is not a ${IMAGE_FORMATS} file`);
  const damage = damageOf(bytes);
  if (damage) throw new Error(`it cannot be read: ${damage}`);
  // "error" leaves mere warnings (an odd revision, stray bytes between markers) to pass, and stops where the data end early.
  const open = () => loadSharp()(bytes, { limitInputPixels: MAX_PIXELS, failOn: "error" });
  const image = upright(await open().metadata().catch(damaged("its header")));
  let pipeline = open().autoOrient();
  const kept = {
    width: Math.min(image.width, MAX_ASPECT * image.height),
    height: Math.min(image.height, MAX_ASPECT * image.width),
  };
  if (kept.width < image.width || kept.height < image.height)
    pipeline = pipeline.extract({ ...kept, left: (image.width - kept.width) >> 1, top: (image.height - kept.height) >> 1 });
  const size = pictureSize(kept, [height, width]);
  if (size.width !== kept.width || size.height !== kept.height) pipeline = pipeline.resize({ ...size, fit: "fill" });
  const { data, info } = await pipeline
    .flatten({ background: "white" })
    .toColourspace("srgb")
    .raw({ depth: "uchar" })
    .toBuffer({ resolveWithObject: true })
    .catch(damaged("its image data"));
  if (info.channels !== 3 || info.width !== size.width || info.height !== size.height)
    throw new Error(`it decodes to ${info.width}x${info.height}x${info.channels}`);
  return { ...size, pixels: channels === 1 ? luma(data) : data };
}

/**
 * What an image is resized to. One that covers the input and not MARGIN of it stays as it is: interpolation would only blur it. A larger
 * one is reduced to MARGIN of the input, a smaller one enlarged until it covers the input.
 */
export function pictureSize(
  image: { readonly height: number; readonly width: number },
  [height, width]: readonly [number, number],
): { height: number; width: number } {
  const cover = Math.max(height / image.height, width / image.width);
  const scale = Math.min(Math.max(1, cover), MARGIN * cover);
  return {
    width: Math.max(width, Math.round(scale * image.width)),
    height: Math.max(height, Math.round(scale * image.height)),
  };
}

/** Weights of red, green and blue in brightness (ITU-R BT.601), in units of 2^-16; together 2^16, so that grey stays what it is. */
const LUMA = [19595, 38470, 7471] as const;

/** Brightness of interleaved red, green and blue, rounded. */
export function luma(rgb: Uint8Array): Uint8Array {
  const grey = new Uint8Array(rgb.length / 3);
  for (let i = 0; i < grey.length; i++)
    grey[i] = (LUMA[0] * rgb[3 * i]! + LUMA[1] * rgb[3 * i + 1]! + LUMA[2] * rgb[3 * i + 2]! + 2 ** 15) >>> 16;
  return grey;
}

/** In words of our own: what the decoder says ends with a text that all its threads share, which may be of another image, or empty. */
const damaged =
  (part: string) =>
  (cause: Error): never => {
    const tooLarge = cause.message.startsWith("Input image exceeds pixel limit");
    throw new Error(tooLarge ? `it has more than ${MAX_PIXELS} pixels` : `${part} cannot be read: damaged or cut short`, { cause });
  };

/** Height and width once it is turned the way its EXIF data asks for. */
function upright({ width, height, orientation = 1 }: Sharp.Metadata): { width: number; height: number } {
  return orientation >= 5 ? { width: height, height: width } : { width, height };
}

/** The middle of a picture, into `out`. */
export function cropCentre({ height, width, pixels }: Picture, [h, w, c]: Shape, out: Uint8Array): void {
  const [top, left] = [(height - h) >> 1, (width - w) >> 1];
  for (let row = 0; row < h; row++) {
    const from = ((top + row) * width + left) * c;
    out.set(pixels.subarray(from, from + w * c), row * w * c);
  }
}

/**
 * An image's bytes as pixels of the shape: an image file is decoded, resized and cropped to its middle; pixels of that shape
 * are taken as they are.
 * @param where what messages call the image
 * @throws RevNetError ERR_INVALID_DATA, ERR_SHARP_MISSING
 */
export async function toPixels(image: Uint8Array, shape: Shape, where: string): Promise<Uint8Array> {
  const elements = shape[0] * shape[1] * shape[2];
  const invalid = (what: string, cause?: unknown) => new RevNetError("ERR_INVALID_DATA", `${where}: ${what}`, { cause });
  if (!isEncoded(image) || !hasPictures(shape)) {
    if (image.length === elements) return image;
    if (!hasPictures(shape)) throw invalid(`expected ${shape.join(" x ")} = ${elements} bytes, got ${image.length}`);
    throw invalid(`expected ${shape.join(" x ")} = ${elements} bytes, or those of a ${IMAGE_FORMATS} file, got ${image.length}`);
  }
  try {
    const pixels = new Uint8Array(elements);
    cropCentre(await decodePicture(image, shape), shape, pixels);
    return pixels;
  } catch (cause) {
    if (cause instanceof RevNetError) throw cause;
    // Pixels may begin as a file does.
    if (image.length === elements) return image;
    throw invalid((cause as Error).message, cause);
  }
}

export interface Box {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
}

/**
 * A random part of a picture by four words: its share of the area uniform in [smallest, 1], its shape between 3:4 and 4:3 of the
 * input's (uniform in the logarithm), its place uniform. A part that would not fit is made as large as fits in its shape.
 */
export function randomBox({ height, width }: Picture, [h, w]: Shape, smallest: number, words: Uint32Array): Box {
  const unit = (i: number) => words[i]! / 2 ** 32;
  const area = (smallest + (1 - smallest) * unit(0)) * height * width;
  const aspect = (w / h) * exponential((2 * unit(1) - 1) * logarithm(4 / 3));
  const fit = Math.min(1, width / Math.sqrt(area * aspect), height / Math.sqrt(area / aspect));
  const side = (length: number, most: number) => Math.min(most, Math.max(1, Math.round(fit * length)));
  const box = { width: side(Math.sqrt(area * aspect), width), height: side(Math.sqrt(area / aspect), height) };
  return { ...box, left: Math.floor(unit(2) * (width - box.width + 1)), top: Math.floor(unit(3) * (height - box.height + 1)) };
}

/** Fixed point of the weights: 11 bits each, so that a product of two and a byte stays below 2^31. */
const ONE = 2 ** 11;

/** For each of `to` samples, where it lies between two of the `from` samples from `start` on. */
function positions(start: number, from: number, to: number): { low: Int32Array; high: Int32Array; weight: Int32Array } {
  const low = new Int32Array(to);
  const high = new Int32Array(to);
  const weight = new Int32Array(to);
  for (let i = 0; i < to; i++) {
    const at = Math.min(from - 1, Math.max(0, ((i + 0.5) * from) / to - 0.5));
    low[i] = start + Math.floor(at);
    high[i] = start + Math.min(from - 1, Math.floor(at) + 1);
    weight[i] = Math.round((at - Math.floor(at)) * ONE);
  }
  return { low, high, weight };
}

/** A part of a picture, bilinearly resized into `out`. Integers only: the same bits everywhere. */
export function cropResized({ width, pixels }: Picture, [h, w, c]: Shape, box: Box, out: Uint8Array): void {
  const ys = positions(box.top, box.height, h);
  const xs = positions(box.left, box.width, w);
  for (let y = 0; y < h; y++) {
    const [above, below] = [ys.low[y]! * width * c, ys.high[y]! * width * c];
    const down = ys.weight[y]!;
    let to = y * w * c;
    for (let x = 0; x < w; x++) {
      const [left, right, along] = [xs.low[x]! * c, xs.high[x]! * c, xs.weight[x]!];
      for (let k = 0; k < c; k++) {
        const upper = pixels[above + left + k]! * (ONE - along) + pixels[above + right + k]! * along;
        const lower = pixels[below + left + k]! * (ONE - along) + pixels[below + right + k]! * along;
        out[to++] = (upper * (ONE - down) + lower * down + (ONE * ONE) / 2) >>> 22;
      }
    }
  }
}

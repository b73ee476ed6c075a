/**
 * Whether a JPEG, WebP or GIF file is whole, by its container: where a download or a copy left zeros in place of the rest, the decoder
 * makes a picture of them. It notices by itself in PNG and AVIF files; in an uncompressed TIFF, zeros are pixels like any other.
 */

/** Compressed data do not end in so many zeros; what a file system or a download leaves unwritten does, in sectors of at least this. */
const SECTOR = 512;

const latin = (bytes: Uint8Array, at: number, length: number) => String.fromCharCode(...bytes.subarray(at, at + length));

/** What is wrong; undefined: nothing that the container shows, or another format. */
export function damageOf(bytes: Uint8Array): string | undefined {
  if (latin(bytes, 0, 4) === "RIFF" && latin(bytes, 8, 4) === "WEBP") return damageOfWebp(bytes);
  if (latin(bytes, 0, 4) === "GIF8") return damageOfGif(bytes);
  return latin(bytes, 0, 2) === "\xff\xd8" ? damageOfJpeg(bytes) : undefined;
}

/** A scan has no other marker in it, so after the last one the image ends; some writers leave out the marker that says so. */
function damageOfJpeg(bytes: Uint8Array): string | undefined {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const ended = file.lastIndexOf("\xff\xd9", undefined, "latin1") > file.lastIndexOf("\xff\xda", undefined, "latin1");
  return !ended && endsInZeros(bytes) ? "its image data end in zeros" : undefined;
}

function damageOfWebp(bytes: Uint8Array): string | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = (at: number) => view.getUint32(at, true);
  const end = 8 + size(4);
  if (end > bytes.length) return `it has ${bytes.length} of the ${end} bytes that its header says`;
  // Chunks: four letters, a length, and the data, filled up to an even length.
  for (let at = 12; at + 8 <= end; ) {
    const [name, data, length] = [latin(bytes, at, 4), at + 8, size(at + 4)];
    if (data + length > end) return `its chunk '${name}' goes beyond its end`;
    if (name.startsWith("VP8") && name !== "VP8X" && endsInZeros(bytes.subarray(data, data + length)))
      return "its image data end in zeros";
    at = data + length + (length % 2);
  }
  return undefined;
}

const endsInZeros = (data: Uint8Array): boolean => data.length >= SECTOR && data.subarray(-SECTOR).every((byte) => byte === 0);

const GIF = { extension: 0x21, image: 0x2c, trailer: 0x3b };

/** Up to the end of the first image, which is the one that is read. */
function damageOfGif(bytes: Uint8Array): string | undefined {
  const short = "it is cut short";
  const table = (flags: number | undefined) => ((flags ?? 0) & 0x80 ? 3 * 2 ** (((flags ?? 0) & 7) + 1) : 0);
  // Blocks of data, each after its length, up to one of none; undefined: the file ends before.
  const afterData = (from: number): number | undefined => {
    let at = from;
    for (let length = bytes[at]; length !== undefined; length = bytes[at]) {
      at += 1 + length;
      if (length === 0) return at;
    }
    return undefined;
  };
  let at: number | undefined = 13 + table(bytes[10]);
  while (bytes[at] === GIF.extension) {
    at = afterData(at + 2);
    if (at === undefined) return short;
  }
  if (bytes[at] !== GIF.image) return at < bytes.length ? "it has no image where one should be" : short;
  at = afterData(at + 11 + table(bytes[at + 9]));
  if (at === undefined) return short;
  // Some writers leave out the trailer.
  const next = bytes[at];
  return next === undefined || Object.values(GIF).includes(next) ? undefined : "its image data end too early";
}

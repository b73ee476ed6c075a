/** Makes the pack of a folder of images. */
import path from "node:path";
import { RevNetError } from "../errors.js";
import type { BrokenImage, LeftOut } from "./dataset.js";
import { Decoder } from "./decoder.js";
import { listFolder } from "./folder.js";
import { PackWriter, packFile } from "./pack.js";
import { hasPictures, type Shape } from "./picture.js";

/** What packFolder gives. */
export interface Packing {
  /** The pack's path. */
  readonly file: string;
  /** Images in it. */
  readonly images: number;
  /** Of their pixels. */
  readonly bytes: number;
  /** Images that could not be decoded, and are not in it. */
  readonly broken: readonly BrokenImage[];
  /** What the folder has beside images. */
  readonly leftOut: readonly LeftOut[];
}

const BATCH = 64;

/**
 * Decodes every image of the folder once and writes the pack that `image-folder` then uses for models with this input.
 * @throws RevNetError ERR_INVALID_DATA, ERR_INVALID_ARGUMENT, ERR_FILE, ERR_SHARP_MISSING, ERR_ABORTED
 */
export async function packFolder(
  folder: string,
  shape: Shape,
  { onProgress, signal }: { onProgress?: (done: number, total: number) => void; signal?: AbortSignal | undefined } = {},
): Promise<Packing> {
  if (!hasPictures(shape)) throw new RevNetError("ERR_INVALID_ARGUMENT", `shape: images have 1 or 3 channels, got ${shape[2]}`);
  const { train, validation, test, leftOut } = await listFolder(folder, { share: "none", signal });
  const files = [...train, ...validation, ...test];
  const decoder = new Decoder(shape);
  const file = packFile(folder, shape);
  const broken: BrokenImage[] = [];
  let bytes = 0;
  let writer: PackWriter | undefined;
  try {
    writer = await PackWriter.create(file, shape);
    for (let first = 0; first < files.length; first += BATCH) {
      if (signal?.aborted) throw new RevNetError("ERR_ABORTED", "packing was aborted", { cause: signal.reason });
      const chosen = files.slice(first, first + BATCH);
      const items = chosen.map(({ onDisk }, row) => ({ row, file: path.join(folder, onDisk) }));
      const { failures, pictures } = await decoder.pictures(items);
      for (const { row, height, width, pixels } of pictures) {
        await writer.add(chosen[row]!, height, width, pixels);
        bytes += pixels.length;
      }
      for (const { row, reason } of failures) {
        writer.addBroken(chosen[row]!, reason);
        broken.push({ file: path.join(folder, chosen[row]!.onDisk), reason });
      }
      onProgress?.(Math.min(files.length, first + BATCH), files.length);
    }
    await writer.finish();
    return { file, images: files.length - broken.length, bytes, broken, leftOut };
  } catch (error) {
    await writer?.abandon();
    throw error;
  } finally {
    await decoder.close();
  }
}

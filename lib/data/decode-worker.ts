/** A thread that makes images: it reads files or a pack, crops, and writes the result where it is told; decoder.ts starts it. */
import { closeSync, readSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import { crc32 } from "node:zlib";
import { openFileSync, readFile } from "../files/open.js";
import { digestOf } from "./contents.js";
import type { Packed } from "./pack.js";
import { cropCentre, cropResized, decodePicture, MAX_IMAGE_BYTES, type Picture, randomBox, type Shape } from "./picture.js";

/** One image to make. */
export interface Item {
  /** Of the target, in images. */
  readonly row: number;
  readonly file: string;
  readonly packed?: Packed | undefined;
  /** Whether the digest of the file's bytes is wanted. */
  readonly digest?: boolean | undefined;
  /** For a random crop; absent: the middle. */
  readonly words?: Uint32Array | undefined;
}
export interface Task {
  readonly id: number;
  readonly shape: Shape;
  readonly pack: string | undefined;
  readonly resizedCrop: number;
  readonly items: readonly Item[];
  /** Where the images go; absent: whole pictures are sent back. */
  readonly target: SharedArrayBuffer | undefined;
}
export interface Answer {
  readonly id: number;
  readonly failures: readonly { readonly row: number; readonly reason: string }[];
  readonly digests: readonly { readonly row: number; readonly digest: string }[];
  readonly pictures: readonly (Picture & { readonly row: number })[];
}

/** The pack that is open, if one is. */
let opened: { file: string; descriptor: number } | undefined;

function readPacked(file: string, { offset, height, width, crc }: Packed, channels: number): Picture {
  if (opened?.file !== file) {
    if (opened) closeSync(opened.descriptor);
    opened = undefined;
    opened = { file, descriptor: openFileSync(file).descriptor };
  }
  const pixels = new Uint8Array(height * width * channels);
  for (let done = 0; done < pixels.length; ) {
    const count = readSync(opened.descriptor, pixels, done, pixels.length - done, offset + done);
    if (count === 0) throw new Error(`its picture in ${file} is cut off`);
    done += count;
  }
  if (crc32(pixels) !== crc) throw new Error(`its picture in ${file} is damaged`);
  return { height, width, pixels };
}

type Digests = { row: number; digest: string }[];

async function makePicture({ shape, pack }: Task, { row, file, packed, digest }: Item, digests: Digests): Promise<Picture> {
  if (packed && pack !== undefined) return readPacked(pack, packed, shape[2]);
  const bytes = await readFile(file, { limit: MAX_IMAGE_BYTES });
  if (digest) digests.push({ row, digest: digestOf(bytes) });
  return decodePicture(bytes, shape);
}

function place({ shape, target, resizedCrop }: Task, { row, words }: Item, picture: Picture): void {
  const imageBytes = shape[0] * shape[1] * shape[2];
  const out = new Uint8Array(target!, row * imageBytes, imageBytes);
  if (words) cropResized(picture, shape, randomBox(picture, shape, resizedCrop, words), out);
  else cropCentre(picture, shape, out);
}

async function work(task: Task): Promise<Answer> {
  const failures: { row: number; reason: string }[] = [];
  const digests: Digests = [];
  const pictures: (Picture & { row: number })[] = [];
  for (const item of task.items)
    try {
      const picture = await makePicture(task, item, digests);
      if (task.target) place(task, item, picture);
      else pictures.push({ ...picture, row: item.row });
    } catch (error) {
      failures.push({ row: item.row, reason: (error as Error).message });
    }
  return { id: task.id, failures, digests, pictures };
}

parentPort!.on("message", async (task: Task) => parentPort!.postMessage(await work(task)));

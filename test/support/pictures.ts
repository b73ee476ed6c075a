/** Folders of small image files, each class a colour, made for a test. */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type Sharp from "sharp";
import { loadSharp } from "../../lib/data/sharp.js";
import { native } from "../../lib/native/index.js";

export const COLOURS: Readonly<Record<string, readonly [number, number, number]>> = {
  blue: [40, 60, 200],
  green: [50, 190, 70],
  red: [200, 50, 60],
};

/** An image of one colour under noise that depends on the index, as a file's bytes. */
export function picture(
  colour: readonly number[],
  index: number,
  width = 40,
  height = 30,
  format: keyof Sharp.FormatEnum = "png",
): Promise<Buffer> {
  const noise = native.philox(BigInt(index), width, height, "dataset", width * height);
  const pixels = Uint8Array.from({ length: width * height * 3 }, (_, i) => colour[i % 3]! + (noise[Math.floor(i / 3)]! >>> 27));
  return loadSharp()(pixels, { raw: { width, height, channels: 3 } })
    .toFormat(format)
    .toBuffer();
}

/** FOLDER/CLASS/000.png, 001.jpg, 002.webp, ... for each class. */
export async function writeClasses(folder: string, perClass: number, width = 40, height = 30): Promise<void> {
  const formats = ["png", "jpeg", "webp"] as const;
  for (const [label, [name, colour]] of Object.entries(COLOURS).entries()) {
    await mkdir(path.join(folder, name), { recursive: true });
    for (let i = 0; i < perClass; i++) {
      const format = formats[i % 3]!;
      const file = `${String(i).padStart(3, "0")}.${format === "jpeg" ? "jpg" : format}`;
      // Sizes differ, so that the pictures do.
      const bytes = await picture(colour, label * 1000 + i, width + (i % 5), height + (i % 3), format);
      await writeFile(path.join(folder, name, file), bytes);
    }
  }
}

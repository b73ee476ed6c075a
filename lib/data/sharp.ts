/** The image library sharp, which is optional: only image files need it. */
import type Sharp from "sharp";
import { RevNetError } from "../errors.js";

let loaded: typeof Sharp | undefined;

/**
 * Worker threads may load sharp once the main thread has.
 * @throws RevNetError ERR_SHARP_MISSING
 */
export function loadSharp(load: (name: string) => unknown = require): typeof Sharp {
  if (loaded) return loaded;
  try {
    const sharp = load("sharp") as typeof Sharp;
    loaded = sharp;
    return sharp;
  } catch (cause) {
    throw new RevNetError(
      "ERR_SHARP_MISSING",
      `reading image files needs the package sharp, which cannot be loaded: run \`npm install sharp\` (${(cause as Error).message.split("\n")[0]})`,
      { cause },
    );
  }
}

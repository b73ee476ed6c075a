/**
 * `shapes`: a drawn data set that needs no download. Each 32x32 RGB image shows one of ten outlines at a random place, size,
 * rotation and colour, anti-aliased, before a textured background with clutter. Colour and place say nothing about the class,
 * so a linear classifier stays near chance; a small convolutional network learns it in a minute.
 *
 * Image i of a split is a pure function of (seed, split, i): a larger set begins with the smaller one.
 */
import { cosine, lengthOf, sine } from "../elementary.js";
import type { Dataset, Split } from "./dataset.js";
import { OUTLINES } from "./outlines.js";
import { Pacer } from "./pacer.js";
import { Draws } from "./random.js";

const EDGE = 32;
const CHANNELS = 3;
const IMAGE = EDGE * EDGE * CHANNELS;
const CLASSES = Object.keys(OUTLINES);
const SPLITS = { train: 0, test: 1 } as const;

/** Random words of one image: a noise byte for each of its bytes, and the few that place and colour things. */
const WORDS = IMAGE / 4 + 160;
const NOISE = 0.16;

type Colour = readonly [number, number, number];

/** Red, green and blue each from `low` to `high`. */
const randomColour = (draws: Draws, low: number, high: number): Colour => [
  draws.uniform(low, high),
  draws.uniform(low, high),
  draws.uniform(low, high),
];

/** Blends `colour` over pixel (x, y); `coverage` in [0, 1]. */
function blend(canvas: Float32Array, x: number, y: number, colour: Colour, coverage: number): void {
  const at = (y * EDGE + x) * CHANNELS;
  for (let channel = 0; channel < CHANNELS; channel++)
    canvas[at + channel]! += coverage * (colour[channel]! - canvas[at + channel]!);
}

/** Fills wherever `distance` (in pixels, negative inside) says so, with an edge one pixel soft. */
function fill(
  canvas: Float32Array,
  x: number,
  y: number,
  reach: number,
  colour: Colour,
  distance: (dx: number, dy: number) => number,
): void {
  const [left, right] = [Math.max(0, Math.floor(x - reach)), Math.min(EDGE - 1, Math.ceil(x + reach))];
  const [top, bottom] = [Math.max(0, Math.floor(y - reach)), Math.min(EDGE - 1, Math.ceil(y + reach))];
  for (let row = top; row <= bottom; row++)
    for (let column = left; column <= right; column++) {
      const coverage = 0.5 - distance(column - x, row - y);
      if (coverage > 0) blend(canvas, column, row, colour, Math.min(1, coverage));
    }
}

/** A base colour under a slope and a wave, both in random directions. */
function drawBackground(canvas: Float32Array, draws: Draws, base: Colour): void {
  const tint = [draws.uniform(-45, 45), draws.uniform(-45, 45), draws.uniform(-45, 45)] as const;
  const slope = draws.uniform(0, 2 * Math.PI);
  const direction = draws.uniform(0, 2 * Math.PI);
  const frequency = draws.uniform(0.25, 1.2);
  const phase = draws.uniform(0, 2 * Math.PI);
  const amplitude = draws.uniform(0, 22);
  const [slopeX, slopeY] = [cosine(slope) / EDGE, sine(slope) / EDGE];
  const [waveX, waveY] = [frequency * cosine(direction), frequency * sine(direction)];
  for (let y = 0; y < EDGE; y++)
    for (let x = 0; x < EDGE; x++) {
      const along = (x - EDGE / 2) * slopeX + (y - EDGE / 2) * slopeY;
      const wave = amplitude * sine(x * waveX + y * waveY + phase);
      for (let channel = 0; channel < CHANNELS; channel++)
        canvas[(y * EDGE + x) * CHANNELS + channel] = base[channel]! + tint[channel]! * along + wave;
    }
}

/** A short stroke: the points within `width / 2` of a segment. */
function drawStroke(canvas: Float32Array, draws: Draws, colour: Colour): void {
  const [x, y] = [draws.uniform(0, EDGE), draws.uniform(0, EDGE)];
  const [angle, half, width] = [draws.uniform(0, Math.PI), draws.uniform(0.5, 5), draws.uniform(1, 2.5)];
  const [ux, uy] = [cosine(angle), sine(angle)];
  fill(canvas, x, y, half + width, colour, (dx, dy) => {
    const t = Math.max(-half, Math.min(half, dx * ux + dy * uy));
    return lengthOf(dx - t * ux, dy - t * uy) - width / 2;
  });
}

function drawOutline(canvas: Float32Array, draws: Draws, label: number, colour: Colour): void {
  const outline = OUTLINES[CLASSES[label]!]!;
  const radius = draws.uniform(7, 13);
  const margin = 0.85 * radius;
  const [x, y] = [draws.uniform(margin, EDGE - 1 - margin), draws.uniform(margin, EDGE - 1 - margin)];
  const angle = draws.uniform(0, 2 * Math.PI);
  const stretch = draws.uniform(0.85, 1.15);
  const [cos, sin] = [cosine(angle), sine(angle)];
  fill(
    canvas,
    x,
    y,
    1.3 * radius,
    colour,
    (dx, dy) => radius * outline((dx * cos + dy * sin) / (radius * stretch), (dy * cos - dx * sin) / radius),
  );
}

function drawImage(
  seed: number,
  split: keyof typeof SPLITS,
  index: number,
  label: number,
  canvas: Float32Array,
  out: Uint8Array,
): void {
  const draws = new Draws(seed, index, SPLITS[split], WORDS);
  const noise = draws.bytes(IMAGE);
  // Light before dark, in any hue: contrast in every channel, which makes the set quick to learn, not linear.
  drawBackground(canvas, draws, randomColour(draws, 0, 120));
  for (let strokes = 1 + draws.integer(4); strokes > 0; strokes--) drawStroke(canvas, draws, randomColour(draws, 0, 255));
  drawOutline(canvas, draws, label, randomColour(draws, 140, 255));
  for (let i = 0; i < IMAGE; i++) out[i] = Math.max(0, Math.min(255, Math.round(canvas[i]! + NOISE * (noise[i]! - 127.5))));
}

async function drawSplit(split: keyof typeof SPLITS, count: number, seed: number, pacer: Pacer): Promise<Split> {
  const images = new Uint8Array(count * IMAGE);
  // Classes take turns: every prefix is balanced. Training shuffles.
  const labels = Int32Array.from({ length: count }, (_, i) => i % CLASSES.length);
  const canvas = new Float32Array(IMAGE);
  for (let i = 0; i < count; i++) {
    drawImage(seed, split, i, labels[i]!, canvas, images.subarray(i * IMAGE, (i + 1) * IMAGE));
    await pacer.breathe();
  }
  return { count, images, labels };
}

/** Draws the data set: counts of at least 1, a non-negative integer seed. */
export async function drawShapes(trainCount: number, testCount: number, seed: number): Promise<Dataset> {
  const pacer = new Pacer();
  const train = await drawSplit("train", trainCount, seed, pacer);
  const test = await drawSplit("test", testCount, seed, pacer);
  return { name: "shapes", shape: [EDGE, EDGE, CHANNELS], classes: CLASSES, train, test };
}

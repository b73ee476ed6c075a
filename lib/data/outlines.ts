/**
 * The ten outlines of the `shapes` data set as signed distances: negative inside, in units of the outline's radius. Each fits
 * the unit circle; y points down, as in an image.
 */

import { cosine, lengthOf, sine } from "../elementary.js";

/** Distance of (x, y) from the outline. */
export type Outline = (x: number, y: number) => number;

type Point = readonly [number, number];

/** A closed polygon; crossing edges leave even-odd holes. */
function polygon(points: readonly Point[]): Outline {
  // x, y, dx, dy of each edge, flat: this runs for every pixel.
  const edges = points.flatMap(([x, y], i) => {
    const [nextX, nextY] = points[(i + 1) % points.length]!;
    return [x, y, nextX - x, nextY - y];
  });
  return (x, y) => {
    let nearest = Number.POSITIVE_INFINITY;
    let inside = false;
    for (let i = 0; i < edges.length; i += 4) {
      const px = x - edges[i]!;
      const py = y - edges[i + 1]!;
      const ex = edges[i + 2]!;
      const ey = edges[i + 3]!;
      const along = Math.min(1, Math.max(0, (px * ex + py * ey) / (ex * ex + ey * ey)));
      const dx = px - along * ex;
      const dy = py - along * ey;
      nearest = Math.min(nearest, dx * dx + dy * dy);
      // The edge crosses the horizontal through the point, to the right of it.
      if (py < 0 !== py < ey && px < (py * ex) / ey) inside = !inside;
    }
    return inside ? -Math.sqrt(nearest) : Math.sqrt(nearest);
  };
}

/** Corners at equal angles from the top, clockwise; the radius of corner i is radii[i % radii.length]. */
function corners(count: number, ...radii: number[]): Point[] {
  return Array.from({ length: count }, (_, i): Point => {
    const angle = (2 * Math.PI * i) / count;
    const radius = radii[i % radii.length]!;
    return [radius * sine(angle), -radius * cosine(angle)];
  });
}

const heart = Array.from({ length: 28 }, (_, i): Point => {
  const t = (2 * Math.PI * i) / 28;
  const y = 13 * cosine(t) - 5 * cosine(2 * t) - 2 * cosine(3 * t) - cosine(4 * t);
  return [sine(t) * sine(t) * sine(t) * 0.92, -(y + 2.5) / 17];
});

const arm: readonly Point[] = [
  [-0.27, -0.95],
  [0.27, -0.95],
  [0.27, -0.27],
];
const cross = [0, 1, 2, 3].flatMap((quarter) => {
  const [cos, sin] = [cosine((quarter * Math.PI) / 2), sine((quarter * Math.PI) / 2)];
  return arm.map(([x, y]): Point => [cos * x - sin * y, sin * x + cos * y]);
});

export const OUTLINES: Readonly<Record<string, Outline>> = {
  circle: (x, y) => lengthOf(x, y) - 0.88,
  square: polygon(corners(4, 1)),
  triangle: polygon(corners(3, 1)),
  star: polygon(corners(10, 1, 0.42)),
  cross: polygon(cross),
  ring: (x, y) => Math.abs(lengthOf(x, y) - 0.72) - 0.22,
  heart: polygon(heart),
  arrow: polygon([
    [0, -0.98],
    [0.7, -0.15],
    [0.26, -0.15],
    [0.26, 0.95],
    [-0.26, 0.95],
    [-0.26, -0.15],
    [-0.7, -0.15],
  ]),
  crescent: (x, y) => Math.max(lengthOf(x, y) - 0.95, 0.8 - lengthOf(x - 0.5, y)),
  hourglass: polygon([
    [-0.72, -0.9],
    [0.72, -0.9],
    [0.1, 0],
    [0.72, 0.9],
    [-0.72, 0.9],
    [-0.1, 0],
  ]),
};

/** Numbers as people read them. */

/** "42.9 MiB" */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = count < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10));
  return `${(count / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

/** "1:02:03" or "2:03" */
export function duration(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  const two = (value: number) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

export const percent = (fraction: number): string => `${(100 * fraction).toFixed(2)} %`;

/** "1,234 images/s", "6.4 images/s" */
export function throughput(imagesPerSecond: number): string {
  const digits = imagesPerSecond < 10 ? 1 : 0;
  return `${imagesPerSecond.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} images/s`;
}

/** Numbers as people read them, and names that came from outside: safe to print. */

/**
 * What would act on a terminal or a page instead of being seen: C0, DEL and C1 controls (ESC among them), separators of lines and
 * paragraphs, marks and overrides of the direction of writing, and the byte order mark. Joiners, which emoji and several scripts need, stay.
 */
const UNSEEN = /[\p{Cc}\u2028\u2029\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufff9-\ufffb]/gu;
const SHORT_ESCAPES: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
/** What stands between a URL's scheme and its host: a user's name and password, up to the last "@" before the path. */
const CREDENTIALS = /(?<=[a-z][a-z\d+.-]*:[/\\]{2})[^\s/\\?#]*@/gi;

const escapeUnseen = (character: string): string =>
  SHORT_ESCAPES[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

/**
 * `text` as one line that shows what it holds, whoever gave it: characters that a terminal or a page would act on become escapes such as
 * \u001b, and what a URL has before its host (a password) becomes "***". Whatever people are shown goes through here: `print`, `html`
 * and RevNetError call it.
 */
export const printable = (text: string): string => text.replace(UNSEEN, escapeUnseen).replace(CREDENTIALS, "***@");

/** JSON that is safe to print: JSON itself escapes C0 alone. Parsed, it is the same value. */
export const printableJson = (value: unknown, indent?: number): string =>
  // The line breaks in it are the indentation's.
  JSON.stringify(value, null, indent).replace(UNSEEN, (character) => (character === "\n" ? character : escapeUnseen(character)));

/** "42.9 MiB" */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  // By what is shown: 1,048,575 bytes are 1.0 MiB, not 1024.0 KiB.
  const shown = (power: number) => (count / 1024 ** power).toFixed(power === 0 ? 0 : 1);
  let power = 0;
  while (power < units.length - 1 && Number(shown(power)) >= 1024) power += 1;
  return `${shown(power)} ${units[power]}`;
}

/** "1:02:03" or "2:03" */
export function duration(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  const two = (value: number) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

export const percent = (fraction: number): string => `${(100 * fraction).toFixed(2)} %`;

/** A number in few characters: "0.05", "5.48e-6", "1,234,567". */
export function shortNumber(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return value.toLocaleString("en");
  if (size >= 1e6 || size < 9.9e-5)
    return value
      .toExponential(2)
      .replace(/\.?0+e/, "e")
      .replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

/** A cosine to eight digits: "1" only where it is 1. */
export const cosineText = (cosine: number): string => (cosine === 1 ? "1" : cosine.toFixed(8));

/** "1,234 images/s", "6.4 images/s" */
export function throughput(imagesPerSecond: number): string {
  const digits = imagesPerSecond < 10 ? 1 : 0;
  return `${imagesPerSecond.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} images/s`;
}

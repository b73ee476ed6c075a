/** Names that do what names should not: every character that acts on a terminal or a page, and sequences that set its title or clipboard. */

const range = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, i) => String.fromCharCode(first + i)).join("");

/** All but NUL, which no file's name can have; names of classes and models can. */
export const CONTROLS = range(0x01, 0x1f) + range(0x7f, 0x9f);
const MARKS = `\u2028\u2029\u061c\u200e\u200f${range(0x202a, 0x202e)}${range(0x2066, 0x2069)}\ufeff`;

/** At most 255 bytes each, as file systems want. */
export const HOSTILE_NAMES: readonly string[] = [
  `c${CONTROLS}c`,
  `m${MARKS}m`,
  "t\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x1b[2J\x9b31m\nrevnet: all is well",
];
export const HOSTILE = HOSTILE_NAMES[2]!;

/** Characters in `text` that act instead of being seen, as escapes; line breaks of the text itself may be there. */
export function acting(text: string): string[] {
  const found = text.match(/(?!\n)[\p{Cc}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/gu) ?? [];
  return [...new Set(found)].map((character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Lines that a name has made by itself. */
export const forged = (text: string): boolean => /^revnet: all is well/m.test(text);

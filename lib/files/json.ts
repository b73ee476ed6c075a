/**
 * JSON that a user or a network gave. How deep it nests is limited: whoever walks through a value (JSON.stringify too) would run out of
 * stack on one that is thousands deep, and nothing in this package nests more than a few levels.
 */
import { RevNetError } from "../errors.js";
import { decodeText, type Expected, readFile } from "./open.js";

export const MAX_DEPTH = 64;

/**
 * @param what what messages call the text, such as "'run/config.json'"
 * @throws RevNetError with `code`
 */
export function parseJson(text: string, what: string, code: string): unknown {
  if (nestsDeeper(text, MAX_DEPTH))
    throw new RevNetError(code, `${what} nests more than ${MAX_DEPTH} levels of arrays and objects`);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new RevNetError(code, `${what} is not JSON: ${(cause as Error).message}`, { cause });
  }
}

/**
 * A file of JSON.
 * @param code where it is not JSON
 * @throws RevNetError `code`; as OpenFile.open where it cannot be read
 */
export async function readJson(file: string, code: string, expected: Expected & { readonly limit: number }): Promise<unknown> {
  const { what } = expected;
  return parseJson(decodeText(await readFile(file, expected)), `${what === undefined ? "" : `${what} `}'${file}'`, code);
}

const [QUOTE, BACKSLASH, OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [...'"\\[]{}'].map((c) => c.charCodeAt(0));

/** Looks at brackets outside of strings alone; whether all else is JSON, the parser says. */
function nestsDeeper(text: string, most: number): boolean {
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (quoted) {
      if (code === BACKSLASH) i += 1;
      else if (code === QUOTE) quoted = false;
    } else if (code === QUOTE) quoted = true;
    else if (code === OPEN_ARRAY || code === OPEN_OBJECT) {
      depth += 1;
      if (depth > most) return true;
    } else if (code === CLOSE_ARRAY || code === CLOSE_OBJECT) depth -= 1;
  }
  return false;
}

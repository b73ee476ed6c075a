/** HTML as text in which everything that comes from outside is escaped: only what `html` has made is taken as it is. */
import { printable } from "../text.js";

export class Html {
  constructor(readonly source: string) {}
  toString(): string {
    return this.source;
  }
}

type Part = Html | string | number | readonly (Html | string | number)[];

const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escapeText = (text: string) => printable(text).replace(/[&<>"']/g, (character) => ENTITIES[character]!);

const render = (part: Part): string =>
  part instanceof Html ? part.source : typeof part === "object" ? part.map(render).join("") : escapeText(String(part));

/** A template whose parts are escaped, also within quoted attributes. */
export function html(strings: TemplateStringsArray, ...parts: Part[]): Html {
  return new Html(strings.reduce((source, text, i) => source + render(parts[i - 1]!) + text));
}

/** JSON for a page's script, which shows its texts as they are: they are made printable here. */
export const pageJson = (value: unknown): string =>
  JSON.stringify(value, (_key, entry: unknown) => (typeof entry === "string" ? printable(entry) : entry));

/** The same within a page: no HTML parser takes anything in it for the end of its script. */
export const inlineJson = (value: unknown): Html => new Html(pageJson(value).replace(/</g, "\\u003c"));

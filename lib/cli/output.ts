/** Plain text for people: lines, tables, bytes, durations. All that commands write goes through here, the progress of training aside. */
import { printable, printableJson } from "../text.js";

export { bytes, duration, percent, throughput } from "../text.js";

/** A line, or several, within the terminal's width: a name from outside, whatever characters it has, makes no other lines of them. */
export function print(lines: string | readonly string[]): void {
  process.stdout.write(textOf(lines, process.stdout.columns));
}

/** The same on stderr: what went wrong, or what goes on. */
export function printError(lines: string | readonly string[]): void {
  process.stderr.write(textOf(lines, process.stderr.columns));
}

export function printJson(value: unknown): void {
  process.stdout.write(`${printableJson(value, 2)}\n`);
}

/** One value a line, as it comes. */
export function printJsonLine(value: unknown): void {
  process.stdout.write(`${printableJson(value)}\n`);
}

const textOf = (lines: string | readonly string[], columns?: number) =>
  [lines]
    .flat()
    .flatMap((line) => wrap(printable(line), columns))
    .map((line) => `${line}\n`)
    .join("");

/**
 * Whether a line of `stream` may be drawn again: on a terminal that knows control sequences, where nobody asked to be spared them. What a
 * CI keeps is no terminal to look at either.
 */
export function canRedraw(stream: { readonly isTTY?: boolean }, env: NodeJS.ProcessEnv = process.env): boolean {
  const set = (value: string | undefined) => value !== undefined && !/^(0|false|no|off)?$/i.test(value);
  return stream.isTTY === true && env.TERM !== "dumb" && !set(env.NO_COLOR) && !set(env.CI);
}

/** "1 step", "2 steps" */
export const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? "" : "s"}`;

/** `text` in lines of at most `columns`, which break between words; as it is where the columns are unknown or too few. */
export function wrap(text: string, columns: number | undefined): string[] {
  if (!columns || columns < FEWEST_COLUMNS) return [text];
  const indent = /^ */.exec(text)![0];
  const lines = [indent];
  for (const word of text.slice(indent.length).split(" ")) {
    const line = lines.at(-1)!;
    if (line === indent) lines[lines.length - 1] = indent + word;
    else if (line.length + 1 + word.length <= columns) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(indent + word);
  }
  return lines;
}

/** The largest measure of any row, however many there are; 0 of none. */
function longest<Row>(rows: readonly Row[], measure: (row: Row) => number): number {
  return rows.reduce((largest, row) => Math.max(largest, measure(row)), 0);
}

/** Lines with a name to the left and what it means to the right; below it where the right would be too narrow. */
export function definitions(rows: readonly (readonly [name: string, meaning: string])[], columns: number | undefined): string[] {
  const width = longest(rows, ([name]) => name.length);
  const beside = !columns || columns - width - 4 >= 2 * FEWEST_COLUMNS;
  const indent = beside ? width + 4 : 6;
  return rows.flatMap(([name, meaning]) => {
    const lines = wrap(meaning, columns && columns - indent).map((line) => " ".repeat(indent) + line);
    return beside ? [`  ${name}`.padEnd(indent) + lines[0]!.trimStart(), ...lines.slice(1)] : [`  ${name}`, ...lines];
  });
}

/** Lines with columns side by side; numbers (cells that begin with a digit) to the right. The first row is the heading. */
export function table(texts: readonly (readonly string[])[]): string[] {
  const rows = texts.map((row) => row.map(printable));
  const columns = rows[0]?.length ?? 0;
  const widths = Array.from({ length: columns }, (_, i) => longest(rows, (row) => row[i]!.length));
  const isNumeric = Array.from({ length: columns }, (_, i) => i > 0 && rows.slice(1).every((row) => /^[\d-]/.test(row[i]!)));
  return rows.map((row) =>
    row
      .map((cell, i) => (isNumeric[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join("  ")
      .trimEnd(),
  );
}

/** Lines that are narrower than this are left to the terminal. */
const FEWEST_COLUMNS = 20;
const FILLINGS = "#=+.";
const LEGEND_GAP = "   ";

/** Lines with a bar for each row, its parts of the lengths of their values and each with a filling of its own, which the last line explains. */
export function stackedBars(
  rows: readonly { readonly name: string; readonly parts: readonly number[]; readonly after: string }[],
  legend: readonly string[],
  columns = 80,
): string[] {
  const names = longest(rows, ({ name }) => name.length);
  const after = longest(rows, (row) => row.after.length);
  const width = Math.max(10, Math.min(columns || 80, 100) - names - after - 5);
  const most = Math.max(
    1,
    longest(rows, ({ parts }) => parts.reduce((sum, part) => sum + part)),
  );
  const bars = rows.map((row) => {
    let [sum, bar] = [0, ""];
    // Ends are rounded, not lengths, so that a bar is as long as its sum says.
    for (const [i, part] of row.parts.entries()) {
      sum += part;
      bar = bar.padEnd(Math.round((width * sum) / most), FILLINGS[i]);
    }
    return `${row.name.padEnd(names)}  ${bar.padEnd(width)}  ${row.after.padStart(after)}`;
  });
  return [...bars, "", legend.map((name, i) => `${FILLINGS[i]} ${name}`).join(LEGEND_GAP)];
}

/** Plain text for people: tables, bytes, durations. */

export { bytes, duration, percent, throughput } from "../text.js";

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

/** "1 step", "2 steps" */
export const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? "" : "s"}`;

/** `text` in lines of at most `columns`, all but the first indented by `indent`; as it is where the columns are unknown or too few. */
export function wrap(text: string, columns: number | undefined, indent: number): string {
  const room = (columns || 0) - indent;
  if (room < 20) return text;
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line === "") lines[lines.length - 1] = word;
    else if (line.length + 1 + word.length <= room) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines.join(`\n${" ".repeat(indent)}`);
}

/** Columns side by side; numbers (cells that begin with a digit) to the right. The first row is the heading. */
export function table(rows: readonly (readonly string[])[]): string {
  const columns = rows[0]?.length ?? 0;
  const widths = Array.from({ length: columns }, (_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const isNumeric = Array.from({ length: columns }, (_, i) => i > 0 && rows.slice(1).every((row) => /^[\d-]/.test(row[i]!)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => (isNumeric[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const FILLINGS = "#=+.";
const LEGEND_GAP = "   ";

/** A bar for each row, its parts of the lengths of their values and each with a filling of its own, which the last line explains. */
export function stackedBars(
  rows: readonly { readonly name: string; readonly parts: readonly number[]; readonly after: string }[],
  legend: readonly string[],
  columns = 80,
): string {
  const names = Math.max(...rows.map(({ name }) => name.length));
  const after = Math.max(...rows.map((row) => row.after.length));
  const width = Math.max(10, Math.min(columns || 80, 100) - names - after - 5);
  const longest = Math.max(...rows.map(({ parts }) => parts.reduce((sum, part) => sum + part)), 1);
  const bars = rows.map((row) => {
    let [sum, bar] = [0, ""];
    // Ends are rounded, not lengths, so that a bar is as long as its sum says.
    for (const [i, part] of row.parts.entries()) {
      sum += part;
      bar = bar.padEnd(Math.round((width * sum) / longest), FILLINGS[i]);
    }
    return `${row.name.padEnd(names)}  ${bar.padEnd(width)}  ${row.after.padStart(after)}`;
  });
  return [...bars, "", legend.map((name, i) => `${FILLINGS[i]} ${name}`).join(LEGEND_GAP)].join("\n");
}

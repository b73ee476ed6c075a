/** Plain text for people: tables, bytes, durations. */

export { bytes, duration, percent } from "../text.js";

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
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

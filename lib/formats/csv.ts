/** Comma-separated values, as RFC 4180 and spreadsheets have them. */

/** Lines of fields, of which those with a comma, a quotation mark or a line break are quoted. */
export const csv = (rows: readonly (readonly (string | number)[])[]): string =>
  rows.map((fields) => `${fields.map(field).join(",")}\r\n`).join("");

function field(value: string | number): string {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

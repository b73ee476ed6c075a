/** What gpu-check picks out of the output of other programs. */

/** The last line that the pattern is found in; empty where there is none. */
const lastLine = (text, pattern = /./) =>
  text
    .trimEnd()
    .split("\n")
    .findLast((line) => pattern.test(line)) ?? "";

module.exports = { lastLine };

/** revnet report */
import path from "node:path";
import { writeReport } from "../report/index.js";
import { defineCommand, JSON_FLAG } from "./command.js";
import { print, printJson } from "./output.js";

export const report = defineCommand({
  name: "report",
  summary: "Makes report.html of a run again from the files in its folder, or one page that compares several runs.",
  positionals: "DIR [DIR...]",
  arity: [1, Number.POSITIVE_INFINITY],
  flags: {
    out: { type: "string", value: "FILE", help: "where to write the page (default: DIR/report.html; of several, comparison.html)" },
    ...JSON_FLAG,
  },
  async run({ out, json }, folders) {
    const file = out ?? (folders.length === 1 ? path.join(folders[0]!, "report.html") : "comparison.html");
    await writeReport(folders, file);
    if (json) printJson({ file, runs: folders });
    else print(file);
    return 0;
  },
});

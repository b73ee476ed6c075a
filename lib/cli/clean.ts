/** revnet clean */
import { cleanRun } from "../training/clean.js";
import { defineCommand, JSON_FLAG } from "./command.js";
import { bytes, count, print, printJson } from "./output.js";

export const clean = defineCommand({
  name: "clean",
  summary:
    "Removes the checkpoints of a run that it does not need to go on: all but the last one and the best one. The model, metrics and report stay.",
  positionals: "DIR",
  arity: [1, 1],
  flags: { ...JSON_FLAG },
  async run({ json }, [folder]) {
    const { removed, kept } = await cleanRun(folder!);
    if (json) printJson({ removed, kept });
    else {
      const sum = removed.reduce((total, file) => total + file.bytes, 0);
      print([
        ...removed.map((file) => `removed ${file.file}, ${bytes(file.bytes)}`),
        ...kept.map((file) => `kept ${file.file}, ${bytes(file.bytes)}`),
        `${count(removed.length, "file")} removed, ${bytes(sum)}`,
      ]);
    }
    return 0;
  },
});

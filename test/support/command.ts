/** Runs a command of the command line in this process: what it prints, and its exit status. */
import { type Command, readArguments } from "../../lib/cli/command.js";

export interface Printed {
  status: number;
  stdout: string;
  stderr: string;
}

/** What is written to stdout and stderr while `body` runs. */
async function captured<T>(body: () => Promise<T>): Promise<{ value: T; stdout: string; stderr: string }> {
  const text = { stdout: "", stderr: "" };
  const streams = ["stdout", "stderr"] as const;
  const originals = streams.map((name) => process[name].write);
  for (const name of streams)
    process[name].write = ((chunk: string | Uint8Array) => {
      text[name] += typeof chunk === "string" ? chunk : Buffer.from(chunk).toString();
      return true;
    }) as typeof process.stdout.write;
  try {
    const value = await body();
    return { value, ...text };
  } finally {
    for (const [i, name] of streams.entries()) process[name].write = originals[i]!;
  }
}

/** Rejects with what the command throws, which the command line turns into an exit status. */
export async function runCommand(command: Command, ...args: string[]): Promise<Printed> {
  const { values, positionals } = readArguments(command, args);
  const { value, ...text } = await captured(async () => command.run(values, positionals, { signal: new AbortController().signal }));
  return { status: value ?? 0, ...text };
}

/** The cells of the lines that `table` makes of rows without empty cells. */
export const cells = (text: string): string[][] =>
  text
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => line.trim().split(/\s{2,}/));

#!/usr/bin/env node
/** The command line: finds the command, reads its arguments, and turns errors into exit statuses. */
import { RevNetError } from "../errors.js";
import { packageVersion } from "../package.js";
import { unknownMessage } from "../validation.js";
import { bench } from "./bench.js";
import { build } from "./build.js";
import { clean } from "./clean.js";
import { type Command, helpText, readArguments, UsageError, withFlags } from "./command.js";
import { data } from "./data.js";
import { doctor } from "./doctor.js";
import { evaluate } from "./evaluate.js";
import { exportModel } from "./export.js";
import { gradcheck } from "./gradcheck.js";
import { inspect } from "./inspect.js";
import { memory } from "./memory.js";
import { definitions, print, printError } from "./output.js";
import { predict } from "./predict.js";
import { report } from "./report.js";
import { train } from "./train.js";

const COMMANDS: readonly Command[] = [
  train,
  evaluate,
  predict,
  exportModel,
  inspect,
  memory,
  report,
  clean,
  gradcheck,
  bench,
  data,
  build,
  doctor,
];
/** Errors that an option's value causes. */
const USAGE_CODES = ["ERR_INVALID_ARGUMENT", "ERR_UNKNOWN_MODEL"];
const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;

function overview(columns: number | undefined): string[] {
  // A command's help has all its sentences.
  const first = (summary: string) => /^.*?(?=\.( |$))/.exec(summary)![0];
  return [
    "Usage: revnet COMMAND [options]",
    "",
    "Commands:",
    ...definitions(
      COMMANDS.map(({ name, summary }) => [name, first(summary)] as const),
      columns,
    ),
    "",
    "revnet COMMAND --help shows a command's options; revnet --version, this version.",
  ];
}

async function main([name, ...args]: string[]): Promise<number> {
  if (name !== undefined && ["--version", "-V", "-v", "version"].includes(name)) {
    print(packageVersion());
    return 0;
  }
  if (name === "help" && args.length > 0) return main([args[0]!, "--help"]);
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    if (name !== undefined) print(overview(process.stdout.columns));
    else printError(overview(process.stderr.columns));
    return name === undefined ? EXIT_USAGE : 0;
  }
  const command = COMMANDS.find((candidate) => candidate.name === name);
  if (!command)
    throw new UsageError(
      unknownMessage(
        "command",
        name,
        COMMANDS.map((candidate) => candidate.name),
      ),
    );
  running = command;
  const { help, values, positionals } = readArguments(command, args);
  if (help) {
    print(helpText(command));
    return 0;
  }
  keepsFiles = "out" in values && values.out !== undefined;
  return (await command.run(values, positionals, { signal: interruption(command) })) ?? 0;
}

/** Aborted by signals, and where nobody reads the output any more. */
const interrupted = new AbortController();
/** The command that runs: errors are told in the names of its flags. */
let running: Command | undefined;

/** Whether what the command does is of use where nobody reads its output. */
let keepsFiles = false;

/** Exit statuses by the signal that ended the process, as shells have them: 128 and the signal's number. */
const SIGNALS = { SIGINT: EXIT_INTERRUPTED, SIGTERM: 143, SIGHUP: 129 } as const;
/** A signal within so many milliseconds of the first is the same one: npx and some shells deliver a Ctrl-C twice. */
const SAME_SIGNAL = 1000;
/** Of the signal that came, if one did. */
let interruptedStatus: number = EXIT_INTERRUPTED;

/**
 * The first signal asks an interruptible command to finish; the second, and the first for the others, ends the process. With handlers of
 * its own, the process heeds them as a container's first process too.
 */
function interruption(command: Command): AbortSignal {
  let first = 0;
  for (const [signal, status] of Object.entries(SIGNALS))
    process.on(signal, () => {
      if (command.interruptible && interrupted.signal.aborted && performance.now() - first < SAME_SIGNAL) return;
      if (!command.interruptible || interrupted.signal.aborted) process.exit(status);
      first = performance.now();
      interruptedStatus = status;
      printError(["", signal === "SIGINT" ? "stopping; Ctrl-C again to quit at once" : `stopping: ${signal}`]);
      interrupted.abort();
    });
  return interrupted.signal;
}

function explain(thrown: unknown): number {
  const error = thrown instanceof RevNetError && running ? withFlags(thrown, running) : thrown;
  if (error instanceof RevNetError && error.code === "ERR_ABORTED") {
    printError(`revnet: ${error.message}`);
    return interruptedStatus;
  }
  if (error instanceof UsageError || (error instanceof RevNetError && USAGE_CODES.includes(error.code))) {
    printError(`revnet: ${error.message}`);
    return EXIT_USAGE;
  }
  if (error instanceof RevNetError && error.code === "ERR_DEVICE_UNAVAILABLE") {
    printError(`revnet: --device: ${error.message}`);
    return EXIT_FAILURE;
  }
  // An error without a code is a defect of this package; its stack says where.
  const stack = () => ((error as Error).stack ?? String(error)).split("\n");
  printError(error instanceof RevNetError ? `revnet: ${error.message}` : [`revnet: ${stack()[0]}`, ...stack().slice(1)]);
  return EXIT_FAILURE;
}

// Output that cannot be written (the reader left, the disk is full, the terminal is gone) costs the output, not the command. Where a
// reader left, as in `revnet bench | head`, what would go on for long and keeps no files ends as after Ctrl-C.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE" && !keepsFiles) interrupted.abort();
  });

main(process.argv.slice(2))
  .catch(explain)
  .then((status) => {
    process.exitCode = status;
  });

/** How a command describes itself, and how its arguments are read: flags are the API's options in kebab-case. */
import { parseArgs } from "node:util";
import { RevNetError } from "../errors.js";
import type { Flag } from "../kinds.js";
import { unknownMessage } from "../validation.js";
import { definitions, wrap } from "./output.js";

/** Bad usage: exit status 2. */
export class UsageError extends Error {}

export type Flags = Readonly<Record<string, Flag>>;

type ValueOf<F extends Flag> = F["type"] extends "string" ? string : F["type"] extends "boolean" ? boolean : number;
/** Values of the flags that were given, under the API's names: `--batch-size` is `batchSize`. */
export type FlagValues<F extends Flags> = { [K in keyof F & string as Camel<K>]?: ValueOf<F[K]> };
type Camel<K extends string> = K extends `${infer Head}-${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : K;

export interface Context {
  /** Aborted by the first Ctrl-C, where the command is interruptible. */
  readonly signal: AbortSignal;
}

/** `run` returns the exit status, 0 if undefined. */
export interface Command<F extends Flags = Flags> {
  readonly name: string;
  readonly summary: string;
  /** Positional arguments, as the usage line shows them. */
  readonly positionals: string;
  /** How many there may be. */
  readonly arity: readonly [number, number];
  readonly flags: F;
  /** Whether it ends by itself soon after `signal`; the others are ended by Ctrl-C at once. */
  readonly interruptible?: boolean;
  run(values: FlagValues<F>, positionals: string[], context: Context): Promise<number | undefined>;
}

/** Keeps the flags' literal types for `run`. */
export function defineCommand<const F extends Flags>(command: Command<F>): Command {
  return command as unknown as Command;
}

export const JSON_FLAG = { json: { type: "boolean", help: "print the result as JSON" } } as const satisfies Flags;
const HELP_FLAG: Flag = { type: "boolean", help: "show this" };

const camel = (name: string) => name.replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

export interface Arguments {
  help: boolean;
  values: FlagValues<Flags>;
  positionals: string[];
}

/** @throws UsageError naming the flag, what it was and what was expected */
export function readArguments(command: Command, args: string[]): Arguments {
  const flags: Flags = { ...command.flags, help: HELP_FLAG };
  const options = Object.fromEntries(
    Object.entries(flags).map(([name, { type }]) => [
      name,
      { type: type === "boolean" ? ("boolean" as const) : ("string" as const) },
    ]),
  );
  const { tokens, positionals } = parseArgs({
    args,
    options: { ...options, help: { type: "boolean", short: "h" } },
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const values: Record<string, unknown> = {};
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const flag = Object.hasOwn(flags, token.name) ? flags[token.name] : undefined;
    if (!flag) throw new UsageError(unknownFlag(token.rawName, flags));
    if (camel(token.name) in values) throw new UsageError(`--${token.name} is given twice`);
    values[camel(token.name)] = readValue(token.name, flag, token.value, token.inlineValue === true);
  }
  const { help: asked, ...given } = values;
  const help = asked === true;
  const [fewest, most] = command.arity;
  if (!help && (positionals.length < fewest || positionals.length > most)) {
    const problem = positionals.length < fewest ? "an argument is missing" : `unexpected argument '${positionals[most]}'`;
    throw new UsageError(`${problem}; usage: ${usage(command)}`);
  }
  return { help, values: given as FlagValues<Flags>, positionals };
}

/** What other programs of the field call these flags. */
const WELL_KNOWN: Readonly<Record<string, string>> = {
  lr: "learning-rate",
  "base-lr": "learning-rate",
  rate: "learning-rate",
  wd: "weight-decay",
  decay: "weight-decay",
  b: "batch-size",
  bs: "batch-size",
  batch: "batch-size",
  "train-batch-size": "batch-size",
  e: "epochs",
  "max-epochs": "epochs",
  "num-epochs": "epochs",
  "max-steps": "steps",
  iterations: "steps",
  opt: "optimizer",
  optim: "optimizer",
  eps: "epsilon",
  "max-grad-norm": "max-gradient-norm",
  "clip-grad-norm": "max-gradient-norm",
  "grad-clip": "max-gradient-norm",
  "warmup-ratio": "warmup",
  scheduler: "schedule",
  "lr-schedule": "schedule",
  "lr-scheduler": "schedule",
  arch: "model",
  architecture: "model",
  net: "model",
  network: "model",
  m: "model",
  dataset: "data",
  d: "data",
  root: "data-dir",
  "data-path": "data-dir",
  "data-root": "data-dir",
  "dataset-dir": "data-dir",
  o: "out",
  output: "out",
  "output-dir": "out",
  "out-dir": "out",
  outdir: "out",
  "save-dir": "out",
  save: "out",
  logdir: "out",
  gpu: "device",
  cuda: "device",
  workers: "threads",
  "num-workers": "threads",
  "num-threads": "threads",
  j: "threads",
  "eval-every": "validate-every",
  "val-every": "validate-every",
  "val-interval": "validate-every",
  "save-every": "checkpoint-every",
  "save-interval": "checkpoint-every",
  "early-stopping": "patience",
  "random-seed": "seed",
  "manual-seed": "seed",
  dtype: "precision",
  amp: "precision",
  continue: "resume",
  restart: "resume",
  "no-augmentation": "no-augment",
  port: "ui-port",
  n: "count",
  "num-classes": "classes",
};

function unknownFlag(given: string, flags: Flags): string {
  const plain = given.replace(/^-+/, "").replaceAll("_", "-").toLowerCase();
  const known = Object.hasOwn(WELL_KNOWN, plain) ? WELL_KNOWN[plain] : undefined;
  if (known !== undefined && Object.hasOwn(flags, known)) return `unknown option '${given}'; here it is called '--${known}'`;
  return unknownMessage(
    "option",
    given,
    Object.keys(flags).map((name) => `--${name}`),
  );
}

/** `inline`: given as --name=value, so that it is no other option, whatever it begins with; nor is what has spaces in it. */
function readValue(name: string, { type }: Flag, text: string | undefined, inline: boolean): string | number | boolean {
  if (type === "boolean") {
    if (text !== undefined) throw new UsageError(`--${name} takes no value, got '${text}'`);
    return true;
  }
  if (text === undefined || text === "" || (!inline && /^--\S*$/.test(text))) throw new UsageError(`--${name} expects a value`);
  if (type === "string") return text;
  const number = Number(text);
  if (text.trim() === "" || !Number.isFinite(number) || (type === "integer" && !Number.isSafeInteger(number)))
    throw new UsageError(`--${name} expects ${type === "integer" ? "an integer" : "a number"}, got '${text}'`);
  return number;
}

const usage = ({ name, positionals }: Command) => `revnet ${[name, positionals, "[options]"].filter(Boolean).join(" ")}`;

/** In lines. */
export function helpText(command: Command, columns = process.stdout.columns): string[] {
  const rows = Object.entries({ ...command.flags, help: HELP_FLAG }).map(([name, flag]) => {
    const placeholder = { string: flag.value ?? "TEXT", integer: flag.value ?? "N", number: flag.value ?? "X", boolean: "" }[
      flag.type
    ];
    return [`--${name} ${placeholder}`.trim(), flag.help] as const;
  });
  return [
    ...wrap(`Usage: ${usage(command)}`, columns),
    "",
    ...wrap(command.summary, columns),
    "",
    "Options:",
    ...definitions(rows, columns),
  ];
}

/** Options whose flags have other names. */
const RENAMED: Readonly<Record<string, string>> = {
  outDir: "out",
  "optimizer.type": "optimizer",
  "schedule.type": "schedule",
  "ui.port": "ui-port",
};

/**
 * The same error in the names of the command's flags: `batchSize: expected ...` becomes `--batch-size: expected ...`. An option is
 * recognised at the beginning of the message, as `resume: true` or `seed: was` anywhere, and elsewhere where no English word could
 * be meant; what stands in quotes is left alone.
 */
export function withFlags(error: RevNetError, { flags }: Command): RevNetError {
  const flagOf = new Map(Object.keys(flags).map((flag) => [camel(flag), `--${flag}`]));
  for (const [option, flag] of Object.entries(RENAMED)) if (Object.hasOwn(flags, flag)) flagOf.set(option, `--${flag}`);
  const rename = (option: string) => flagOf.get(option) ?? flagOf.get(option.replace(/^(optimizer|schedule)\./, "")) ?? option;
  const unquoted = (text: string) =>
    text
      .replace(/(?<![-\w./])([a-z][A-Za-z]*): (true|was)\b/g, (setting, option: string, word: string) =>
        flagOf.has(option) ? `${rename(option)}${word === "was" ? ": was" : ""}` : setting,
      )
      .replace(/(?<![-\w./])(?:optimizer\.)?([a-z]+[A-Z][A-Za-z]*)(?![\w/])/g, (word, option: string) =>
        flagOf.has(option) ? rename(option) : word,
      );
  const message = error.message
    .replace(/^[a-z][A-Za-z.]*(, [a-z][A-Za-z.]*)*(?=:)/, (options) => options.split(", ").map(rename).join(", "))
    .split(/('[^']*')/)
    .map((part, i) => (i % 2 === 0 ? unquoted(part) : part))
    .join("");
  if (message === error.message) return error;
  return new RevNetError(error.code, message, { cause: error });
}

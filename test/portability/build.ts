/** Other builds of the addon, by scripts/build.js, and processes that run with them. */
import { spawn, spawnSync } from "node:child_process";
import path from "node:path";

export const ROOT = path.join(__dirname, "..", "..", "..");
export const MAIN = path.join(__dirname, "..", "..", "lib", "cli", "main.js");
const MOCHA = path.join(path.dirname(require.resolve("mocha/package.json")), "bin", "mocha.js");

/** What this machine lacks of `programs`; undefined where all of them are there. */
export function lacking(...programs: string[]): string | undefined {
  return programs.find((program) => spawnSync(program, ["--version"]).error);
}

/** Builds a target of scripts/build.js; what went wrong, "" where nothing did. */
export function build(target: string, environment: NodeJS.ProcessEnv = {}): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(ROOT, "scripts", "build.js"), target], {
    encoding: "utf8",
    env: { ...process.env, ...environment },
  });
  return status === 0 ? "" : `${stdout}\n${stderr}`;
}

export interface Finished {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Node.js, with or without an emulator in front of it, and an addon. */
export interface Platform {
  /** The program and its first arguments. */
  readonly node: readonly string[];
  /** Its path; undefined: the one that was built for this machine. */
  readonly addon?: string;
}

export function run({ node, addon }: Platform, args: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Finished> {
  const [program, ...first] = node;
  const child = spawn(program!, [...first, ...args], {
    cwd: ROOT,
    env: { ...process.env, ...(addon && { REVNET_ADDON: addon }), ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (output.stderr += text));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, ...output }));
  });
}

/** Suites of this repository, by their path below test/, and the tests in them whose titles match. */
export function mocha(platform: Platform, suites: readonly string[], grep: string): Promise<Finished> {
  const files = suites.map((suite) => path.join(__dirname, "..", `${suite}.test.js`));
  return run(platform, [MOCHA, "--no-config", "--timeout", "300000", "--grep", grep, ...files]);
}

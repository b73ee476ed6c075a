/** Where this package lies and what package.json says of it, wherever the compiler put this file. */
import * as fs from "node:fs";
import * as path from "node:path";
import { RevNetError } from "./errors.js";

/** The folder of the package's package.json: the nearest one upwards. @throws RevNetError ERR_FILE */
export function packageRoot(): string {
  for (let folder = __dirname; ; folder = path.dirname(folder)) {
    if (fs.existsSync(path.join(folder, "package.json"))) return folder;
    if (folder === path.dirname(folder))
      throw new RevNetError(
        "ERR_FILE",
        `the package.json of revnet is missing (looked upwards from ${__dirname}); reinstall the package`,
      );
  }
}

/** @throws RevNetError ERR_FILE */
export function packageVersion(): string {
  const file = path.join(packageRoot(), "package.json");
  try {
    return String((JSON.parse(fs.readFileSync(file, "utf8")) as { version: unknown }).version);
  } catch (error) {
    throw new RevNetError("ERR_FILE", `'${file}' cannot be read: ${(error as Error).message}; reinstall the package`, {
      cause: error,
    });
  }
}

/** Whether this is an installed package, not a clone of the repository: what is advised differs. */
export function isInstalled(): boolean {
  return packageRoot().split(path.sep).includes("node_modules");
}

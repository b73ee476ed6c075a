/** Where this package lies and what package.json says of it, wherever the compiler put this file. */
import * as path from "node:path";
import { RevNetError } from "./errors.js";
import { parseJson } from "./files/json.js";
import { decodeText, readFileSync } from "./files/open.js";

/**
 * The folder of the package's package.json, which the addon, the models and the pages' assets lie beside.
 * @throws RevNetError ERR_ADDON_MISSING where this file is not in the package, as in a bundle
 */
export function packageRoot(): string {
  for (let folder = __dirname; folder !== path.dirname(folder); folder = path.dirname(folder))
    if (nameIn(path.join(folder, "package.json")) === "revnet") return folder;
  throw new RevNetError(
    "ERR_ADDON_MISSING",
    `the files of the package revnet are not where its code is (${__dirname}): a bundler, such as esbuild or webpack, has put the code ` +
      "into another file. Leave revnet out of the bundle (esbuild: --external:revnet; webpack: externals) and install it where the bundle runs",
  );
}

function nameIn(file: string): unknown {
  try {
    return (parseJson(decodeText(readFileSync(file, { limit: MAX_BYTES })), file, "ERR_FILE") as { name?: unknown })?.name;
  } catch {
    return undefined;
  }
}

/** Of a package.json. */
const MAX_BYTES = 2 ** 20;

/** @throws RevNetError ERR_FILE */
export function packageVersion(): string {
  const file = path.join(packageRoot(), "package.json");
  try {
    const text = decodeText(readFileSync(file, { limit: MAX_BYTES }));
    return String((parseJson(text, file, "ERR_FILE") as { version?: unknown })?.version);
  } catch (error) {
    throw new RevNetError("ERR_FILE", `${(error as Error).message}; reinstall the package`, { cause: error });
  }
}

/** Whether this is an installed package, not a clone of the repository: what is advised differs. */
export function isInstalled(): boolean {
  return packageRoot().split(path.sep).includes("node_modules");
}

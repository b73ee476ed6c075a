/**
 * An npm registry on the loopback interface that has what lies in this repository's node_modules, so that a project elsewhere can
 * install the package as from the real one, without a network: `npm install --registry URL`.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import * as tar from "tar";

interface Manifest extends Record<string, unknown> {
  name: string;
  version: string;
}

export class Registry {
  readonly #folders = new Map<string, Map<string, string>>();
  readonly #archives = new Map<string, Buffer>();
  readonly #server = createServer((request, response) => {
    this.#answer(decodeURIComponent(request.url ?? "/"))
      .then((body) => {
        response.statusCode = body === undefined ? 404 : 200;
        response.end(body ?? "{}");
      })
      .catch((error: unknown) => {
        response.statusCode = 500;
        response.end(String(error));
      });
  });

  /** @param root the folder of a node_modules */
  constructor(root: string) {
    for (const folder of packageFolders(path.join(root, "node_modules"))) {
      const { name, version } = readManifest(folder);
      const versions = this.#folders.get(name) ?? new Map<string, string>();
      this.#folders.set(name, versions.set(version, folder));
    }
  }

  async listen(): Promise<void> {
    await new Promise<void>((ready) => this.#server.listen(0, "127.0.0.1", ready));
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  /** /NAME: what versions there are; /NAME/-/VERSION: one as an archive. */
  async #answer(url: string): Promise<string | Buffer | undefined> {
    const [name, wanted] = url.slice(1).split("/-/") as [string, string | undefined];
    const versions = this.#folders.get(name);
    if (!versions) return undefined;
    if (wanted !== undefined) return versions.has(wanted) ? this.#archive(versions.get(wanted)!) : undefined;
    const described = await Promise.all(
      [...versions].map(async ([version, folder]) => {
        const integrity = `sha512-${createHash("sha512")
          .update(await this.#archive(folder))
          .digest("base64")}`;
        return [version, { ...readManifest(folder), dist: { tarball: `${this.url}/${name}/-/${version}`, integrity } }];
      }),
    );
    const latest = [...versions.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true })).at(-1);
    return JSON.stringify({ name, "dist-tags": { latest }, versions: Object.fromEntries(described) });
  }

  async #archive(folder: string): Promise<Buffer> {
    const made = this.#archives.get(folder);
    if (made) return made;
    const entries = readdirSync(folder).filter((entry) => entry !== "node_modules");
    const options = { cwd: folder, prefix: "package", portable: true, gzip: { level: 1 } };
    const archive = Buffer.from(await tar.create(options, entries).concat());
    this.#archives.set(folder, archive);
    return archive;
  }
}

function readManifest(folder: string): Manifest {
  return JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8")) as Manifest;
}

/** All packages of a node_modules, also those that lie in others'. */
function packageFolders(modules: string): string[] {
  const entries = (folder: string) => {
    try {
      return readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory() && !entry.name.startsWith("."));
    } catch {
      return []; // no such folder
    }
  };
  return entries(modules).flatMap(({ name }) => {
    const folder = path.join(modules, name);
    const own = name.startsWith("@") ? entries(folder).map((entry) => path.join(folder, entry.name)) : [folder];
    return own.flatMap((one) => [one, ...packageFolders(path.join(one, "node_modules"))]);
  });
}

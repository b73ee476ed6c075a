/**
 * The native addon, loaded on first use. `native` is what binding.d.ts declares, with one difference: whatever goes wrong is a
 * RevNetError, with the stack of the caller in TypeScript.
 */
import { existsSync } from "node:fs";
import path from "node:path";
import bindings from "bindings";
import type * as Binding from "../../binding.js";
import { RevNetError } from "../errors.js";
import { isInstalled, packageRoot } from "../package.js";

export type * from "../../binding.js";

let loaded: typeof Binding | undefined;

/** The addon as it is. Throws a RevNetError ERR_ADDON_MISSING where it was not built, or was built for another machine. */
export function loadAddon(): typeof Binding {
  if (loaded) return loaded;
  try {
    // REVNET_ADDON names another build of the addon: the tests run on one that emulates CUDA.
    const other = process.env.REVNET_ADDON;
    loaded = (other ? require(path.resolve(other)) : bindings("revnet")) as typeof Binding;
    return loaded;
  } catch (error) {
    throw new RevNetError("ERR_ADDON_MISSING", missingMessage(error), { cause: error });
  }
}

/** Why the addon is not there, told apart by the error and by what is on the disk; and what to do. */
function missingMessage(error: unknown): string {
  const { code, message = String(error) } = error as { code?: string; message?: string };
  // `bindings` lists every place where it looked; only the first line of that helps.
  const reason = message.split("\n", 1)[0];
  const { permission } = process as { permission?: unknown };
  if (process.env.REVNET_ADDON) return `the addon that REVNET_ADDON names cannot be loaded: ${reason}`;
  if (code === "ERR_ACCESS_DENIED" || (code === "ERR_DLOPEN_DISABLED" && permission))
    return (
      `the native addon of revnet may not be loaded: Node.js runs with its permission model (${reason}). Start it with --allow-addons, with ` +
      "--allow-fs-read for the package's folder, and with --allow-worker for folders of images and reports"
    );
  if (code === "ERR_DLOPEN_DISABLED")
    return "the native addon of revnet may not be loaded: Node.js was started with --no-addons (on the command line or in NODE_OPTIONS)";
  const root = packageRoot();
  const addon = path.join(root, "build", "Release", "revnet.node");
  if (existsSync(addon))
    return (
      `the native addon of revnet cannot be loaded: ${reason}. Where node_modules comes from another machine, system or version of ` +
      `Node.js, build it anew: ${repair(root)}`
    );
  if (existsSync(path.join(root, "build")))
    return (
      `the native addon of revnet is missing (${addon}): its compilation did not come to its end. To build it, and to see what is ` +
      `wrong with CMake or the C++20 compiler should it fail, run: ${repair(root)}`
    );
  return (
    `the native addon of revnet is missing (${addon}): it was not compiled when the package was installed. ` +
    "Install scripts are blocked (npm 12 and later run only those that are allowed, as do pnpm and yarn; or ignore-scripts is set), " +
    `or CMake or a C++20 compiler was missing. To build it, run: ${repair(root)}`
  );
}

/** The command that builds the addon: it takes what is on the disk and asks no registry. */
function repair(root: string): string {
  if (!isInstalled()) return "npm run build:native";
  if (process.versions.pnp) return "yarn rebuild revnet";
  const script = path.relative("", path.join(root, "scripts", "build.js"));
  return `node ${/[^\w./\\:@+-]/.test(script) ? JSON.stringify(script) : script} native`;
}

/** The RevNetError for what a native call threw: its code, its message, the stack of the call in TypeScript. */
export function toRevNetError(error: unknown): RevNetError {
  if (error instanceof RevNetError) return error;
  const { code, message } = error as { code?: unknown; message?: unknown };
  const known = typeof code === "string" && code.startsWith("ERR_");
  const converted = new RevNetError(known ? code : "ERR_INTERNAL", typeof message === "string" ? message : String(error), {
    cause: error,
  });
  Error.captureStackTrace(converted, toRevNetError);
  return converted;
}

function call<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw toRevNetError(error);
  }
}

class Session implements Binding.Session {
  readonly #session: Binding.Session;

  constructor(options: Binding.DeviceOptions) {
    this.#session = call(() => new (loadAddon().Session)(options));
  }

  get description(): string {
    return this.#session.description;
  }
  elementBytes(type: Binding.ElementType): number {
    return call(() => this.#session.elementBytes(type));
  }
  addBuffer(buffer: Binding.BufferRecord): Binding.BufferId {
    return call(() => this.#session.addBuffer(buffer));
  }
  addProgram(program: { locals: Binding.BufferRecord[]; ops: Binding.Op[] }): number {
    return call(() => this.#session.addProgram(program));
  }
  // Awaiting here, not handing the promise on, gives the error a stack that goes through the callers that await.
  async run(program: number, inputs: [Binding.BufferId, Binding.Values][], outputs: Binding.BufferId[]): Promise<Binding.Values[]> {
    try {
      return await this.#session.run(program, inputs, outputs);
    } catch (error) {
      throw toRevNetError(error);
    }
  }
  async read(buffer: Binding.BufferId, first?: number, elements?: number): Promise<Binding.Values> {
    try {
      return await this.#session.read(buffer, first, elements);
    } catch (error) {
      throw toRevNetError(error);
    }
  }
  async write(buffer: Binding.BufferId, values: Binding.Values, first?: number): Promise<void> {
    try {
      await this.#session.write(buffer, values, first);
    } catch (error) {
      throw toRevNetError(error);
    }
  }
  async initialize(buffer: Binding.BufferId, seed: bigint, tensors: Binding.InitialTensor[]): Promise<void> {
    try {
      await this.#session.initialize(buffer, seed, tensors);
    } catch (error) {
      throw toRevNetError(error);
    }
  }
  allocated(): Binding.MemoryReport {
    return call(() => this.#session.allocated());
  }
  planned(program: number): Binding.MemoryReport {
    return call(() => this.#session.planned(program));
  }
  dispose(): void {
    this.#session.dispose();
  }
}

export const native: typeof Binding = {
  Session,
  plan: (options, buffers, program) => call(() => loadAddon().plan(options, buffers, program)),
  devices: () => call(() => loadAddon().devices()),
  availableMemory: (device) => call(() => loadAddon().availableMemory(device)),
  initialValues: (seed, tensors, values) => call(() => loadAddon().initialValues(seed, tensors, values)),
  tryLock: (descriptor) => call(() => loadAddon().tryLock(descriptor)),
  buildInfo: () => call(() => loadAddon().buildInfo()),
  philox: (seed, streamLow, streamHigh, purpose, words) =>
    call(() => loadAddon().philox(seed, streamLow, streamHigh, purpose, words)),
};

/** The devices of this machine, and of those that this build knows and the machine lacks, why. */
export function devices(): Binding.NativeDevice[] {
  return native.devices();
}

/** The published types compile in other people's projects: oldest and newest TypeScript, with and without @types/node, every library checked. */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { expect } from "chai";

const root = path.resolve(__dirname, "../../..");
const modules = path.join(root, "node_modules");

const SOURCE = `import { downloadDataset, loadNetwork, type NetworkSpec, openDataset, RevNetError, trainRevNet, type TrainOptions } from "revnet";
export async function main(options: TrainOptions, spec: NetworkSpec): Promise<string> {
  const run = trainRevNet({ ...options, model: spec });
  for await (const event of run) if (event.type === "step") event.loss.toFixed(3);
  (await run).network.dispose();
  // @ts-expect-error: the types are not all "any"
  await loadNetwork(1).catch(() => {});
  await openDataset("shapes");
  await downloadDataset("cifar-10", { dataDir: "data", onProgress: (received: number) => received });
  return new RevNetError("ERR_FILE", "message", { cause: 1 }).code;
}
`;

describe("published types", function () {
  this.timeout(120_000);
  let project: string;

  before(async () => {
    project = await mkdtemp(path.join(tmpdir(), "revnet-types-"));
    const installed = path.join(project, "node_modules", "revnet");
    await mkdir(installed, { recursive: true });
    const types = (file: string) => !path.extname(file) || /\.(d\.ts|d\.mts)$/.test(file);
    await cp(path.join(root, "dist"), path.join(installed, "dist"), { recursive: true, filter: types });
    for (const file of ["package.json", "binding.d.ts"]) await cp(path.join(root, file), path.join(installed, file));
    for (const file of ["use.mts", "use.cts"]) await writeFile(path.join(project, file), SOURCE);
  });
  after(() => rm(project, { recursive: true }));

  async function compile(compiler: string, compilerOptions: object): Promise<string> {
    const options = { strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false, module: "node16", noEmit: true };
    await writeFile(
      path.join(project, "tsconfig.json"),
      JSON.stringify({ compilerOptions: { ...options, ...compilerOptions }, files: ["use.mts", "use.cts"] }),
    );
    const { bin } = JSON.parse(await readFile(path.join(modules, compiler, "package.json"), "utf8")) as { bin: { tsc: string } };
    return promisify(execFile)(process.execPath, [path.join(modules, compiler, bin.tsc), "-p", project]).then(
      () => "",
      ({ stdout }: { stdout: string }) => stdout,
    );
  }

  for (const compiler of ["typescript-oldest", "typescript-newest"]) {
    it(`compile with ${compiler} for es2021, without @types/node`, async () => {
      expect(await compile(compiler, { target: "es2021", types: [] })).to.equal("");
    });
    it(`compile with ${compiler} for es2022, with @types/node`, async () => {
      for (const name of ["@types/node", "undici-types"])
        await cp(path.join(modules, name), path.join(project, "node_modules", name), { recursive: true });
      expect(await compile(compiler, { target: "es2022", types: ["node"] })).to.equal("");
      await rm(path.join(project, "node_modules", "@types"), { recursive: true });
    });
  }
});

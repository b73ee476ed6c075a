/** Every file in examples/ runs, on little data and for a few steps (STEPS). */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { loadSharp } from "../../lib/data/sharp.js";
import { createNetwork } from "../../lib/index.js";
import { TINY_REVNET } from "../support/tiny.js";

const EXAMPLES = path.resolve(__dirname, "../../../examples");
/** By their last lines; the others have tests of their own below, or elsewhere. */
const PRINTED: Readonly<Record<string, { steps: number; says: RegExp }>> = {
  "train-shapes.mjs": { steps: 4, says: /reconstructed exactly: true\n(a \w+ is taken for a \w+\n){5}$/ },
  "own-data.mjs": { steps: 4, says: /^test error [\d.]+ % after 4 steps\n$/ },
  "own-folder.mjs": { steps: 4, says: /^108 images .*disc, square\nstep 4: error [\d.]+ %\nreport: .*report\.html\ntry it: .*\n$/ },
  "resume.cjs": { steps: 6, says: /going on from step [1-6]\nresumed: {3}([0-9a-f]{64})\nin one go: \1\nthe same, to the bit/ },
  "custom-spec.mjs": {
    steps: 1,
    says: /revnet-146: activations.*\nlargest relative error of a gradient: \d\.\de-([7-9]|\d\d)\n\d+ parameters on /,
  },
  "compare-modes.mjs": { steps: 3, says: /^reversible .*\nstored .*\nthe weights are the same, to the bit\n$/ },
};
const OTHERS = ["README.md", "predict-server.mjs", "revnet-shapes.json", "pytorch_weights.py"];

describe("examples", function () {
  this.timeout(300_000);
  let folder: string;
  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-examples-"));
  });
  after(() => rm(folder, { recursive: true }));
  // TMPDIR, so that what they leave in the system's temporary folder goes too.
  const environment = (steps: number) => ({ ...process.env, STEPS: String(steps), TMPDIR: folder });

  it("are all in this test, and in their README", async () => {
    const files = await readdir(EXAMPLES);
    expect(files).to.have.members([...Object.keys(PRINTED), ...OTHERS]);
    const readme = await readFile(path.join(EXAMPLES, "README.md"), "utf8");
    for (const file of files) if (file !== "README.md") expect(readme).to.include(`| ${file} `);
  });

  for (const [file, { steps, says }] of Object.entries(PRINTED))
    it(`${file} runs`, async () => {
      const { status, stdout, stderr } = await new Promise<{ status: number; stdout: string; stderr: string }>((resolve) => {
        const options = { cwd: folder, env: environment(steps), encoding: "utf8" as const };
        execFile(process.execPath, [path.join(EXAMPLES, file)], options, (error, stdout, stderr) =>
          resolve({ status: error === null ? 0 : Number(error.code ?? 1), stdout, stderr }),
        );
      });
      expect(status, stderr).to.equal(0);
      expect(stdout).to.match(says);
    });

  describe("predict-server.mjs", () => {
    let server: ChildProcess;
    let url: string;
    before(async () => {
      const model = path.join(folder, "model.safetensors");
      const network = createNetwork({ ...TINY_REVNET, input: [32, 32, 3], classes: 3 });
      network.classNames = ["one", "two", "three"];
      await network.save(model);
      network.dispose();
      const args = [path.join(EXAMPLES, "predict-server.mjs"), model, "0"];
      server = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
      const [line] = (await once(server.stdout!, "data")) as [Buffer];
      url = line.toString().trim();
    });
    after(async () => {
      const ended = once(server, "exit");
      server.kill("SIGTERM");
      expect((await ended)[0]).to.equal(0);
    });

    it("classifies an image", async () => {
      const grey = { width: 50, height: 40, channels: 3 as const, background: { r: 90, g: 90, b: 90 } };
      const body = new Uint8Array(await loadSharp()({ create: grey }).png().toBuffer());
      const response = await fetch(url, { method: "POST", body });
      const answer = (await response.json()) as { class: string; probability: number };
      expect(response.status).to.equal(200);
      expect(answer.class).to.be.oneOf(["one", "two", "three"]);
      expect(answer.probability).to.be.within(1 / 3, 1);
    });

    it("goes on after what is no image", async () => {
      const response = await fetch(url, { method: "POST", body: "no image" });
      expect(response.status).to.equal(400);
      expect(await response.json()).to.have.property("error");
      expect((await fetch(url)).status).to.equal(405);
    });
  });
});

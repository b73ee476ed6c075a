/** Names that came from outside are shown, and do nothing: in what every command prints, in the files for people, and in pages. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { createNetwork, RevNetError, trainRevNet } from "../../lib/index.js";
import { html, inlineJson } from "../../lib/report/html.js";
import { printable, printableJson } from "../../lib/text.js";
import { acting, CONTROLS, forged, HOSTILE, HOSTILE_NAMES } from "../support/hostile.js";
import { COLOURS, picture } from "../support/pictures.js";
import { TINY_REVNET, tinyDataset, tinyOptions } from "../support/tiny.js";

const MAIN = path.join(__dirname, "../../lib/cli/main.js");

async function revnet(cwd: string, args: string[]): Promise<{ status: number; text: string }> {
  const child = spawn(process.execPath, [MAIN, ...args], { cwd, stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (part: string) => (text += part));
  const [status] = (await once(child, "close")) as [number];
  return { status, text };
}

function expectHarmless(text: string, what: string): void {
  expect(acting(text), what).to.deep.equal([]);
  expect(forged(text), `${what}: ${text}`).to.equal(false);
}

describe("names from outside", () => {
  it("are shown with escapes for what would act", () => {
    expect(printable("a\x1b[2J\u009b\u007f\u202eb\nc\td")).to.equal("a\\u001b[2J\\u009b\\u007f\\u202eb\\nc\\td");
    for (const name of HOSTILE_NAMES) expectHarmless(printable(name), "printable");
    // Letters of every script, emoji with joiners and a Windows path are none of these.
    for (const name of ["Käse 猫 كلب", "👩\u200d🔬", "C:\\\\run"]) expect(printable(name)).to.equal(name);
  });

  it("lose the passwords of URLs", () => {
    expect(printable("cannot reach https://me:secret@host:1/a?b, http://p@ss:w@rd@x/ nor ftp://u@h")).to.equal(
      "cannot reach https://***@host:1/a?b, http://***@x/ nor ftp://***@h",
    );
    for (const text of ["https://host/a@b", "mail a@b.c", "https://host?x=a@b"]) expect(printable(text)).to.equal(text);
  });

  it("are harmless in JSON, which still says the same", () => {
    for (const name of HOSTILE_NAMES) {
      const text = printableJson({ [name]: [name] }, 2);
      expectHarmless(text, "JSON");
      expect(JSON.parse(text)).to.deep.equal({ [name]: [name] });
    }
  });

  it("are harmless in errors and in HTML", () => {
    for (const name of HOSTILE_NAMES) {
      const error = new RevNetError("ERR_FILE", `'${name}' is missing`);
      expectHarmless(error.message + error.stack!.split("\n")[0], "error");
      expectHarmless(html`<b title="${name}">${name}</b>${inlineJson([name])}`.source, "HTML");
    }
  });

  describe("through each command", function () {
    this.timeout(120_000);
    let folder: string;
    const out = `out-${HOSTILE}`;
    const nul = `nul${HOSTILE_NAMES[0]}.safetensors`;

    before(async () => {
      folder = await mkdtemp(path.join(tmpdir(), "revnet-names-"));
      for (const [i, label] of HOSTILE_NAMES.entries())
        for (const split of ["train", "val"]) {
          await mkdir(path.join(folder, "photos", split, label), { recursive: true });
          const bytes = await picture(Object.values(COLOURS)[i]!, i, 8, 8);
          for (const name of HOSTILE_NAMES) await writeFile(path.join(folder, "photos", split, label, `${name}.png`), bytes);
          await writeFile(path.join(folder, "photos", split, label, `broken${HOSTILE}.png`), bytes.subarray(0, 60));
        }
      const spec = { ...TINY_REVNET, name: HOSTILE, classes: HOSTILE_NAMES.length };
      await writeFile(path.join(folder, `${HOSTILE}.json`), JSON.stringify(spec));
      // What no file's name can hold, and a file's metadata can.
      const network = createNetwork({ ...spec, name: `\0${CONTROLS}` }, { device: "cpu", threads: 1 });
      network.classNames = HOSTILE_NAMES.map((name) => `\0${name}`);
      await network.save(path.join(folder, nul));
      network.dispose();
    });
    after(() => rm(folder, { recursive: true }));

    const data = ["--data", "image-folder", "--data-dir", "photos"];
    const fast = ["--device", "cpu", "--threads", "1"];
    const model = path.join(out, "model.safetensors");
    const image = path.join("photos", "train", HOSTILE, `${HOSTILE}.png`);
    const spec = `./${HOSTILE}.json`;
    /** What is run, in this order, and how it ends. */
    const runs: [number, string[]][] = [
      [0, ["train", "--model", spec, ...data, ...fast, "--steps", "2", "--batch-size", "3", "--out", out]],
      [0, ["data", "inspect", "image-folder", "--data-dir", "photos", "--size", "8"]],
      [0, ["data", "inspect", "image-folder", "--data-dir", "photos", "--size", "8", "--json"]],
      [0, ["data", "pack", "image-folder", "--data-dir", "photos", "--size", "8"]],
      [0, ["evaluate", model, ...data, ...fast]],
      [0, ["evaluate", model, ...data, ...fast, "--json"]],
      [0, ["predict", model, image, ...fast]],
      [0, ["predict", model, image, ...fast, "--json"]],
      [1, ["predict", model, path.join("photos", "train", HOSTILE_NAMES[0]!), "photos/val", ...fast]],
      [1, ["predict", model, path.join("photos", "val", HOSTILE_NAMES[1]!, `broken${HOSTILE}.png`), image, ...fast]],
      [0, ["predict", nul, image, ...fast]],
      [0, ["predict", nul, image, ...fast, "--json"]],
      [0, ["inspect", nul]],
      [0, ["inspect", nul, "--json"]],
      [0, ["inspect", model]],
      [1, ["evaluate", nul, ...data, ...fast]],
      [0, ["export", nul, `nul${HOSTILE}.onnx`]],
      [0, ["clean", out]],
      [0, ["clean", out, "--json"]],
      [0, ["export", model, `${HOSTILE}.onnx`]],
      [0, ["report", out, out, "--out", `${HOSTILE}.html`]],
      [0, ["inspect", spec]],
      [0, ["memory", spec, "--batch-size", "2"]],
      [0, ["gradcheck", spec, "--samples", "1"]],
      [0, ["bench", spec, "--steps", "1", "--rounds", "1", "--batch-size", "2", ...fast]],
      [1, ["train", "--model", spec, ...data, ...fast, "--steps", "2", "--batch-size", "3", "--out", out]],
      [1, ["report", HOSTILE]],
      [1, ["predict", HOSTILE, image]],
      [2, ["inspect", HOSTILE.replaceAll("/", "")]],
      [2, [HOSTILE]],
      [2, ["train", `--${HOSTILE}`]],
      [2, ["doctor", HOSTILE]],
      [2, ["train", "--data", HOSTILE]],
      [2, ["data", "download", "cifar-10", "--data-dir", HOSTILE, "--url", `ftp://me:secret@${HOSTILE}`]],
    ];
    for (const [i, [status, args]] of runs.entries())
      it(`${i + 1}. ${printable(args.slice(0, 2).join(" ")).slice(0, 40)}`, async () => {
        const result = await revnet(folder, args);
        expectHarmless(result.text, args[0]!);
        expect(result.text).not.to.include("secret");
        expect(result.status, result.text).to.equal(status);
      });

    it("and in a working folder of such a name", async () => {
      for (const name of HOSTILE_NAMES) {
        const cwd = path.join(folder, "photos", "train", name);
        for (const args of [
          ["doctor"],
          ["doctor", "--json"],
          ["inspect", "."],
          ["clean", "."],
          ["report", "."],
          ["data", "inspect", "image-folder"],
        ])
          expectHarmless((await revnet(cwd, args)).text, args.join(" "));
      }
    });

    it("and in the files that it writes for people", async () => {
      const files = (await readdir(path.join(folder, out))).filter((name) => /\.(json|jsonl|html)$/.test(name));
      expect(files).to.include.members(["analysis.json", "config.json", "metrics.jsonl", "report.html", "summary.json"]);
      for (const name of files) expectHarmless(await readFile(path.join(folder, out, name), "utf8"), name);
      expectHarmless(await readFile(path.join(folder, `${HOSTILE}.html`), "utf8"), "comparison");
    });

    it("and in the live page and its updates", async () => {
      const dataset = { ...tinyDataset(), classes: [...HOSTILE_NAMES, "d"] };
      const outDir = path.join(folder, `live-${HOSTILE}`);
      const run = trainRevNet(
        tinyOptions({ model: { ...TINY_REVNET, name: HOSTILE }, data: dataset, steps: 2, ui: true, validateEvery: 1, outDir }),
      );
      for await (const event of run) {
        if (event.type !== "ui") continue;
        expectHarmless(await (await fetch(event.url)).text(), "page");
        const { body } = await fetch(event.url.replace("/?", "/events?"));
        const { value } = await body!.getReader().read();
        expectHarmless(new TextDecoder().decode(value), "update");
      }
      (await run).network.dispose();
    });
  });
});

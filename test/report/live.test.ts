/** The live page: who gets it, and what a browser shows while a run trains, is resumed and ends. */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { type OutgoingHttpHeaders, request } from "node:http";
import { connect, type Socket } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { parse } from "node-html-parser";
import { type Browser, chromium, type Page } from "playwright-core";
import { type TrainingEvent, type TrainOptions, trainRevNet } from "../../lib/index.js";
import { contentOf } from "../../lib/report/content.js";
import { html } from "../../lib/report/html.js";
import { LiveRun } from "../../lib/report/live.js";
import { LiveServer } from "../../lib/report/live-server.js";
import { readRun } from "../../lib/report/run-files.js";
import { rejection } from "../support/errors.js";
import { DEVICES, TINY_REVNET, tinyDataset } from "../support/tiny.js";
import { ARGUMENTS, executablePath, WITHOUT } from "./chromium.js";
import { HOSTILE, writeRun } from "./fixtures.js";

const options = (overrides: Partial<TrainOptions> = {}): TrainOptions => ({
  model: TINY_REVNET,
  data: tinyDataset(),
  device: DEVICES.includes("cpu") ? "cpu" : "reference",
  threads: 1,
  batchSize: 16,
  // Many more events than a run is ahead of a loop over them: it waits there for what the page shows.
  steps: 300,
  validateEvery: 50,
  verifyEvery: 50,
  ui: true,
  ...overrides,
});

interface Answer {
  status: number;
  type: string | undefined;
  text: string;
}

/** With headers that `fetch` would not let through. `onText`: all that has come so far, whenever more does. The path of `url` is sent as it is. */
async function get(
  url: string,
  headers: OutgoingHttpHeaders = {},
  method = "GET",
  onText: (text: string) => void = () => {},
): Promise<Answer> {
  const { hostname, port, origin } = new URL(url);
  const asked = request({ hostname, port, path: url.slice(origin.length), headers, method, agent: false });
  asked.end();
  const [response] = await once(asked, "response");
  let text = "";
  for await (const piece of response.setEncoding("utf8")) {
    text += piece;
    onText(text);
  }
  return { status: response.statusCode, type: response.headers["content-type"], text };
}

describe("the live page's server", () => {
  let server: LiveServer;
  let content = { parts: [{ id: "state", html: html`<p>${HOSTILE}</p>` }], charts: [] };
  before(async () => {
    server = await LiveServer.open(0, HOSTILE, () => content);
  });
  after(() => server.close());

  const at = (change: (url: URL) => void) => {
    const url = new URL(server.url);
    change(url);
    return url.href;
  };

  it("gives the page to whoever has its address, and escapes what is in it", async () => {
    const { status, type, text } = await get(server.url);
    expect(status).to.equal(200);
    expect(type).to.equal("text/html; charset=utf-8");
    expect(text).to.include("connect-src &#39;self&#39;").and.include("default-src &#39;none&#39;");
    expect(text).to.not.include("<script>window.injected");
    expect(text).to.not.include(new URL(server.url).searchParams.get("token"));
    expect(
      (await get(server.url.replace("127.0.0.1", "localhost"), { Host: `localhost:${new URL(server.url).port}` })).status,
    ).to.equal(200);
  });

  it("forbids browsers to keep it, to frame it, to guess what it is, and to tell where they come from", async () => {
    const { headers, body } = await fetch(
      at((url) => {
        url.pathname = "/events";
      }),
    );
    await body!.cancel();
    const page = (await fetch(server.url)).headers;
    const refused = (await fetch(at((url) => url.searchParams.delete("token")))).headers;
    for (const each of [headers, page, refused])
      for (const [name, value] of [
        ["cache-control", "no-store"],
        ["content-security-policy", "frame-ancestors 'none'"],
        ["cross-origin-resource-policy", "same-origin"],
        ["referrer-policy", "no-referrer"],
        ["x-content-type-options", "nosniff"],
      ] as const)
        expect(each.get(name), name).to.equal(value);
    expect(headers.get("content-type")).to.equal("text/event-stream");
    expect(refused.get("content-type")).to.equal("text/plain; charset=utf-8");
  });

  it("has another token each time", async () => {
    const other = await LiveServer.open(0, "x", () => content);
    const token = (url: string) => new URL(url).searchParams.get("token");
    expect(token(other.url))
      .to.match(/^[0-9a-f]{32}$/)
      .and.not.equal(token(server.url));
    await other.close();
  });

  it("refuses requests without the token", async () => {
    for (const token of [undefined, "", "0".repeat(32), `${new URL(server.url).searchParams.get("token")}0`])
      for (const pathname of ["/", "/events"]) {
        const url = at((one) => {
          one.pathname = pathname;
          if (token === undefined) one.searchParams.delete("token");
          else one.searchParams.set("token", token);
        });
        const { status, text } = await get(url);
        expect(status, `${pathname} ${token}`).to.equal(403);
        expect(text).to.include("token");
      }
  });

  it("refuses foreign hosts and origins, also with the token", async () => {
    const { port } = new URL(server.url);
    for (const Host of ["example.org", `example.org:${port}`, "127.0.0.1", "127.0.0.1:1", `127.0.0.1.example.org:${port}`])
      expect((await get(server.url, { Host })).status, Host).to.equal(403);
    for (const Origin of ["http://example.org", "null", `https://127.0.0.1:${port}`, "http://127.0.0.1:1"])
      expect((await get(server.url, { Origin })).status, Origin).to.equal(403);
    expect((await get(server.url, { Origin: `http://127.0.0.1:${port}` })).status).to.equal(200);
  });

  it("has nothing else, takes nothing, and survives nonsense", async () => {
    const { search, origin } = new URL(server.url);
    expect((await get(at((url) => (url.pathname = "/etc/passwd")))).status).to.equal(404);
    expect((await get(server.url, {}, "POST")).status).to.equal(405);
    for (const target of [`//${search}`, `/%${search}`, `/../../etc/passwd${search}`])
      expect((await get(origin + target)).status, target).to.be.within(403, 404);
  });

  it("listens on the loopback interface alone", async function () {
    const outside = Object.values(networkInterfaces())
      .flat()
      .find((one) => one && !one.internal && one.family === "IPv4");
    if (!outside) return this.skip();
    const failed = await get(at((url) => (url.hostname = outside.address))).catch((error: NodeJS.ErrnoException) => error.code);
    expect(failed).to.equal("ECONNREFUSED");
  });

  it("sends what has changed, and ends", async () => {
    const own = await LiveServer.open(0, "x", () => content);
    let updates = 0;
    let closed: Promise<void> | undefined;
    const { type, text } = await get(own.url.replace("/?", "/events?"), {}, "GET", (text) => {
      const before = updates;
      updates = text.match(/^event: update\ndata: .*\n\n/gm)?.length ?? 0;
      if (before < 1 && updates === 1) {
        content = { parts: [{ id: "state", html: html`<p>other</p>` }], charts: [] };
        own.changed();
      }
      if (before < 2 && updates === 2) closed = own.close();
    });
    await closed;
    expect(type).to.equal("text/event-stream");
    expect(text.match(/^event: .*$/gm)).to.deep.equal(["event: update", "event: update", "event: end"]);
    const [first, second] = text.match(/^data: .*$/gm)!.map((line) => JSON.parse(line.slice(6)));
    expect(first.parts[0].html).to.include("&lt;/script&gt;");
    expect(second.parts).to.have.length(1);
    expect(second.parts[0]).to.include({ id: "state", html: "<p>other</p>" });
    expect(second.parts[0].version).to.not.equal(first.parts[0].version);
    await get(own.url).then(
      () => expect.fail("still there"),
      (error) => expect(error.code).to.equal("ECONNREFUSED"),
    );
  });

  it("keeps its page open to its owner, whoever else holds connections", async () => {
    const own = await LiveServer.open(0, "x", () => content);
    const { port, host, search } = new URL(own.url);
    const connections: Socket[] = [];
    const open = async (head: string) => {
      const socket = connect(Number(port), "127.0.0.1").on("error", () => {});
      connections.push(socket);
      await once(socket, "connect");
      socket.write(head);
      return socket;
    };
    try {
      // The owner's own: a stream of updates that is open already, and streams that nobody reads.
      const stream = await open(`GET /events${search} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
      await once(stream, "data");
      for (let i = 0; i < 50; i++) (await open(`GET /events${search} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).pause();
      for (let i = 0; i < 200; i++) await open(`GET / HTTP/1.1\r\nHost: ${host}\r\nX-Half: `);
      for (let i = 0; i < 3; i++) expect((await get(own.url)).status).to.equal(200);
      expect(stream.destroyed).to.equal(false);
      const update = once(stream, "data");
      own.changed();
      expect(String((await update)[0])).to.include("event: update");
      // Strangers make room for strangers: of 200, those that came last are left.
      expect(connections.slice(-20).some((socket) => socket.closed)).to.equal(false);
      expect(connections.slice(51, 200).every((socket) => socket.closed)).to.equal(true);
    } finally {
      for (const socket of connections) socket.destroy();
      await own.close();
    }
  });

  it("says so where the port is taken, before anything is trained", async () => {
    const port = Number(new URL(server.url).port);
    const events: TrainingEvent[] = [];
    const run = trainRevNet(options({ ui: { port } }));
    const loop = (async () => {
      for await (const event of run) events.push(event);
    })();
    expect(await rejection(loop, "ERR_UI")).to.include(String(port));
    expect(events).to.deep.equal([]);
    for (const ui of [{ port: -1 }, { port: 70_000 }, { prot: 1 }, 5])
      await rejection(trainRevNet(options({ ui } as object)), "ERR_INVALID_ARGUMENT");
  });
});

describe("the live page's content", () => {
  it("is the report's, with figures of the moment", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "revnet-live-"));
    await writeRun(folder);
    const files = await readRun(folder);
    await rm(folder, { recursive: true });
    const { memory } = files.summary!;
    const { config, settings } = files;
    const live = new LiveRun({ folder, config, settings, memory, resumedFrom: 0 });
    for (const row of files.steps) live.take({ type: "step", ...row });
    live.take({ type: "validation", step: 20, loss: Number.NaN, error: 0.25 });
    live.take({ type: "outOfRange", step: 20, count: 7 });
    live.take({ type: "brokenImage", file: "cat/1.jpg", reason: "the file is empty" });
    const { parts, charts } = live.content();
    const text = parts.map((part) => part.html.source).join("");
    expect(text)
      .to.include("20 of 20")
      .and.include("100.00 %")
      .and.include("500 images/s")
      .and.include("out of range")
      .and.include("cat/1.jpg");
    const written = contentOf(files).charts.find(({ id }) => id === "learning-rate");
    expect(charts.find(({ id }) => id === "learning-rate")).to.deep.equal(written);
    expect(JSON.stringify(charts)).to.not.include("NaN");
  });

  it("has tiles with the means of the last 20 steps, and sentences on where the run is", async () => {
    const config = { model: { name: "x", kind: "revnet", units: [1] }, batchSize: 30, steps: 1000 };
    const none = { parameters: 0, gradients: 0, optimizer: 0, workspace: 0, data: 0 };
    const memory = { ...none, activations: 2048, total: 4096 };
    const liveOf = (more: object = {}) => new LiveRun({ folder: undefined, config, settings: {}, memory, resumedFrom: 0, ...more });
    const part = (live: LiveRun, id: string) => parse(live.content().parts.find((one) => one.id === id)!.html.source);
    const tiles = (live: LiveRun) =>
      Object.fromEntries(
        part(live, "tiles")
          .querySelectorAll("div")
          .map((div) => [div.querySelector("dt")!.text, div.querySelectorAll("dd").map((dd) => dd.text)]),
      );
    const live = liveOf();
    expect(tiles(live)).to.deep.equal({
      step: ["0 of 1,000", "0.00 %"],
      "training loss": ["–", "error –"],
      "test error": ["–", "none yet"],
      throughput: ["–", "no steps yet"],
      "activation memory": ["2.0 KiB", "planned"],
      "memory in all": ["4.0 KiB", "planned"],
    });
    expect(part(live, "state").text.trim()).to.equal("Training. Nothing is written to disk.");

    const step = (n: number, loss: number, milliseconds: number) =>
      live.take({ type: "step", step: n, loss, error: n % 2, learningRate: 0.1, milliseconds });
    // The first five are no longer among the last ones.
    for (let n = 1; n <= 25; n++) step(n, n <= 5 ? 1000 : n, n <= 5 ? 1e6 : 60);
    live.take({ type: "validation", step: 20, loss: 1.5, error: 0.25 });
    live.take({ type: "validation", step: 1234, loss: 2.5, error: 0.125 });
    live.take({ type: "outOfRange", step: 20, count: 1000 });
    const apart = liveOf();
    apart.take({ type: "validation", step: 20, split: "validation", loss: 1.5, error: 0.25 });
    expect(tiles(apart)).to.have.property("validation error").and.deep.equal(["25.00 %", "loss 1.5000, step 20"]);
    live.take({ type: "outOfRange", step: 21, count: 234 });
    for (const file of ["a", "b", "a"]) live.take({ type: "brokenImage", file, reason: "cut" });
    expect(tiles(live)).to.deep.equal({
      step: ["25 of 1,000", "2.50 %, about 0:59 to go"],
      "training loss": ["15.5000", "error 50.00 %"],
      "test error": ["12.50 %", "loss 2.5000, step 1,234"],
      throughput: ["500 images/s", "60.0 ms a step"],
      "activation memory": ["2.0 KiB", "planned"],
      "memory in all": ["4.0 KiB", "planned"],
      "out of range": ["1,234", "values of the streams"],
      "left out": ["2", "images that cannot be decoded"],
    });
    step(26, Number.NaN, 60);
    expect(tiles(live)["training loss"]![0]).to.equal("–");
    expect(tiles(liveOf({ settings: { verifyEvery: 5 } }))["activation memory"]![1]).to.equal("with what verifying stores");
    expect(part(liveOf({ folder: "runs/a", resumedFrom: 1200 }), "state").text.trim()).to.equal(
      "Training, since step 1,200 after a resume. Its folder: runs/a",
    );
    await live.end({ sentence: "The run has ended.", report: "runs/a/report.html" });
    expect(part(live, "state").text.trim()).to.equal(
      "The run has ended. This page is no longer live. Open the report in the browser as a file: runs/a/report.html",
    );
    expect(tiles(live).step).to.deep.equal(["26 of 1,000", "2.60 %"]);
  });

  it("compares its memory with what storing activations would take, once that is planned", async () => {
    const config = { model: { name: "x", kind: "revnet", units: [1] }, batchSize: 4, steps: 10 };
    const memory = { parameters: 0, gradients: 0, optimizer: 0, activations: 1, workspace: 0, data: 0, total: 1 };
    const live = new LiveRun({ folder: undefined, config, settings: {}, memory, resumedFrom: 0 });
    await live.plan({
      spec: TINY_REVNET,
      options: { batchSize: 4, streams: "fixed", device: "cpu", threads: 1 },
    });
    const { parts, charts } = live.content();
    expect(parts.find(({ id }) => id === "tiles")!.html.source).to.match(/stored: \d+\.\d times as much/);
    expect(charts.map(({ id }) => id)).to.include("memory-depth");
    expect(parts.map(({ id }) => id)).to.include("memory");
  });

  it("says how long it will take, until there is nothing left to do", async () => {
    const config = { model: { name: "x", kind: "revnet", units: [1] }, batchSize: 1, steps: 3 };
    const memory = { parameters: 0, gradients: 0, optimizer: 0, activations: 0, workspace: 0, data: 0, total: 0 };
    const live = new LiveRun({ folder: undefined, config, settings: {}, memory, resumedFrom: 0 });
    const tiles = () => live.content().parts.find(({ id }) => id === "tiles")!.html.source;
    const step = (n: number) => live.take({ type: "step", step: n, loss: 1, error: 0.5, learningRate: 0.1, milliseconds: 60_000 });
    step(1);
    expect(tiles()).to.include("about 2:00 to go");
    step(2);
    step(3);
    expect(tiles()).to.include("100.00 %").and.not.to.include("to go");
    const stopped = new LiveRun({ folder: undefined, config, settings: {}, memory, resumedFrom: 0 });
    stopped.take({ type: "step", step: 1, loss: 1, error: 0.5, learningRate: 0.1, milliseconds: 60_000 });
    await stopped.end({ sentence: "The run was stopped.", report: undefined });
    expect(stopped.content().parts.find(({ id }) => id === "tiles")!.html.source).not.to.include("to go");
  });

  it("is bounded whatever the number of steps, so that it takes little time to make", () => {
    const config = { model: { name: "x", kind: "revnet", units: [1] }, batchSize: 1, steps: 600_000 };
    const memory = { parameters: 0, gradients: 0, optimizer: 0, activations: 0, workspace: 0, data: 0, total: 0 };
    const live = new LiveRun({ folder: undefined, config, settings: {}, memory, resumedFrom: 0 });
    for (let step = 1; step <= 600_000; ++step)
      live.take({ type: "step", step, loss: 1, error: 0.5, learningRate: 0.1, milliseconds: 1 });
    const { charts } = live.content();
    const { note, series } = charts.find(({ id }) => id === "loss")!;
    expect(note).to.include("the mean of 512 steps");
    expect(series[0]!.x).to.have.length(1172);
    expect([series[0]!.x[0], series[0]!.x.at(-1)]).to.deep.equal([512, 600_000]);
  });
});

describe(`the live page in a browser${WITHOUT}`, function () {
  this.timeout(180_000);
  let browser: Browser;
  let folder: string;

  before(async function () {
    if (!executablePath) return this.skip();
    browser = await chromium.launch({ executablePath, args: ARGUMENTS });
  });
  after(() => browser?.close());
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "revnet-live-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  const requests: string[] = [];
  const complaints: string[] = [];
  async function open(url: string, width: number): Promise<Page> {
    const page = await browser.newPage({ viewport: { width, height: 900 } });
    page.on("request", (one) => requests.push(one.url()));
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(error.message));
    await page.goto(url);
    return page;
  }

  /** Waits in this process: the page's policy forbids what the browser's driver would wait with. */
  async function until(page: Page, condition: string): Promise<void> {
    for (let tries = 0; !(await page.evaluate(condition)); tries++) {
      if (tries === 600) throw new Error(`in vain: ${condition}; the page says: ${await page.evaluate("document.body.innerText")}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** What is evaluated in the page, as text, since these tests are compiled without the browser's types. */
  const points = (id: string) => `document.getElementById("chart-${id}")?.dataset.points`;
  const text = (part: string) => `document.querySelector('[data-part="${part}"]')?.textContent ?? ""`;

  for (const width of [1280, 390])
    it(`follows a run, its resume and its end, on ${width} pixels`, async () => {
      [requests.length, complaints.length] = [0, 0];
      const controller = new AbortController();
      const pages: Page[] = [];
      let first = "";
      const stopped = trainRevNet(options({ outDir: folder, checkpointEvery: 100, signal: controller.signal }));
      const watch = async () => {
        for await (const event of stopped) {
          if (event.type === "ui") {
            first = event.url;
            pages.push(await open(event.url, width));
            expect(await pages[0]!.evaluate(text("tiles"))).to.include("of 300");
          }
          if (event.type === "step" && event.step === 60) {
            await until(pages[0]!, `/^([6-9]\\d|1\\d\\d) \\d+ [123]$/.test(${points("loss")})`);
            await until(pages[0]!, `/^[123]$/.test(${points("verification-error")})`);
            await until(pages[0]!, `${points("memory-depth")} === "3 3"`);
            expect(await pages[0]!.evaluate("document.documentElement.scrollWidth")).to.equal(width);
            expect(await pages[0]!.evaluate("document.querySelectorAll('.uplot').length"), "charts over older ones").to.equal(5);
            controller.abort();
          }
        }
      };
      await rejection(watch(), "ERR_ABORTED");
      await until(pages[0]!, `/The run was stopped after \\d+ steps/.test(${text("state")})`);

      const resumed = trainRevNet(options({ outDir: folder, checkpointEvery: 100, resume: true }));
      for await (const event of resumed)
        if (event.type === "ui") {
          expect(event.url).to.not.equal(first);
          const page = await open(event.url, width);
          pages.push(page);
          const shown = Number(((await page.evaluate(points("loss"))) as string).split(" ")[0]);
          expect(shown, "steps before the resume").to.be.within(60, 299);
          expect(await page.evaluate(text("state"))).to.match(/since step \d+ after a resume/);
        }
      const { network } = await resumed;
      network.dispose();
      await until(pages[1]!, "document.documentElement.dataset.ended !== undefined");
      const state = await pages[1]!.evaluate(text("state"));
      expect(state).to.include("The run is complete.").and.include(path.join(folder, "report.html"));
      // What the report shows beyond the curves is there too.
      expect(await pages[1]!.evaluate(points("loss"))).to.equal("300 300 6");
      expect(await pages[1]!.evaluate(points("reconstruction"))).to.equal("2");
      expect(await pages[1]!.evaluate("document.querySelectorAll('.confusion tbody tr').length")).to.equal(4);
      expect(await pages[1]!.evaluate("document.documentElement.scrollWidth")).to.equal(width);
      const outside = requests.filter((url) => !/^(http:\/\/127\.0\.0\.1:\d+\/(events)?\?token=|data:)/.test(url));
      expect(outside).to.deep.equal([]);
      expect(complaints).to.deep.equal([]);
      for (const page of pages) await page.close();
    });

  it("keeps what was opened in it, and says when the run is gone", async () => {
    [requests.length, complaints.length] = [0, 0];
    const details = html`<details><summary>more</summary>text</details>`;
    let step = 1;
    const server = await LiveServer.open(0, "x", () => ({
      parts: [
        { id: "state", html: html`<p>${step}</p>` },
        { id: "table", html: html`${details}<p>${step}</p>` },
      ],
      charts: [],
    }));
    const page = await browser.newPage({ viewport: { width: 800, height: 900 } });
    // A part that is replaced between the press and the release of the mouse would swallow the click.
    await page.addInitScript(`
      window.replaced = 0;
      new MutationObserver((records) => {
        for (const { target, removedNodes } of records)
          if (target.dataset?.part === "table" && removedNodes.length > 0) window.replaced += 1;
      }).observe(document, { childList: true, subtree: true });
    `);
    await page.goto(server.url);
    await page.click("summary");
    step = 2;
    server.changed();
    await until(page, `${text("state")} === "2"`);
    expect(await page.evaluate(`document.querySelector("[data-part=table] details").open`)).to.equal(true);
    await until(page, `(${text("table")}).endsWith("2")`);
    expect(await page.evaluate("window.replaced"), "by the update, not by what was there").to.equal(1);
    await page.route("**/*", (route) => route.abort());
    await server.close();
    expect(await page.evaluate("document.querySelector('.unreachable')"), "after a proper end").to.equal(null);
    await page.close();
  });
});

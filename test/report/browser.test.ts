/** Reports in a real browser: Chromium without a window, where there is one. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { expect } from "chai";
import { type Browser, chromium, type Page } from "playwright-core";
import { writeReport } from "../../lib/report/index.js";
import { ARGUMENTS, executablePath, WITHOUT } from "./chromium.js";
import { HOSTILE, writeRun } from "./fixtures.js";

/** What is evaluated in the page, as text, since these tests are compiled without the browser's types. */
const POINTS = "Object.fromEntries([...document.querySelectorAll('.chart')].map((f) => [f.id, f.dataset.points]))";
const COLORED = `[...document.querySelectorAll('.chart canvas')].map((canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let colored = 0;
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 0 && Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 60) colored++;
  return colored;
})`;
const CORNERS = `(async () => {
  const image = document.querySelector('.images img');
  await image.decode();
  const canvas = Object.assign(document.createElement('canvas'), { width: 5, height: 4 });
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  return [image.naturalWidth, image.naturalHeight, [...context.getImageData(0, 0, 1, 1).data], [...context.getImageData(4, 3, 1, 1).data]];
})()`;

describe(`reports in a browser${WITHOUT}`, function () {
  this.timeout(120_000);
  let browser: Browser;
  let folder: string;

  before(async function () {
    if (!executablePath) return this.skip();
    browser = await chromium.launch({ executablePath, args: ARGUMENTS });
    folder = await mkdtemp(path.join(tmpdir(), "revnet-browser-"));
    for (const name of ["a", "b"])
      await writeRun(path.join(folder, name), { name: HOSTILE.slice(0, 100), classes: [HOSTILE, "dog", "owl"], broken: [HOSTILE] });
    await writeReport([path.join(folder, "a")], path.join(folder, "one.html"));
    await writeReport([path.join(folder, "a"), path.join(folder, "b")], path.join(folder, "two.html"));
  });
  after(async () => {
    await browser?.close();
    if (folder) await rm(folder, { recursive: true });
  });

  async function open(name: string, width: number, colorScheme: "light" | "dark") {
    const page: Page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme });
    const [requests, complaints]: [string[], string[]] = [[], []];
    page.on("request", (request) => requests.push(request.url()));
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(error.message));
    const url = pathToFileURL(path.join(folder, name)).href;
    await page.goto(url);
    return { page, url, requests, complaints };
  }

  for (const [width, scheme] of [
    [1280, "light"],
    [1280, "dark"],
    [390, "light"],
    [390, "dark"],
  ] as const)
    for (const name of ["one.html", "two.html"])
      it(`are drawn on ${width} pixels, ${scheme}: ${name}`, async () => {
        const { page, url, requests, complaints } = await open(name, width, scheme);
        try {
          expect(await page.evaluate(POINTS)).to.deep.equal(
            name === "one.html"
              ? {
                  "chart-loss": "20 20 2",
                  "chart-error": "20 20 2",
                  "chart-learning-rate": "20",
                  "chart-throughput": "20",
                  "chart-memory-depth": "3 3",
                  "chart-reconstruction": "2",
                }
              : {
                  "chart-loss": "20 2 20 2",
                  "chart-error": "20 2 20 2",
                  "chart-learning-rate": "20 20",
                  "chart-throughput": "20 20",
                },
          );
          for (const colored of (await page.evaluate(COLORED)) as number[]) expect(colored).to.be.greaterThan(100);
          expect(await page.evaluate("document.documentElement.scrollWidth"), "wider than the screen").to.equal(width);
          expect(await page.evaluate("typeof window.injected")).to.equal("undefined");
          expect(requests.filter((request) => !request.startsWith("data:"))).to.deep.equal([url]);
          expect(complaints).to.deep.equal([]);
        } finally {
          await page.close();
        }
      });

  it("follow the width and the colours while they are looked at", async () => {
    const { page } = await open("one.html", 1280, "light");
    try {
      const widths = "[...document.querySelectorAll('.chart .uplot')].map((plot) => plot.clientWidth)";
      const before = (await page.evaluate(widths)) as number[];
      await page.setViewportSize({ width: 390, height: 800 });
      await page.waitForFunction("document.querySelector('.chart .uplot').clientWidth < 390");
      expect(Math.max(...((await page.evaluate(widths)) as number[])))
        .to.be.lessThan(Math.min(...before))
        .and.at.most(366);
      await page.emulateMedia({ colorScheme: "dark" });
      await page.waitForFunction("getComputedStyle(document.body).backgroundColor === 'rgb(21, 24, 29)'");
      expect(Object.keys((await page.evaluate(POINTS)) as object)).to.have.length(6);
      expect(await page.evaluate("document.querySelectorAll('.uplot').length"), "charts drawn over older ones").to.equal(5);
      // Where every value is 0 a sentence says so, instead of an axis without anything on it.
      expect(await page.evaluate("document.querySelector('#chart-reconstruction .plot').textContent")).to.equal(
        "0 at each of 2 reversible blocks.",
      );
    } finally {
      await page.close();
    }
  });

  it("show images as they were", async () => {
    const { page } = await open("one.html", 1280, "light");
    try {
      expect(await page.evaluate(CORNERS)).to.deep.equal([5, 4, [255, 0, 0, 255], [0, 0, 255, 255]]);
    } finally {
      await page.close();
    }
  });
});

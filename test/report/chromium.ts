/** Where the browser is that shows pages to tests, and how it is started. */
import { existsSync } from "node:fs";

const { CHROMIUM } = process.env;
const CANDIDATES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** undefined: there is none, or CHROMIUM is empty. */
export const executablePath = (CHROMIUM === undefined ? CANDIDATES : [CHROMIUM]).find((file) => file !== "" && existsSync(file));
export const ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"];
export const WITHOUT = executablePath ? "" : " (left out: no Chromium; CHROMIUM=/path/to/one names it)";

// Starts Chromium, and watches what pages do that the console must not: say errors, throw, and
// talk to other hosts. Knows nothing of what is on the pages.

import { createRequire } from "node:module";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

// What npm has installed is in a directory of its own, which is named here.
const require = createRequire(`${process.env.BROWSER_TOOLS}/`);
const { chromium } = require("playwright-core");

export const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export class Browser {
  #directory = mkdtempSync(join(tmpdir(), "dkvs-console-"));
  #pages = [];

  /** Every page is in a profile of its own, as if a person opened the console for the first time. */
  async start() {
    this.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: FLAGS,
      // What Chromium itself writes does not go into anybody's home.
      env: { ...process.env, HOME: this.#directory, XDG_CONFIG_HOME: this.#directory, XDG_CACHE_HOME: this.#directory },
    });
  }

  /** A page on `url`. `expected` are patterns of the lines that the console may write there. */
  async page(url, { expected = [], ...options } = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1440, height: 1000 }, reducedMotion: "reduce", ...options });
    const page = await context.newPage();
    const seen = { faults: [] };
    this.#pages.push({ context, page, seen });
    page.on("console", (message) => {
      const line = `${message.type()}: ${message.text()} (${message.location().url})`;
      const wrong = ["error", "warning"].includes(message.type());
      if (wrong && !expected.some((pattern) => pattern.test(line))) seen.faults.push(line);
    });
    page.on("pageerror", (error) => seen.faults.push(`thrown: ${error.stack}`));
    page.on("dialog", (dialog) => {
      seen.faults.push(`a dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    const { origin } = new URL(url);
    page.on("request", (request) => {
      const to = request.url();
      if (!to.startsWith(`${origin}/`) && !to.startsWith("data:")) seen.faults.push(`a request to another host: ${to}`);
    });
    await page.goto(url);
    return page;
  }

  /** What the open pages say of their connection, for failures. */
  async describe() {
    const said = this.#pages.map(({ page }) => page.evaluate(() => {
      const pill = document.getElementById("connection");
      return `${location.href}: ${pill?.textContent} ${pill?.title}`;
    }).catch((error) => error.message));
    return (await Promise.all(said)).join("\n");
  }

  /** Closes the pages of a test, and throws if one of them did what it must not. */
  async closePages() {
    const pages = this.#pages.splice(0);
    for (const { context } of pages) await context.close();
    const faults = pages.flatMap(({ seen }) => seen.faults);
    if (faults.length) throw new Error(faults.join("\n"));
  }

  async end() {
    await this.browser.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

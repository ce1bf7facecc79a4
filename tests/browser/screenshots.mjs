// Takes the pictures of the documentation: a lively cluster of which one server has been stopped
// and started, with a put just done. Run by `.ci/console --screenshots DIRECTORY`.

import { join } from "node:path";
import { Browser } from "./chromium.mjs";
import { endAll, Gateway } from "./gateways.mjs";

const [directory] = process.argv.slice(2);
/** How much of the two minutes the charts are to show. */
const LIVELY_SECONDS = 100;

const browser = new Browser();

/** Reads and writes, more and less of them by turns, until told to stop. */
async function beLively(url, signal) {
  const names = ["ada", "grace", "barbara", "leslie", "nancy", "edsger", "frances", "tony"];
  // Read and not written again: what a server that forgot is given back by reads.
  const orders = Array.from({ length: 60 }, (_, at) => `${url}/kv/order%2F${1000 + at}`);
  for (const order of orders) await fetch(order, { method: "PUT", body: "paid", headers: { "Content-Type": "text/plain" } });
  for (let round = 0; !signal.aborted; round += 1) {
    const name = names[round % names.length];
    const at = `${url}/kv/user%2F${name}`;
    const value = JSON.stringify({ name, visits: round });
    await fetch(at, { method: "PUT", body: value, headers: { "Content-Type": "application/json" } });
    for (const read of [at, at, orders[round % orders.length]]) await fetch(read);
    if (round % 40 === 39) await fetch(`${url}/kv/user%2F${names[(round + 4) % names.length]}`, { method: "DELETE" });
    await new Promise((resolve) => setTimeout(resolve, 25 + 20 * Math.sin(round / 60)));
  }
}

try {
  await browser.start();
  const gateway = await Gateway.start("--listen", "127.0.0.1:0");
  const stop = new AbortController();
  const lively = beLively(gateway.url, stop.signal);
  const page = await browser.page(gateway.url, { viewport: { width: 1440, height: 1104 }, expected: [/status of 404/] });
  await page.locator("#legend button").first().waitFor();
  const row = page.locator("#servers tbody tr").nth(2);
  const seconds = (count) => page.waitForFunction((least) => document.querySelector(".charts .line").getAttribute("d").split("L").length > least, count, { timeout: 0 });
  await seconds(LIVELY_SECONDS * 0.5);
  if (await row.getByRole("button", { name: "Stop" }).count()) {
    await row.getByRole("button", { name: "Stop" }).click();
    await seconds(LIVELY_SECONDS * 0.6);
    await row.getByRole("button", { name: "Start" }).click();
  }
  await seconds(LIVELY_SECONDS);
  await page.fill("#key", "greeting");
  await page.fill("#value", "hello, world");
  await page.locator("button[data-method=PUT]").click();
  await page.locator(".replicas tbody tr").nth(2).waitFor();
  // Pointing at nothing, so that nothing is highlighted.
  await page.evaluate(() => scrollTo(0, 0));
  await page.mouse.move(5, 5);
  await page.evaluate(() => document.activeElement.blur());
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.screenshot({ path: join(directory, `console-${colorScheme}.png`) });
  }
  stop.abort();
  await lively;
  await browser.closePages();
} finally {
  await browser.end();
  await endAll();
}

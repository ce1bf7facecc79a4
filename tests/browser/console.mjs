// The web console in a real browser, on real gateways. Each test says a fact in its name, opens
// pages of its own, and waits for conditions, never for time to pass. Run by .ci/console.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { axe, Browser } from "./chromium.mjs";
import { endAll, freePort, Gateway, newToken } from "./gateways.mjs";

/** The one figure that the console promises: a ring of 1,000 servers is on the screen after this. */
const RING_DRAWN_MS_MAX = 1000;

const work = mkdtempSync(join(tmpdir(), "dkvs-console-test-"));
const browser = new Browser();
let cluster; // the gateway that most tests share

const live = (page) => page.locator("#connection[data-state=live]").waitFor();

async function openConsole(url, options) {
  const page = await browser.page(url, options);
  await live(page);
  await page.locator("#legend button").first().waitFor();
  return page;
}

/** Presses put, get or delete, and gives what the outcome says. */
async function press(page, method) {
  // An outcome of an earlier request is not the one that is waited for.
  await page.locator("#result").evaluate((result) => result.replaceChildren());
  await page.locator(`button[data-method=${method}]`).click();
  return page.locator("#result .outcome .badge").innerText();
}

const answers = (page) => page.locator(".replicas tbody .badge").evaluateAll((badges) => badges.map((badge) => badge.lastChild.textContent));

/** Waits until the page says so; what it said last is in the failure. */
const until = (page, claim, argument) => page.waitForFunction(claim, argument, { polling: 50 });

/** Lists the keys with a prefix, and waits until those are the ones on the page. */
async function list(page, prefix) {
  await page.fill("#prefix", prefix);
  await page.locator("#browse button").click();
  await until(
    page,
    (prefix) => {
      const names = [...document.querySelectorAll("#keys tbody th")].map((cell) => cell.textContent);
      return names.length && names.every((name) => name.startsWith(prefix));
    },
    prefix,
  );
}

/** The names that are listed, once there are so many. */
async function listed(page, count) {
  await until(page, (count) => document.querySelectorAll("#keys tbody th").length === count, count);
  return page.locator("#keys tbody th").allInnerTexts();
}

async function put(url, key, value) {
  const response = await fetch(`${url}/kv/${encodeURIComponent(key)}?wait=all`, { method: "PUT", body: value });
  assert.equal(response.status, 200);
}

const tests = {
  async the_ring_and_the_servers_are_shown_live() {
    const page = await openConsole(cluster.url);
    assert.equal(await page.locator("#ring .arcs path").count(), 5);
    assert.equal(await page.locator("#servers tbody tr").count(), 5);
    await page.getByText("5 of 5 servers answer.").waitFor();
  },

  async a_key_shows_its_place_as_it_is_typed() {
    const page = await openConsole(cluster.url);
    await page.fill("#key", "café");
    const position = createHash("sha1").update("café").digest("hex");
    await page.getByText(`SHA-1 ${position}`).waitFor();
    assert.equal(await page.locator("#ring .mark").count(), 3);
    await page.fill("#n", "4");
    await until(page, () => document.querySelectorAll("#ring .mark").length === 4);
    // The same key, and another, in other notations.
    await page.fill("#n", "");
    await page.selectOption("#key-form", "percent");
    await page.fill("#key", "caf%E9");
    const latin = createHash("sha1").update(Buffer.from("caf\xe9", "latin1")).digest("hex");
    await page.getByText(`SHA-1 ${latin}`).waitFor();
    await page.fill("#key", "caf%E");
    await page.getByText("two hexadecimal digits after each %").waitFor();
  },

  async a_put_a_get_and_a_delete_show_what_each_replica_said() {
    const page = await openConsole(cluster.url, { expected: [/status of 404 .*\/kv\/greeting\?/] });
    await page.fill("#key", "greeting");
    await page.fill("#value", "hello");
    assert.match(await press(page, "PUT"), /committed/);
    assert.deepEqual(await answers(page), ["stored", "stored", "stored"]);
    assert.equal(await page.locator("#ring .mark.ok").count(), 3);
    assert.match(await press(page, "GET"), /found/);
    assert.equal(await page.locator(".read pre").innerText(), "hello");
    assert.deepEqual(await answers(page), ["match", "match", "match"]);
    assert.match(await page.locator("#announce").textContent(), /greeting: found\. 3 of 3 agree, 2 needed/);
    assert.match(await press(page, "DELETE"), /committed/);
    assert.match(await press(page, "GET"), /deleted/);
    assert.deepEqual(await answers(page), ["tombstone", "tombstone", "tombstone"]);
  },

  async what_each_replica_holds_is_shown() {
    const page = await openConsole(cluster.url);
    const ask = async () => {
      await page.locator("#result").evaluate((result) => result.replaceChildren());
      await page.getByRole("button", { name: "What each replica holds" }).click();
      return page.locator("#result .outcome .badge").innerText();
    };
    await page.fill("#key", "held");
    await page.fill("#value", "eight by");
    assert.match(await ask(), /in step/);
    assert.deepEqual(await answers(page), ["absent", "absent", "absent"]);
    await press(page, "PUT");
    const tag = await page.locator("#result .tag code").innerText();
    assert.match(await ask(), /in step/);
    assert.deepEqual(await answers(page), ["value", "value", "value"]);
    assert.equal(await page.locator("#result .tag code").innerText(), tag);
    assert.equal(await page.locator(".replicas tbody tr", { hasText: `8 B · ${tag} · CRC ` }).count(), 3);
    assert.equal(await page.locator("#ring .mark.ok").count(), 3);
    assert.equal(await page.locator(".read").count(), 0);
    // Replicas that differ do so for a moment only: these are made up.
    await page.route("**/ring/held?*replicas=true", async (route) => {
      const response = await route.fetch();
      const body = await response.json();
      const { server, ring_point, latency_us } = body.replicas[1];
      body.replicas[1] = { server, ring_point, status: "absent", latency_us };
      body.replicas[2].status = "timeout";
      await route.fulfill({ json: { ...body, in_step: false } });
    });
    assert.match(await ask(), /not in step/);
    assert.deepEqual(await answers(page), ["value", "absent", "timeout"]);
    assert.deepEqual(await page.locator("#ring .mark").evaluateAll((marks) => marks.map((mark) => mark.classList[1])), ["ok", "warn", "bad"]);
    await page.getByText("lacks the newest version").waitFor();
    await page.fill("#key", "");
    await page.getByRole("button", { name: "What each replica holds" }).click();
    await page.locator("#result .problem", { hasText: "A key has at least one byte" }).waitFor();
  },

  async keys_are_listed_in_order_from_any_key_and_folders_are_entered() {
    for (const key of ["tree/a", "tree/b/1", "tree/b/2", "tree/c", "tree/d/1"]) await put(cluster.url, key, "v");
    const page = await openConsole(cluster.url);
    await list(page, "tree/");
    assert.deepEqual(await listed(page, 5), ["tree/a", "tree/b/1", "tree/b/2", "tree/c", "tree/d/1"]);
    await page.check("#reverse");
    await page.fill("#start", "tree/b/2");
    await page.locator("#browse button").click();
    assert.deepEqual(await listed(page, 3), ["tree/b/2", "tree/b/1", "tree/a"]);
    await page.uncheck("#reverse");
    await page.fill("#start", "");
    await page.check("#folders");
    await page.locator("#browse button").click();
    assert.deepEqual(await listed(page, 4), ["tree/b/", "tree/d/", "tree/a", "tree/c"]);
    await page.getByRole("button", { name: "tree/b/" }).click();
    assert.deepEqual(await listed(page, 2), ["tree/b/1", "tree/b/2"]);
    assert.equal(await page.inputValue("#prefix"), "tree/b/");
  },

  async a_stopped_server_turns_red_and_writes_go_on_and_a_read_repairs_it() {
    const page = await openConsole(cluster.url);
    // The list of keys would read them, and so repair the server before it can be seen.
    await page.fill("#prefix", "none of these/");
    await page.locator("#browse button").click();
    await page.getByText("No key begins with").waitFor();
    await page.fill("#key", "survivor");
    await page.fill("#value", "still here");
    await press(page, "PUT");
    const server = await page.locator(".replicas tbody tr th").first().evaluate((cell) => cell.firstChild.textContent);
    const row = page.locator(`#servers tr[data-server="${server}"]`);
    await row.getByRole("button", { name: "Stop" }).click();
    await row.getByText("stopped").waitFor();
    await until(page, () => document.querySelectorAll("#ring .arcs .down").length === 1);
    assert.equal(await row.evaluate((element) => element.classList.contains("down")), true);

    assert.match(await press(page, "PUT"), /committed/);
    const [first, ...others] = await answers(page);
    assert.ok(["unreachable", "timeout"].includes(first), first);
    assert.deepEqual(others, ["stored", "stored"]);
    assert.equal(await page.locator("#ring .mark.bad").count(), 1);

    await row.getByRole("button", { name: "Start" }).click();
    await row.getByText("answers").waitFor();
    // It kept everything in memory, so it has forgotten, until a read gives it the value or it has pulled it.
    assert.match(await press(page, "GET"), /found/);
    const [back, ...stayed] = await answers(page);
    assert.ok(["repaired", "match"].includes(back), back);
    assert.deepEqual(stayed, ["match", "match"]);
    assert.match(await press(page, "GET"), /found/);
    assert.deepEqual(await answers(page), ["match", "match", "match"]);
    await row.getByText("in step with 4 of 4 peers").waitFor();
  },

  async a_write_of_unknown_outcome_is_sent_again_with_its_tag() {
    const page = await openConsole(cluster.url, { expected: [/status of 504 .*\/kv\/undecided/] });
    const tag = "0192f0c4a1b20001-9f3c21d400000007";
    const sent = [];
    // Such an outcome takes a server that is silent at the right moment: here it is made up.
    await page.route("**/kv/undecided*", (route) => {
      sent.push({ url: new URL(route.request().url()), body: route.request().postData() });
      if (sent.length > 1) return route.fulfill({ json: { key: "undecided", outcome: "committed", consistency: "agreement", tag, quorum: { n: 3, w: 2, confirmed: 2 }, replicas: [], elapsed_us: 1 } });
      return route.fulfill({
        status: 504,
        contentType: "application/problem+json",
        json: { type: "urn:dkvs:problem:timeout", title: "The deadline passed", status: 504, detail: "1 of 3 confirmed", outcome: "unknown", consistency: "agreement", tag, quorum: { n: 3, w: 2, confirmed: 1 }, replicas: [] },
      });
    });
    await page.fill("#key", "undecided");
    await page.fill("#value", "once");
    assert.match(await press(page, "PUT"), /unknown/);
    await page.getByRole("button", { name: "Send the same write again" }).click();
    await page.locator("#result .badge", { hasText: "committed" }).waitFor();
    assert.equal(sent[0].url.searchParams.get("tag"), null);
    assert.equal(sent[1].url.searchParams.get("tag"), tag);
    assert.equal(sent[1].body, "once");
  },

  async keys_are_listed_page_by_page() {
    await Promise.all(Array.from({ length: 40 }, (_, at) => put(cluster.url, `page/${at}`, `value ${at}`)));
    const page = await openConsole(cluster.url);
    await list(page, "page/");
    const listed = () => page.locator("#keys tbody th").allInnerTexts();
    const pages = [];
    for (const [number, size] of [[1, 15], [2, 15], [3, 10]]) {
      await page.getByText(`Page ${number}: ${size} keys`).waitFor();
      pages.push(await listed());
      if (number < 3) await page.locator("#next").click();
    }
    assert.equal(new Set(pages.flat()).size, 40);
    assert.equal(await page.locator("#next").isDisabled(), true);
    await page.locator("#previous").click();
    await page.getByText("Page 2: 15 keys").waitFor();
    assert.deepEqual(await listed(), pages[1]);
    const chosen = pages[1][3];
    await page.getByRole("button", { name: chosen, exact: true }).click();
    await page.locator(".read pre").waitFor();
    assert.equal(await page.locator(".read pre").innerText(), chosen.replace("page/", "value "));
    assert.equal(await page.inputValue("#key"), chosen);
  },

  async keys_and_values_that_are_markup_do_nothing() {
    const markup = `<img src="/console/nothing" onerror="document.title='gotcha'"><script>document.title='gotcha'</script>`;
    const page = await openConsole(cluster.url);
    await page.fill("#key", `markup/${markup}`);
    await page.fill("#value", markup);
    await page.fill("#content-type", "text/html");
    assert.match(await press(page, "PUT"), /committed/);
    assert.match(await press(page, "GET"), /found/);
    assert.equal(await page.locator(".read pre").textContent(), markup);
    await list(page, "markup/");
    await page.locator("#keys code").first().waitFor();
    assert.equal(await page.locator("#keys th button").innerText(), `markup/${markup}`);
    assert.equal(await page.locator("#keys code").textContent(), markup);
    assert.equal(await page.locator("img").count(), 1); // the console's own
    assert.equal(await page.title(), "dkvs console");
  },

  async the_page_works_with_the_keyboard_alone() {
    const page = await openConsole(cluster.url);
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.dataset.method || "");
    const tabTo = async (wanted) => {
      const way = [];
      for (let steps = 0; steps < 12; steps += 1) {
        await page.keyboard.press("Tab");
        way.push(await focused());
        if (way.at(-1) === wanted) return;
      }
      assert.fail(`${wanted} is not reached: ${way}`);
    };
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    await page.keyboard.press("Enter");
    assert.equal(await focused(), "inspector");
    await tabTo("key");
    await page.keyboard.type("typed");
    await tabTo("value");
    await page.keyboard.type("by hand");
    await tabTo("PUT");
    await page.keyboard.press("Space");
    await page.locator("#result .badge", { hasText: "committed" }).waitFor();
    await tabTo("GET");
    await page.keyboard.press("Space");
    await page.locator("#result .badge", { hasText: "found" }).waitFor();
    assert.equal(await page.locator(".read pre").innerText(), "by hand");
  },

  async the_helper_says_what_a_quorum_gives() {
    const page = await openConsole(cluster.url, { expected: [/status of 400 .*\/kv\/half/] });
    const levels = () => page.locator(".promise .badge").evaluateAll((badges) => badges.map((badge) => badge.lastChild.textContent));
    assert.deepEqual(await levels(), ["linearizable", "linearizable"]);
    await page.fill("#w", "1");
    assert.deepEqual(await levels(), ["agreement", "linearizable"]);
    await page.getByText("1 of 3 is no majority").waitFor();
    await page.selectOption("#consistency", "linearizable");
    assert.deepEqual(await levels(), ["refused", "linearizable"]);
    // The gateway agrees.
    await page.fill("#key", "half");
    await page.locator("button[data-method=PUT]").click();
    await page.locator("#result .problem", { hasText: "cannot be linearizable" }).first().waitFor();
    await page.fill("#w", "");
    await page.fill("#n", "4");
    assert.deepEqual(await levels(), ["refused", "refused"]);
    await page.selectOption("#consistency", "");
    assert.deepEqual(await levels(), ["agreement", "agreement"]);
  },

  async the_command_does_what_the_form_says() {
    const page = await openConsole(cluster.url);
    const key = `it's/../$HOME "ü" \\ %41`;
    const value = `@not-a-file 'quoted' $(echo no) \\n\nsecond line`;
    await page.fill("#key", key);
    await page.fill("#value", value);
    const run = async () => {
      const { status, stdout, stderr } = spawnSync("bash", ["-c", `${await page.locator("#curl").innerText()} -sS`], { encoding: "utf8" });
      assert.equal(status, 0, stderr);
      return JSON.parse(stdout);
    };
    const written = await run();
    assert.equal(written.outcome, "committed");
    assert.equal(written.key, key);
    await page.locator("#curl-method").getByText("get").click();
    assert.equal((await run()).value, value);
    // Bytes that no shell can be given.
    await page.locator("#curl-method").getByText("put").click();
    await page.selectOption("#value-form", "base64");
    await page.fill("#value", "AP8K");
    const line = await page.locator("#curl").innerText();
    assert.match(line, /base64 -d/);
    await run();
    assert.match(await press(page, "GET"), /found/);
    assert.equal(await page.locator(".read pre").innerText(), "00 ff 0a");
  },

  async a_gateway_with_tokens_asks_for_one_and_the_page_keeps_it_in_its_tab() {
    const { token, line } = newToken("read,write,admin");
    const file = join(work, "tokens");
    writeFileSync(file, `${line}\n`, { mode: 0o600 });
    const gateway = await Gateway.start("--listen", "127.0.0.1:0", "--tokens", file);
    const page = await browser.page(gateway.url, { expected: [/status of 401 /] });
    const field = page.locator("#token");
    await field.waitFor();
    await page.locator("#connection[data-state=unauthorized]").waitFor();
    // One refusal of the wrong token arrives when the right one has been given.
    let release;
    const released = new Promise((resolve) => (release = resolve));
    await page.route("**/kv?*", async (route) => {
      if (route.request().headers().authorization === "Bearer dkvs_wrong") await released;
      await route.continue();
    });
    await field.fill("dkvs_wrong");
    await page.keyboard.press("Enter");
    await page.getByText("does not know the token").waitFor();
    await field.fill(token);
    await page.keyboard.press("Enter");
    await live(page);
    const late = page.waitForResponse((response) => response.url().includes("/kv?") && response.status() === 401);
    release();
    await (await late).finished();
    await page.evaluate(() => fetch("/healthz"));
    await page.locator("#legend button").first().waitFor();
    assert.equal(await field.isVisible(), false);
    await page.fill("#key", "guarded");
    assert.match(await press(page, "PUT"), /committed/);
    const curl = await page.locator("#curl").innerText();
    assert.ok(curl.includes("$DKVS_TOKEN") && !curl.includes(token));
    assert.ok(!(await page.content()).includes(token));
    assert.equal(await page.evaluate(() => Object.values(localStorage).join()), "");
    await page.getByRole("button", { name: "Forget the token" }).click();
    await field.waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await gateway.end();
  },

  async a_gateway_that_is_restarted_is_found_again() {
    const port = await freePort();
    const first = await Gateway.start("--listen", `127.0.0.1:${port}`);
    const page = await openConsole(first.url, { expected: [/net::ERR_.*\/events/, /net::ERR_.*\/ring/, /net::ERR_.*\/kv/] });
    const servers = await page.locator("#legend .mono").allInnerTexts();
    await first.end();
    await page.locator("#connection[data-state=reconnecting]").waitFor();
    const second = await Gateway.start("--listen", `127.0.0.1:${port}`);
    await live(page);
    // Its servers are others, and so is the ring.
    await until(page, (old) => !old.includes(document.querySelector("#legend .mono").textContent), servers);
    await page.fill("#key", "after");
    assert.match(await press(page, "PUT"), /committed/);
    assert.equal(await page.locator("#ring .mark.ok").count(), 3);
    await second.end();
  },

  async a_phone_needs_no_sideways_scroll() {
    const page = await openConsole(cluster.url, { viewport: { width: 360, height: 740 } });
    await page.fill("#key", "a/key/that/is/longer/than/the/screen/of/a/phone/".repeat(3));
    await page.fill("#value", "x".repeat(300));
    await press(page, "PUT");
    await press(page, "GET");
    await page.locator("#browse button").click();
    await page.locator("#keys code").first().waitFor();
    const { width, wide } = await page.evaluate(() => ({
      width: document.documentElement.scrollWidth,
      wide: [...document.querySelectorAll("main *")].filter((element) => element.getBoundingClientRect().right > innerWidth + 1).map((element) => element.outerHTML.slice(0, 80)),
    }));
    assert.ok(width <= 360, `${width} pixels: ${wide}`);
  },

  async a_ring_of_a_thousand_servers_is_drawn_within_a_second() {
    const file = join(work, "thousand.txt");
    writeFileSync(file, Array.from({ length: 1000 }, (_, at) => `127.0.0.1 ${at + 1} 64\n`).join(""));
    const gateway = await Gateway.start("--listen", "127.0.0.1:0", "--servers", file);
    // Nobody listens there, so no list of keys can be had. How long each of three loads takes is
    // shown; what else runs on the machine can only make one slower, so the fastest counts.
    const times = [];
    let page;
    for (let load = 0; load < 3; load += 1) {
      page = await openConsole(gateway.url, { expected: [/status of 50[34] .*\/kv\?/] });
      await until(page, () => performance.getEntriesByName("ring-draw").length > 0);
      times.push(await page.evaluate(() => performance.getEntriesByName("ring-draw")[0].duration));
    }
    const shown = times.map((time) => Math.round(time)).join(", ");
    console.log(`     1,000 servers, 64,000 ring points: on the screen after ${shown} ms`);
    assert.ok(Math.min(...times) < RING_DRAWN_MS_MAX, shown);
    assert.equal(await page.locator("#ring .arcs path").count(), 1000);
    assert.equal(await page.locator("#servers tbody tr").count(), 25);
    await page.fill("#server-filter", ":77");
    await until(page, () => document.querySelectorAll("#servers tbody tr").length === 11);
    await page.fill("#server-filter", "");
    await page.getByRole("button", { name: "Show all 1,000" }).click();
    await until(page, () => document.querySelectorAll("#servers tbody tr").length === 1000);
    await gateway.end();
  },

  async the_page_of_the_contract_loads() {
    const page = await browser.page(`${cluster.url}/docs`);
    await page.locator(".swagger-ui .opblock").first().waitFor();
  },

  async nothing_serious_stands_in_the_way_of_assistive_tools() {
    for (const colorScheme of ["light", "dark"]) {
      const page = await openConsole(cluster.url, { colorScheme });
      await page.fill("#key", "accessible");
      await page.fill("#value", "to all");
      await press(page, "PUT");
      await press(page, "GET");
      await page.locator("#keys code").first().waitFor();
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run());
      const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
      assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("\n")}`), []);
    }
  },
};

const only = process.argv.slice(2);
let failed = 0;
try {
  await browser.start();
  cluster = await Gateway.start("--listen", "127.0.0.1:0");
  for (const [name, test] of Object.entries(tests)) {
    if (only.length && !only.some((part) => name.includes(part))) continue;
    try {
      await test();
      await browser.closePages();
      console.log(`ok   ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}\n${error.stack}\n${await browser.describe()}`);
      await browser.closePages().catch((faults) => console.log(faults.message));
    }
  }
} finally {
  await browser.end();
  await endAll();
  rmSync(work, { recursive: true, force: true });
}
if (failed) {
  console.log(`${failed} failed`);
  process.exit(1);
}

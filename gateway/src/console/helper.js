// Draws what the chosen quorum gives, and the same request as a command. The rules are in
// quorum.js, the command in curl.js; this owns the choice of method and the copy button.

import { curl } from "./curl.js";
import { badge, html, setText } from "./dom.js";
import { overlap, promise, resolve } from "./quorum.js";

const DOTS_MAX = 16;

export class Helper {
  #elements;
  #said = null;
  #cluster = { replication: 3, servers: 0 };
  #drawn = "";

  constructor(elements) {
    this.#elements = elements;
    elements.method.addEventListener("change", () => this.#draw());
    elements.copy.addEventListener("click", () => this.#copy());
  }

  cluster(replication, servers) {
    if (replication === this.#cluster.replication && servers === this.#cluster.servers) return;
    this.#cluster = { replication, servers };
    this.#draw();
  }

  /** Shows the command of this method. */
  method(method) {
    this.#elements.method.querySelector(`[value=${method}]`).checked = true;
    this.#draw();
  }

  update(said) {
    this.#said = said;
    this.#draw();
  }

  #draw() {
    if (!this.#said) return;
    const { n, w, r, consistency } = this.#said;
    const { replication } = this.#cluster;
    const write = resolve(n, w, this.#cluster);
    const read = resolve(n, r, this.#cluster);
    const promises = [promise("write", write, consistency, replication), promise("read", read, consistency, replication)];
    // Drawn anew only if something changed: someone may be reading it.
    const state = JSON.stringify([write, read, promises]);
    if (state !== this.#drawn) {
      this.#drawn = state;
      this.#elements.promises.replaceChildren(part("Write", write, promises[0]), part("Read", read, promises[1]));
      const whole = promises.every((one) => one.level);
      setText(this.#elements.overlap, whole ? overlap(write, read, promises.map((one) => one.level)) : "");
    }

    const method = this.#elements.method.querySelector("input:checked").value;
    const parameters = { n, [method === "GET" ? "r" : "w"]: method === "GET" ? r : w, consistency, wait: "all" };
    const key = this.#said.key.length ? this.#said.key : new TextEncoder().encode("greeting");
    setText(this.#elements.curl, curl({ ...this.#said, key, method, parameters, origin: location.origin }));
  }

  async #copy() {
    const { copy, curl: line } = this.#elements;
    try {
      await navigator.clipboard.writeText(line.textContent);
      copy.textContent = "Copied";
    } catch {
      // Only pages of loopback or TLS may write to the clipboard; elsewhere the line is selected.
      getSelection().selectAllChildren(line);
      copy.textContent = "Press ctrl-C";
    }
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  }
}

function part(title, { n, needed }, { level, problem, lines }) {
  const dots = Array.from({ length: Math.min(n, DOTS_MAX) }, (_, at) => html("i", { class: at < needed ? "full" : null }));
  return html(
    "div",
    { class: "promise" },
    html("h3", {}, title),
    problem ? badge("bad", "refused") : badge(level === "linearizable" ? "ok" : "warn", level),
    html("span", { class: "dots", "aria-hidden": "true" }, ...dots),
    ...(problem ? [html("p", {}, problem)] : lines.map((line) => html("p", {}, line))),
  );
}

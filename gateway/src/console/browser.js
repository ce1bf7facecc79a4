// The list of keys in order, page by page, with the beginning of each value, and with folders if they
// are wanted. Owns what is listed and the pages that led here; choosing a key is told to whoever
// listens, and choosing a folder lists it.

import { ask, keyPath, query, send, sentence, UNREACHABLE } from "./api.js";
import { fromBase64, preview, showKey } from "./bytes.js";
import { html, showProblem } from "./dom.js";
import { bytes as byteCount, plural } from "./format.js";

const PAGE = 15;
/** So much of a value is asked for: enough to recognise it, whatever its length. */
const PREVIEW_BYTES = 4096;
/** What folders end with. */
const DELIMITER = "/";
/** One line has no room for more characters. */
const PREVIEW_SHOWN = 160;
/** Values that are asked for at once. */
const READERS = 4;

export class Browser {
  #elements;
  #of = { prefix: "" }; // what is listed: the parameters that all its pages have
  #cursors = [null]; // of the pages up to this one
  #next = null;
  #turn = 0;
  #listed = false;
  onChoose = () => {};

  constructor(elements) {
    this.#elements = elements;
    elements.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin();
    });
    elements.next.addEventListener("click", () => {
      this.#cursors.push(this.#next);
      this.#list();
    });
    elements.previous.addEventListener("click", () => {
      this.#cursors.pop();
      this.#list();
    });
  }

  /** Lists this page again; the first time, the first page. */
  refresh() {
    return this.#list();
  }

  /** Lists what the form says, from its first page. */
  #begin() {
    const { prefix, start, folders, reverse } = this.#elements;
    this.#of = {
      prefix: prefix.value,
      start: start.value,
      delimiter: folders.checked ? DELIMITER : "",
      reverse: reverse.checked ? "true" : "",
    };
    this.#cursors = [null];
    return this.#list();
  }

  /** Lists a folder, from its first page. */
  #enter(folder) {
    this.#elements.prefix.value = folder;
    this.#elements.start.value = "";
    this.#elements.prefix.focus();
    return this.#begin();
  }

  async #list() {
    const turn = (this.#turn += 1);
    const { status: note } = this.#elements;
    if (!this.#listed) note.textContent = "Asking the servers…";
    try {
      const { ok, status, body } = await ask(`/kv${query({ ...this.#of, limit: PAGE, cursor: this.#cursors.at(-1) })}`);
      if (turn !== this.#turn) return;
      showProblem(this.#elements.problem, ok ? null : sentence(body, status));
      if (!ok) {
        if (!this.#listed) note.textContent = "";
        return;
      }
      this.#listed = true;
      this.#next = body.cursor;
      this.#draw(body.folders ?? [], body.keys, turn);
      if (body.left_out) note.textContent += " Keys that are too long to be listed are missing.";
    } catch {
      if (turn === this.#turn) showProblem(this.#elements.problem, UNREACHABLE);
    }
  }

  /** A row of a folder. One that is not text cannot be the prefix in the form. */
  #folder(told) {
    const name = typeof told === "string" ? told : showKey(fromBase64(told.folder_base64));
    const button = html("button", { type: "button", class: "name mono folder", onclick: () => this.#enter(told) }, name);
    button.disabled = typeof told !== "string";
    return html("tr", { role: "row" }, html("th", { role: "rowheader", scope: "row" }, button), html("td", { role: "cell", class: "hint" }, "folder"), html("td", { role: "cell" }), html("td", { role: "cell" }));
  }

  #draw(folders, keys, turn) {
    const { body, status, next, previous } = this.#elements;
    const rows = keys.map((told) => {
      const key = typeof told === "string" ? new TextEncoder().encode(told) : fromBase64(told.key_base64);
      const cells = ["value", "number", "type"].map((name) => html("td", { role: "cell", class: name }));
      const row = html(
        "tr",
        { role: "row" },
        html("th", { role: "rowheader", scope: "row" }, html("button", { type: "button", class: "name mono", onclick: () => this.onChoose(key) }, showKey(key))),
        ...cells,
      );
      return { key, row, cells };
    });
    body.replaceChildren(...folders.map((told) => this.#folder(told)), ...rows.map(({ row }) => row));
    // A button that has the focus and is disabled loses it to the page.
    const focused = document.activeElement;
    next.disabled = this.#next === null;
    previous.disabled = this.#cursors.length === 1;
    if (focused?.disabled) (focused === next ? previous : next).focus();
    const page = `Page ${this.#cursors.length}`;
    const shown = [folders.length && plural(folders.length, "folder"), keys.length && plural(keys.length, "key")].filter(Boolean);
    status.textContent = shown.length
      ? `${page}: ${shown.join(" and ")}${this.#next === null ? ", the last" : ""}.`
      : this.#cursors.length > 1
        ? `${page}: no more keys.`
        : this.#of.prefix
          ? `No key begins with “${this.#of.prefix}”.`
          : "There are no keys yet. Put one above.";
    const queue = [...rows];
    const reader = async () => {
      for (let one = queue.shift(); one && turn === this.#turn; one = queue.shift()) await read(one);
    };
    for (let at = 0; at < READERS; at += 1) reader();
  }
}

/** Fills a row with the beginning of its value, as bytes: what they would do in a page, they never do here. */
async function read({ key, cells: [value, size, type] }) {
  try {
    const response = await send(keyPath("/kv", key, { raw: "true" }), { headers: { Range: `bytes=0-${PREVIEW_BYTES - 1}` } });
    if (response.status === 416) {
      // There is no first byte to give.
      value.replaceChildren(html("span", { class: "hint" }, "(empty)"));
      size.textContent = byteCount(0);
      return;
    }
    if (!response.ok) {
      const problem = await response.json().catch(() => ({}));
      value.replaceChildren(html("span", { class: "hint" }, problem.title ?? `status ${response.status}`));
      return;
    }
    const bytes = new Uint8Array(await response.arrayBuffer());
    const whole = Number(response.headers.get("Content-Range")?.split("/")[1] ?? bytes.length);
    const { text, binary } = preview(bytes, whole > bytes.length);
    const line = [...text.replace(/\s+/g, " ")].slice(0, PREVIEW_SHOWN).join("");
    value.replaceChildren(html("code", { class: binary ? "binary" : null }, line));
    size.textContent = byteCount(whole);
    type.textContent = response.headers.get("Content-Type") ?? "";
  } catch (error) {
    value.replaceChildren(html("span", { class: "hint" }, error instanceof TypeError ? "not read" : error.message));
  }
}

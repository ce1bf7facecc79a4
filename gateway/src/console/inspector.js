// The form of the key inspector: where a key lives, put, get, delete, what each replica said, and holds.
// Owns the request that was sent last; the ring and the helper for quorums draw what it tells them.

import { ask, keyPath, sentence, UNREACHABLE } from "./api.js";
import { fromBase64, parse, preview, showKey, toBase64 } from "./bytes.js";
import { badge, debounced, html } from "./dom.js";
import { bytes as byteCount, duration, plural, verdict } from "./format.js";

/** Longer values are cut on the page; the gateway gives them whole. */
const SHOWN_MAX = 4096;

export class Inspector {
  #form;
  #fields;
  #ring;
  #seen = 0; // counts requests, so that a late answer cannot replace a later one
  #locateSoon = debounced(150, () => this.locate());
  #located = null; // { name, position, replicas }
  /** Hears of each change of the form. */
  onChange = () => {};
  /** Hears of each method that is chosen. */
  onSend = () => {};
  /** Hears of each write that may have changed the keys. */
  onWrite = () => {};

  constructor({ form, note, result, announce }, ring) {
    this.#form = form;
    this.#ring = ring;
    this.note = note;
    this.result = result;
    this.announce = announce;
    const ids = ["key", "key-form", "value", "value-form", "content-type", "n", "w", "r", "consistency"];
    this.#fields = Object.fromEntries(ids.map((id) => [id, form.querySelector(`#${id}`)]));

    form.addEventListener("input", (event) => {
      const { id } = event.target;
      if (["key", "key-form", "n"].includes(id)) {
        this.#seen += 1;
        this.#locateSoon();
      }
      this.onChange();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(event.submitter?.dataset.method ?? "PUT");
    });
    form.querySelector("#holdings").addEventListener("click", () => this.holdings());
  }

  /** What the form says: `{ key, value, contentType, n, w, r, consistency, problem }`. */
  read() {
    const said = { key: new Uint8Array(), value: new Uint8Array(), problem: null };
    try {
      said.key = parse(this.#fields.key.value, this.#fields["key-form"].value);
    } catch (error) {
      said.problem = ["key", error.message];
    }
    try {
      said.value = parse(this.#fields.value.value, this.#fields["value-form"].value);
    } catch (error) {
      said.problem ??= ["value", error.message];
    }
    for (const name of ["n", "w", "r"]) {
      const { value, validity } = this.#fields[name];
      said[name] = value === "" ? null : Number(value);
      if (!validity.valid) said.problem ??= [name, `${name} is a whole number from 1 to 255, or empty for the default.`];
    }
    said.consistency = this.#fields.consistency.value;
    said.contentType = this.#fields["content-type"].value.trim() || "application/octet-stream";
    return said;
  }

  /** The defaults that apply where n, w and r are left out. */
  defaults(replication, majority) {
    this.#fields.n.placeholder = replication;
    this.#fields.w.placeholder = majority;
    this.#fields.r.placeholder = majority;
  }

  /** Puts a key into the form, as text if it is text, and reads it. */
  inspect(key) {
    const text = preview(key);
    this.#fields["key-form"].value = text.binary ? "base64" : "text";
    this.#fields.key.value = text.binary ? toBase64(key) : new TextDecoder().decode(key);
    this.onChange();
    return this.send("GET");
  }

  /** Shows where the key of the form lives. */
  async locate() {
    const said = this.read();
    const wrong = said.problem?.[0] === "key" ? said.problem[1] : null;
    this.#mark(wrong ? "key" : null);
    this.result.hidden = true;
    if (wrong || !said.key.length) {
      this.#located = null;
      this.#ring.show(null);
      this.note.textContent = wrong ?? "Type a key to see where it lives.";
      return;
    }
    const turn = (this.#seen += 1);
    try {
      const { ok, status, body } = await ask(keyPath("/ring", said.key, { n: said.n }));
      if (turn !== this.#seen) return;
      if (!ok) {
        this.#ring.show(null);
        this.note.textContent = sentence(body, status);
        return;
      }
      this.#located = { label: showKey(said.key), ...body };
      this.#ring.show(this.#located);
      this.note.textContent = `SHA-1 ${body.position}`;
    } catch (error) {
      if (turn === this.#seen) this.note.textContent = error instanceof TypeError ? UNREACHABLE : error.message;
    }
  }

  /** Sends what the form says. */
  async send(method) {
    this.onSend(method);
    const said = this.#checked(method);
    if (!said) return;
    const parameters = { n: said.n, [method === "GET" ? "r" : "w"]: method === "GET" ? said.r : said.w, consistency: said.consistency, wait: "all" };
    await this.#perform({ method, key: said.key, parameters, value: said.value, contentType: said.contentType });
  }

  /** Asks each replica what it holds, which changes nothing. */
  async holdings() {
    const said = this.#checked("GET");
    if (!said) return;
    const label = showKey(said.key);
    await this.#busy(async (isLate) => {
      const { ok, status, body } = await ask(keyPath("/ring", said.key, { n: said.n, replicas: true }));
      if (isLate()) return;
      this.#located = ok ? { label, position: body.position, replicas: body.replicas } : null;
      if (ok) this.note.textContent = `SHA-1 ${body.position}`;
      this.#tellHoldings(ok, status, body, label);
    });
  }

  /** What the form says, or null where it says nothing that can be sent, which is shown. */
  #checked(method) {
    const said = this.read();
    if (!said.problem && !said.key.length) said.problem = ["key", "A key has at least one byte. Type one."];
    const relevant = said.problem && (method === "PUT" || said.problem[0] !== "value");
    this.#mark(relevant ? said.problem[0] : null);
    if (!relevant) return said;
    this.note.textContent = said.problem[0] === "key" ? said.problem[1] : this.note.textContent;
    this.#show({ title: said.problem[1], tone: "bad" });
    this.#fields[said.problem[0]].focus();
    return null;
  }

  /** Runs a request; it is given whether another one has begun since. */
  async #busy(run) {
    // The answer tells where the key lives, too; what was typed last must not hide it.
    this.#locateSoon.cancel();
    const turn = (this.#seen += 1);
    const isLate = () => turn !== this.#seen;
    this.#form.setAttribute("aria-busy", "true");
    try {
      await run(isLate);
    } catch (error) {
      if (!isLate()) this.#show({ title: error instanceof TypeError ? UNREACHABLE : error.message, tone: "bad" });
    } finally {
      this.#form.removeAttribute("aria-busy");
    }
  }

  #perform(request) {
    const { method, key, parameters, value, contentType } = request;
    const label = showKey(key);
    return this.#busy(async (isLate) => {
      const options = { method, headers: { Accept: "application/json" } };
      if (method === "PUT") {
        options.body = value;
        options.headers["Content-Type"] = contentType;
      }
      // Where the key lives is asked as well: an answer that is a problem may not say it.
      const place = ask(keyPath("/ring", key, { n: parameters.n })).catch(() => null);
      const { ok, status, body } = await ask(keyPath("/kv", key, parameters), options);
      const located = await place;
      if (method !== "GET") this.onWrite();
      if (isLate()) return;
      this.#located = located?.ok ? { label, ...located.body } : null;
      if (this.#located) this.note.textContent = `SHA-1 ${this.#located.position}`;
      this.#tell(request, ok, status, body, label);
    });
  }

  #tell(request, ok, status, body, label) {
    const { method } = request;
    const missing = body.type === "urn:dkvs:problem:key-not-found";
    const tone = ok ? "ok" : missing ? "idle" : body.outcome === "unknown" ? "warn" : "bad";
    const word = headline(method, ok, missing, body);
    this.#ring.show(
      this.#located && {
        ...this.#located,
        replicas: body.replicas?.length ? body.replicas : this.#located.replicas,
        headline: [word, body.consistency].filter(Boolean).join(" · "),
        tone,
      },
    );
    const details = [];
    if (!ok && !missing) details.push(html("p", { class: "problem" }, sentence(body, status)));
    if (body.outcome === "unknown") details.push(this.#again(request, body));
    if (missing && body.deleted) details.push(html("p", { class: "hint" }, "A replica holds a tombstone: there was a value, and it was deleted."));
    if (ok && method === "GET") details.push(this.#value(body));
    this.#show({ title: `${word}: ${label}`, word, label, tone, body, details });
    this.announce.textContent = spoken(word, label, body);
  }

  #tellHoldings(ok, status, body, label) {
    const [tone, word] = !ok ? ["bad", "failed"] : { true: ["ok", "in step"], false: ["warn", "not in step"] }[body.in_step] ?? ["idle", "in step? not known"];
    const replicas = body.replicas?.map((replica) => ({ ...replica, behind: isBehind(replica, body.tag) }));
    const shown = { ...body, replicas };
    this.#ring.show(this.#located && { ...this.#located, replicas, headline: word, tone });
    const details = ok ? [] : [html("p", { class: "problem" }, sentence(body, status))];
    this.#show({ title: `${word}: ${label}`, word, label, tone, body: shown, details });
    this.announce.textContent = spoken(word, label, shown);
  }

  /** What `unknown` means, and the one safe way on. */
  #again(request, body) {
    const button = html("button", { type: "button", class: "primary", onclick: () => this.#perform({ ...request, parameters: { ...request.parameters, tag: body.tag } }) }, "Send the same write again");
    const what = request.method === "PUT" ? "hold the value" : "hold the tombstone";
    return html(
      "div",
      { class: "unknown" },
      html("p", {}, `It is not known whether this write took effect: some replicas may ${what}, and a later read may see it. `, "Sent again with its tag it is the same write, however often: it takes effect once at most."),
      body.tag ? button : "",
    );
  }

  #value(body) {
    const value = body.encoding === "base64" ? fromBase64(body.value) : new TextEncoder().encode(body.value);
    const cut = value.length > SHOWN_MAX;
    const { text, binary } = preview(value.subarray(0, SHOWN_MAX), cut);
    const form = binary || body.encoding === "base64" ? "base64" : "text";
    return html(
      "div",
      { class: "read" },
      html("p", { class: "hint" }, [byteCount(body.size), body.content_type, binary ? "shown in hexadecimal" : null, cut ? `the first ${byteCount(SHOWN_MAX)}` : null].filter(Boolean).join(" · ")),
      html("pre", { class: "mono", tabindex: "0", role: "region", "aria-label": "The value" }, text || "(empty)"),
      html(
        "button",
        {
          type: "button",
          class: "quiet",
          onclick: () => {
            this.#fields["value-form"].value = form;
            this.#fields.value.value = form === "base64" ? toBase64(value) : body.value;
            this.#fields["content-type"].value = body.content_type ?? "";
            this.onChange();
            this.#fields.value.focus();
          },
        },
        "Edit this value",
      ),
    );
  }

  #show({ title, word, label, tone, body = {}, details = [] }) {
    const head = word ? html("p", { class: "outcome" }, badge(tone, word), html("strong", { class: "mono" }, label)) : html("p", { class: "problem" }, title);
    const { quorum } = body;
    const facts = [];
    if (quorum) facts.push(counted(quorum));
    if (body.consistency) facts.push(body.consistency);
    if (body.elapsed_us) facts.push(duration(body.elapsed_us));
    const parts = [head];
    if (facts.length) parts.push(html("p", { class: "hint facts" }, facts.join(" · ")));
    parts.push(...details);
    if (body.replicas?.length) parts.push(this.#table(body.replicas));
    if (body.tag) parts.push(html("p", { class: "hint tag" }, "tag ", html("code", {}, body.tag)));
    this.result.replaceChildren(...parts);
    this.result.hidden = false;
    if (!word) this.announce.textContent = title;
  }

  #table(replicas) {
    const rows = replicas.map((replica, at) => {
      const { tone, meaning } = verdict(replica);
      const number = html("span", { class: "place" }, String(at + 1));
      number.style.setProperty("--hue", this.#ring.hue(replica.server));
      return html(
        "tr",
        { onpointerenter: () => this.#ring.point(replica.server), onpointerleave: () => this.#ring.point(null) },
        html("td", {}, number),
        html("th", { scope: "row", class: "mono" }, replica.server, html("span", { class: "hint at" }, `at ${replica.ring_point.slice(0, 8)}…`)),
        html("td", {}, badge(tone, replica.status), html("span", { class: "hint meaning" }, meaning), held(replica)),
        html("td", { class: "number" }, duration(replica.latency_us)),
      );
    });
    return html(
      "table",
      { class: "replicas" },
      html("caption", { class: "sr" }, "What each replica answered, in the order of the preference list"),
      html("thead", {}, html("tr", {}, ...["#", "Replica", "Answer"].map((title) => html("th", { scope: "col" }, title)), html("th", { scope: "col", class: "number" }, "After"))),
      html("tbody", {}, ...rows),
    );
  }

  #mark(field) {
    for (const [name, input] of Object.entries(this.#fields)) {
      if (name === field) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
  }
}

/** Whether a replica said what it holds, and that is not the newest version. */
function isBehind(replica, newest) {
  return newest !== null && ["value", "tombstone", "absent"].includes(replica.status) && !replica.reason && replica.tag !== newest;
}

/** The version that a replica holds, where it was asked for that. */
function held({ size, checksum, tag }) {
  if (size === undefined) return "";
  return html("span", { class: "hint at mono" }, `${byteCount(size)} · ${tag} · CRC ${checksum}`);
}

function headline(method, ok, missing, body) {
  if (method === "GET") return ok ? "found" : missing ? (body.deleted ? "deleted" : "no such key") : "failed";
  return { committed: "committed", unknown: "unknown", not_applied: "not applied" }[body.outcome] ?? "refused";
}

function counted(quorum) {
  const { n } = quorum;
  return quorum.w === undefined ? `${quorum.agreeing} of ${n} agree, ${quorum.r} needed` : `${quorum.confirmed} of ${n} confirmed, ${quorum.w} needed`;
}

function spoken(word, label, body) {
  const parts = [`${label}: ${word}.`];
  if (body.quorum) parts.push(`${counted(body.quorum)}.`);
  if (body.consistency) parts.push(`${body.consistency}.`);
  const poor = (body.replicas ?? []).filter((replica) => verdict(replica).tone === "bad");
  if (poor.length) parts.push(`${plural(poor.length, "replica")} did not: ${poor.map((replica) => `${replica.server} ${replica.status}`).join(", ")}.`);
  if (body.detail) parts.push(body.detail);
  return parts.join(" ");
}

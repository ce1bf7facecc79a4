// The table of servers, kept up to date from snapshots, and the buttons that stop and start those
// inside the gateway. Owns the filter and which rows are shown.

import { ask, sentence, UNREACHABLE } from "./api.js";
import { badge, html, setText, showProblem } from "./dom.js";
import { bytes, count, duration, percent, plural } from "./format.js";

const ROWS_MAX = 25;

const COLUMNS = [
  { title: "Server" },
  { title: "State" },
  { title: "Share", number: true },
  { title: "Round trip", number: true },
  { title: "Keys", number: true },
  { title: "Memory", number: true },
  { title: "Keeps" },
  { title: "Speaks" },
];

export class Servers {
  #elements;
  #ring;
  #rows = new Map();
  #snapshot = null;
  #everything = false;
  #busy = new Set();

  constructor(elements, ring) {
    this.#elements = elements;
    this.#ring = ring;
    elements.filter.addEventListener("input", () => this.#draw());
    elements.all.addEventListener("click", () => {
      this.#everything = !this.#everything;
      this.#draw();
    });
  }

  update(snapshot) {
    if (this.#snapshot?.embedded !== snapshot.embedded) this.#head(snapshot.embedded);
    this.#snapshot = snapshot;
    this.#draw();
  }

  highlight(server) {
    for (const [name, row] of this.#rows) row.element.classList.toggle("pointed", name === server);
  }

  #head(embedded) {
    this.#elements.note.hidden = !embedded;
    const cells = COLUMNS.map(({ title, number }) => html("th", { role: "columnheader", scope: "col", class: number ? "number" : null }, title));
    if (embedded) cells.push(html("th", { role: "columnheader", scope: "col" }, html("span", { class: "sr" }, "Stop or start")));
    this.#elements.head.replaceChildren(html("tr", { role: "row" }, ...cells));
    this.#rows.clear();
    this.#elements.body.replaceChildren();
  }

  #draw() {
    if (!this.#snapshot) return;
    const { servers } = this.#snapshot;
    const wanted = this.#elements.filter.value.trim().toLowerCase();
    const found = servers.filter((server) => `${server.server} ${state(server).text}`.toLowerCase().includes(wanted));
    const shown = this.#everything ? found : found.slice(0, ROWS_MAX);

    const rows = shown.map((server) => {
      let row = this.#rows.get(server.server);
      if (!row) {
        row = this.#row(server.server);
        this.#rows.set(server.server, row);
      }
      this.#fill(row, server);
      return row.element;
    });
    const body = this.#elements.body;
    // Moving a row would take the focus from its button.
    if (rows.length !== body.children.length || rows.some((row, at) => row !== body.children[at])) body.replaceChildren(...rows);

    const up = servers.filter((server) => server.reachable).length;
    const matching = wanted ? ` ${plural(found.length, "server")} match${found.length === 1 ? "es" : ""} the filter.` : "";
    setText(this.#elements.summary, `${up} of ${plural(servers.length, "server")} ${up === 1 ? "answers" : "answer"}.${matching}`);
    this.#elements.all.hidden = found.length <= ROWS_MAX;
    setText(this.#elements.all, this.#everything ? `Show the first ${ROWS_MAX}` : `Show all ${found.length.toLocaleString("en")}`);
  }

  #row(server) {
    const name = html(
      "button",
      {
        type: "button",
        class: "name mono",
        title: "Shows its arcs on the ring",
        onfocus: () => this.#ring.point(server),
        onblur: () => this.#ring.point(null),
      },
      html("i", { class: "swatch", "aria-hidden": "true" }),
      server,
    );
    name.style.setProperty("--hue", this.#ring.hue(server));
    const cells = COLUMNS.map(({ title, number }) => html("td", { role: "cell", class: number ? "number" : null, "data-title": title }));
    const head = html("th", { role: "rowheader", scope: "row" }, name);
    cells[0] = head;
    const detail = () => html("div", { class: "detail" });
    const keeps = { mode: html("div"), space: detail(), repair: detail() };
    cells[6].append(keeps.mode, keeps.space, keeps.repair);
    const toggle = html("button", { type: "button", onclick: () => this.#toggle(server) });
    if (this.#snapshot.embedded) cells.push(html("td", { role: "cell", class: "toggle" }, toggle));
    const element = html(
      "tr",
      { role: "row", "data-server": server, onpointerenter: () => this.#ring.point(server), onpointerleave: () => this.#ring.point(null) },
      ...cells,
    );
    return { element, cells, keeps, toggle, name, told: {} };
  }

  #fill(row, server) {
    // The ring may have come later than the row.
    row.name.style.setProperty("--hue", this.#ring.hue(server.server));
    const { tone, text } = state(server);
    if (row.told.state !== tone + text) {
      row.told.state = tone + text;
      row.cells[1].replaceChildren(badge(tone, text));
      row.element.classList.toggle("down", tone === "bad");
    }
    const share = this.#ring.share(server.server);
    setText(row.cells[2], share === null ? "–" : percent(share));
    setText(row.cells[3], server.reachable ? duration(server.round_trip_us ?? server.last_round_trip_us) : "–");
    setText(row.cells[4], count(server.keys));
    setText(row.cells[5], bytes(server.bytes));
    setText(row.keeps.mode, keeps(server));
    setText(row.keeps.space, space(server.storage));
    setText(row.keeps.repair, inStep(server.repair));
    setText(row.cells[7], server.protocol ?? "not known yet");

    const stopped = server.running === false;
    setText(row.toggle, stopped ? "Start" : "Stop");
    row.toggle.setAttribute("aria-label", `${stopped ? "Start" : "Stop"} ${server.server}`);
    row.toggle.hidden = (server.running ?? null) === null;
    // Disabling would take the focus away; a second press while busy does nothing instead.
    row.toggle.setAttribute("aria-disabled", this.#busy.has(server.server));
  }

  async #toggle(server) {
    if (this.#busy.has(server)) return;
    const known = this.#snapshot.servers.find((other) => other.server === server);
    const action = known.running === false ? "start" : "stop";
    this.#busy.add(server);
    this.#draw();
    try {
      const { ok, status, body } = await ask(`/servers/${server}/${action}`, { method: "POST" });
      showProblem(this.#elements.problem, ok ? null : `${server} could not be ${action === "stop" ? "stopped" : "started"}. ${sentence(body, status)}`);
      if (ok) known.running = body.running;
    } catch {
      showProblem(this.#elements.problem, UNREACHABLE);
    } finally {
      this.#busy.delete(server);
      this.#draw();
    }
  }
}

function state(server) {
  if (server.running === false) return { tone: "bad", text: "stopped" };
  if (!server.reachable) return { tone: "bad", text: "no answer" };
  if (server.storage?.read_only) return { tone: "bad", text: "disk failed" };
  if (server.storage?.disk_full) return { tone: "warn", text: "disk full" };
  if (server.storage && !server.storage.complete) return { tone: "warn", text: incomplete(server.repair) };
  if (server.storage?.quarantined_keys > 0) return { tone: "warn", text: `${plural(server.storage.quarantined_keys, "key")} quarantined` };
  const damaged = damagedNow(server.storage);
  if (damaged > 0) return { tone: "warn", text: `${plural(damaged, "record")} damaged` };
  return { tone: "ok", text: "answers" };
}

// Of a server that may have lost records: for how much of what it holds it answers again.
function incomplete(repair) {
  if (!repair?.leaves) return "incomplete";
  const answered = Math.floor((100 * (repair.leaves - repair.leaves_incomplete)) / repair.leaves);
  return `incomplete, answers for ${answered} %`;
}

// How many records are damaged now; unknown, and taken for none, of a server of an earlier version.
function damagedNow(storage) {
  if (!storage || storage.mended_records === null) return 0;
  return storage.damaged_records - storage.mended_records;
}

function keeps(server) {
  if (!server.durability) return "–";
  if (server.durability === "memory") return "in memory";
  const disk = server.storage ? `, ${bytes(server.storage.disk_bytes)} on disk` : "";
  return server.durability + disk;
}

// Whether the server held the same as its peers when it compared itself with them last, and what it has pulled.
function inStep(repair) {
  if (!repair) return "";
  const pulled = repair.records_pulled > 0 ? `; ${plural(repair.records_pulled, "record")} pulled` : "";
  return `in step with ${repair.peers_in_step} of ${plural(repair.peers, "peer")}${pulled}`;
}

// What the log takes of the disk, and what compaction has copied of it.
function space(storage) {
  if (!storage) return "";
  const compacted = storage.compacted_bytes > 0 ? `; ${bytes(storage.compacted_bytes)} compacted` : "";
  return `${bytes(storage.live_bytes)} live, ${bytes(storage.dead_bytes)} dead, ${bytes(storage.reserved_bytes)} reserved${compacted}`;
}

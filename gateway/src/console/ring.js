// The ring, drawn: each server's arcs, a key's position, its preference list, and what each replica
// answered. Owns the picture and its legend. What is highlighted is chosen here or by the table of
// servers; requests are made elsewhere.
//
// Angles are fractions of a turn from the top, clockwise, as positions are fractions of 2^160. The
// arc of a ring point is the range that ends there: a key goes to the first point at or after it.

import { html, svg } from "./dom.js";
import { hue } from "./colours.js";
import { duration, percent, plural, verdict } from "./format.js";

/** More arcs than this are thinner than a pixel or two: then the ring is sampled at so many places. */
const ARCS_MAX = 2400;
const LEGEND_MAX = 10;
/** How many replicas find room in the middle; the table has them all. */
const ROWS_MAX = 5;

export class Ring {
  #svg;
  #legend;
  #servers = new Map(); // by address: { index, share, points }
  #points = []; // in ring order: { at, server }
  #arcs = new Map(); // by address: [from, to] pairs, as they are drawn
  #paths = new Map();
  #live = new Map();
  #size = 0;
  #replication = 0;
  #key = null; // { label, position, replicas, headline, tone }
  #pinned = null;
  #hovered = null;
  onHighlight = () => {};

  constructor(picture, legend) {
    this.#svg = picture;
    this.#legend = legend;
    this.layers = Object.fromEntries(["ticks", "arcs", "strong", "lines", "middle", "marks"].map((name) => [name, svg("g", { class: name })]));
    picture.append(...Object.values(this.layers));
    new ResizeObserver(() => this.#resize()).observe(picture);
    picture.addEventListener("pointermove", (event) => this.#hover(this.#under(event)));
    picture.addEventListener("pointerleave", () => this.#hover(null));
  }

  /** The answer of GET /ring. */
  load(ring) {
    this.#replication = ring.replication;
    this.#servers = new Map(ring.servers.map((server, index) => [server.server, { ...server, index }]));
    this.#points = ring.points.map(({ position, server }) => ({ at: fraction(position), server }));
    this.#arcs = this.#cut();
    this.#pinned = null;
    this.#hovered = null;
    this.#drawLegend();
    this.#draw();
  }

  hue(server) {
    return hue(this.#servers.get(server)?.index ?? 0);
  }

  share(server) {
    return this.#servers.get(server)?.share ?? null;
  }

  /** Which servers answer, from a snapshot. */
  update(servers) {
    this.#live = new Map(servers.map((server) => [server.server, server.reachable]));
    for (const [server, path] of this.#paths) path.classList.toggle("down", this.#live.get(server) === false);
    for (const button of this.#legend.querySelectorAll("button")) {
      const down = this.#live.get(button.dataset.server) === false;
      button.classList.toggle("down", down);
      button.querySelector(".sr").textContent = down ? ", does not answer" : "";
    }
    this.#describe();
    if (!this.#key) this.#drawMiddle();
  }

  /** Shows a key: `{ label, position, replicas, headline, tone }`, or null. */
  show(key) {
    this.#key = key;
    this.#drawKey();
    this.#describe();
  }

  /** Highlights a server's arcs for as long as it is pointed at or has the focus; null ends it. */
  point(server) {
    this.#hover(server ? { server } : null);
  }

  /** Cuts the circle at the ring points, and merges neighbours of the same server. */
  #cut() {
    const arcs = new Map([...this.#servers.keys()].map((server) => [server, []]));
    const add = (server, from, to) => {
      const own = arcs.get(server);
      const last = own?.at(-1);
      if (last && Math.abs(last[1] - from) < 1e-12) last[1] = to;
      else own?.push([from, to]);
    };
    const points = this.#points;
    if (points.length <= ARCS_MAX) {
      points.forEach(({ at, server }, index) => {
        // The first point's range goes on from the last point, over the top.
        if (index === 0) add(server, points.at(-1).at - 1, at);
        else add(server, points[index - 1].at, at);
      });
      return arcs;
    }
    let index = 0;
    for (let slot = 0; slot < ARCS_MAX; slot += 1) {
      const middle = (slot + 0.5) / ARCS_MAX;
      while (index < points.length && points[index].at < middle) index += 1;
      add(points[index % points.length].server, slot / ARCS_MAX, (slot + 1) / ARCS_MAX);
    }
    return arcs;
  }

  /** A server's own arcs, each of them, however small. */
  #exactArcs(server) {
    const points = this.#points;
    const found = [];
    points.forEach((point, index) => {
      if (point.server === server) found.push([index === 0 ? points.at(-1).at - 1 : points[index - 1].at, point.at]);
    });
    return found;
  }

  #resize() {
    const size = Math.round(this.#svg.clientWidth);
    if (size === this.#size || size === 0) return;
    this.#size = size;
    // A unit is a pixel, so that text has the size that it says.
    this.#svg.setAttribute("viewBox", `${-size / 2} ${-size / 2} ${size} ${size}`);
    this.#draw();
  }

  get #small() {
    return this.#size < 440;
  }

  get #width() {
    return this.#small ? 16 : Math.min(34, this.#size * 0.05);
  }

  /** The middle of the band. */
  get #radius() {
    return this.#size / 2 - (this.#small ? 27 : 34) - this.#width / 2;
  }

  #draw() {
    if (!this.#size || !this.#points.length) return;
    const few = this.#points.length <= 600;
    this.#paths.clear();
    const paths = [];
    for (const [server, arcs] of this.#arcs) {
      const path = svg("path", { class: "arc", d: arcs.map((arc) => this.#arc(arc, few ? 0.7 : 0)).join("") });
      path.style.setProperty("--hue", this.hue(server));
      path.style.strokeWidth = this.#width;
      path.classList.toggle("down", this.#live.get(server) === false);
      this.#paths.set(server, path);
      paths.push(path);
    }
    this.layers.arcs.replaceChildren(...paths);
    this.#drawTicks();
    this.#drawStrong();
    this.#drawKey();
    this.#describe();
  }

  /** An arc along the middle of the band; `gap` pixels are left free at its end. */
  #arc([from, to], gap = 0, radius = this.#radius) {
    const turn = 2 * Math.PI * radius;
    const end = Math.max(to - gap / turn, from + 0.25 / turn);
    // An arc that is a whole circle would begin where it ends, which draws nothing.
    const last = Math.min(end, from + 0.9999);
    const [x1, y1] = polar(from, radius);
    const [x2, y2] = polar(last, radius);
    return `M${x1} ${y1}A${radius} ${radius} 0 ${last - from > 0.5 ? 1 : 0} 1 ${x2} ${y2}`;
  }

  #drawTicks() {
    const inner = this.#radius - this.#width / 2 - 6;
    const ticks = [];
    for (let at = 0; at < 16; at += 1) {
      const [x1, y1] = polar(at / 16, inner);
      const [x2, y2] = polar(at / 16, inner - (at % 4 ? 4 : 8));
      ticks.push(svg("path", { d: `M${x1} ${y1}L${x2} ${y2}` }));
      if (at % 4 === 0) {
        const [x, y] = polar(at / 16, inner - (this.#small ? 15 : 20));
        ticks.push(svg("text", { x, y, dy: ".35em" }, at.toString(16)));
      }
    }
    this.layers.ticks.replaceChildren(...ticks);
  }

  #under(event) {
    const box = this.#svg.getBoundingClientRect();
    const x = event.clientX - box.left - box.width / 2;
    const y = event.clientY - box.top - box.height / 2;
    if (!this.#points.length || Math.abs(Math.hypot(x, y) - this.#radius) > this.#width / 2 + 4) return null;
    const at = (Math.atan2(x, -y) / (2 * Math.PI) + 1) % 1;
    const index = firstAtOrAfter(this.#points, at);
    return { server: this.#points[index].server, index };
  }

  #hover(found) {
    if (found?.server === this.#hovered?.server && found?.index === this.#hovered?.index) return;
    this.#hovered = found;
    this.#drawStrong();
    this.#drawMiddle();
    this.onHighlight(found?.server ?? this.#pinned);
  }

  #pin(server) {
    this.#pinned = this.#pinned === server ? null : server;
    for (const button of this.#legend.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.dataset.server === this.#pinned);
    }
    this.#drawStrong();
    this.#drawMiddle();
    this.onHighlight(this.#hovered?.server ?? this.#pinned);
  }

  /** The arcs of the highlighted server, over the others, which fade. */
  #drawStrong() {
    const server = this.#hovered?.server ?? this.#pinned;
    this.layers.arcs.classList.toggle("faded", Boolean(server));
    if (!server || !this.#size) {
      this.layers.strong.replaceChildren();
      return;
    }
    // At least a pixel wide each, or a server of a thousand could not be seen.
    const least = 1.2 / (2 * Math.PI * this.#radius);
    const arcs = this.#exactArcs(server).map(([from, to]) => this.#arc([Math.min(from, to - least), to], this.#points.length <= 600 ? 0.7 : 0));
    const path = svg("path", { class: "arc strong", d: arcs.join("") });
    path.style.setProperty("--hue", this.hue(server));
    path.style.strokeWidth = this.#width + 6;
    path.classList.toggle("down", this.#live.get(server) === false);
    this.layers.strong.replaceChildren(path);
  }

  #drawLegend() {
    const servers = [...this.#servers.values()];
    const items = servers.slice(0, LEGEND_MAX).map(({ server, index, share }) => {
      const button = html(
        "button",
        {
          type: "button",
          class: "chip",
          "data-server": server,
          "aria-pressed": "false",
          onclick: () => this.#pin(server),
          onfocus: () => this.point(server),
          onblur: () => this.point(null),
          onpointerenter: () => this.point(server),
          onpointerleave: () => this.point(null),
        },
        html("i", { class: "swatch", "aria-hidden": "true" }),
        html("span", { class: "mono" }, server),
        html("span", { class: "hint" }, percent(share)),
        html("span", { class: "sr" }),
      );
      button.style.setProperty("--hue", hue(index));
      return html("li", {}, button);
    });
    if (servers.length > LEGEND_MAX) {
      items.push(html("li", { class: "hint" }, `and ${servers.length - LEGEND_MAX} more, in the table below`));
    }
    this.#legend.replaceChildren(...items);
  }

  #drawKey() {
    this.#drawMiddle();
    if (!this.#size || !this.#key?.position) {
      this.layers.marks.replaceChildren();
      return;
    }
    const { position, replicas } = this.#key;
    const outer = this.#radius + this.#width / 2;
    const at = fraction(position);
    const marks = [];
    // The walk from the key's position clockwise to its last replica.
    if (replicas.length) {
      const ahead = replicas.map((replica) => turnFrom(at, fraction(replica.ring_point)));
      marks.push(svg("path", { class: "walk", d: this.#arc([at, at + Math.max(...ahead, 0.002)], 0, outer + 6) }));
    }
    const [nx, ny] = polar(at, outer + 2);
    marks.push(svg("path", { class: "needle", d: "M0 0L-6 -12H6Z", transform: `translate(${nx} ${ny}) rotate(${at * 360})` }));

    const size = this.#small ? 9 : 11;
    // Replicas often sit side by side: their numbers are moved apart, and a line leads to the point.
    // The first keeps clear of the needle, too.
    const apart = (2 * size + 3) / (2 * Math.PI * (outer + 22));
    let previous = at + apart * 0.1;
    replicas.forEach((replica, index) => {
      const own = at + turnFrom(at, fraction(replica.ring_point));
      const shown = Math.max(own, previous + (index === 0 ? apart * 0.8 : apart));
      previous = shown;
      const [px, py] = polar(own, outer);
      const [ix, iy] = polar(own, outer - this.#width);
      const [qx, qy] = polar(shown, outer + (this.#small ? 16 : 21));
      const group = svg(
        "g",
        { class: `mark ${tone(replica)}` },
        svg("path", { class: "leader", d: `M${ix} ${iy}L${px} ${py}L${qx} ${qy}` }),
        svg("circle", { cx: qx, cy: qy, r: size }),
        svg("text", { x: qx, y: qy, dy: ".35em" }, String(index + 1)),
      );
      group.style.setProperty("--hue", this.hue(replica.server));
      marks.push(group);
    });
    this.layers.marks.replaceChildren(...marks);
  }

  /** The text in the middle: what is pointed at, or the key and its replicas, or the cluster. */
  #drawMiddle() {
    this.layers.lines.replaceChildren();
    if (!this.#size) return;
    const server = this.#hovered?.server ?? this.#pinned;
    if (server && this.#servers.has(server)) this.#drawServer(server);
    else if (this.#key?.position) this.#drawReplicas();
    else this.#drawCluster();
  }

  #text(lines) {
    this.layers.middle.replaceChildren(...lines.filter(Boolean).map(([name, y, text]) => svg("text", { class: name, x: 0, y }, text)));
  }

  #drawCluster() {
    if (!this.#servers.size) return this.#text([]);
    const known = [...this.#live.values()];
    const up = known.filter(Boolean).length;
    const small = this.#small;
    this.#text([
      ["huge", small ? 2 : 4, this.#servers.size.toLocaleString("en")],
      ["label", small ? 20 : 30, this.#servers.size === 1 ? "server" : "servers"],
      ["faint", small ? 42 : 58, `${this.#points.length.toLocaleString("en")} ring points · ${plural(this.#replication, "copy").replace("copys", "copies")}`],
      known.length ? [up === known.length ? "good" : "poor", small ? 60 : 80, up === known.length ? "✓ all answer" : `✕ ${(known.length - up).toLocaleString("en")} ${known.length - up === 1 ? "does" : "do"} not answer`] : null,
    ]);
  }

  #drawServer(server) {
    const { share, ring_points, index } = this.#servers.get(server);
    const down = this.#live.get(server) === false;
    const point = this.#hovered?.index;
    const lines = [
      ["title", -26, server],
      ["faint", -4, `${percent(share)} of all keys · ${plural(ring_points, "ring point")}`],
      [down ? "poor" : "good", 18, down ? "✕ does not answer" : this.#live.has(server) ? "✓ answers" : ""],
    ];
    if (point !== undefined) {
      const end = this.#points[point].at;
      const start = this.#points[(point || this.#points.length) - 1].at;
      lines.push(["faint mono", 44, `keys from ${hexadecimal(start)}… to ${hexadecimal(end)}…`]);
    }
    this.#text(lines);
    this.layers.middle.firstChild.style.setProperty("--hue", hue(index));
  }

  #drawReplicas() {
    const { label, position, replicas, headline, tone: overall } = this.#key;
    const small = this.#small;
    const shown = replicas.slice(0, ROWS_MAX);
    const row = small ? 19 : 28;
    const top = (-row * shown.length) / 2 + row / 2 + (small ? 6 : 8);
    const answered = replicas.some((replica) => replica.status);
    // Where room is short, ports alone tell servers of one host apart.
    const hosts = new Set([...this.#servers.keys()].map((server) => server.split(":")[0]));
    const short = small && hosts.size === 1;
    const width = Math.min(this.#radius * 1.24, answered ? 340 : 230);
    const longest = Math.floor((this.#radius * 1.1) / (small ? 7.5 : 9));
    this.#text([
      ["title", top - row - (small ? 14 : 22), shorten(label, longest)],
      ["faint mono", top - row + (small ? 1 : 0), `${position.slice(0, small ? 10 : 16)}…`],
      replicas.length > ROWS_MAX ? ["faint", top + shown.length * row - 2, `and ${replicas.length - ROWS_MAX} more, in the table`] : null,
      headline && replicas.length <= ROWS_MAX ? [`verdict ${overall}`, top + shown.length * row + (small ? 4 : 10), small ? headline.split(" · ")[0] : headline] : null,
    ]);
    const at = fraction(position);
    const side = at < 0.5 ? 1 : -1;
    const inner = this.#radius - this.#width / 2;
    const lines = [];
    shown.forEach((replica, index) => {
      const y = top + index * row;
      const left = -width / 2;
      const right = width / 2;
      const { tone: own } = replica.status ? verdict(replica) : { tone: "asked" };
      const [x1, y1] = polar(fraction(replica.ring_point), inner);
      const start = side * (width / 2 + 4);
      const [cx, cy] = polar(fraction(replica.ring_point), inner * 0.82);
      const line = svg("path", { class: `thread ${own}`, d: `M${start} ${y}C${start + side * inner * 0.16} ${y} ${cx} ${cy} ${x1} ${y1}` });
      line.style.setProperty("--hue", this.hue(replica.server));
      lines.push(line, svg("circle", { class: `end ${own}`, cx: start, cy: y, r: 2.5 }));
      const number = svg(
        "g",
        { class: "number" },
        svg("circle", { cx: left + 10, cy: y, r: small ? 7 : 9 }),
        svg("text", { x: left + 10, y, dy: ".35em" }, String(index + 1)),
      );
      number.style.setProperty("--hue", this.hue(replica.server));
      const name = svg("text", { class: "server", x: left + (small ? 21 : 28), y, dy: ".35em" }, short ? replica.server.replace(/.*:/, ":") : replica.server);
      const time = (replica.latency_us ?? null) === null || (small && !short) ? "" : duration(replica.latency_us);
      const word = small && (time || !short) ? "" : replica.status;
      const said = replica.status ? [SIGNS[own], word, time].filter(Boolean).join(" ") : "";
      const answer = svg("text", { class: `answer ${own}`, x: right - 4, y, dy: ".35em" }, said);
      this.layers.middle.append(number, name, answer);
    });
    this.layers.lines.replaceChildren(...lines);
  }

  #describe() {
    if (!this.#servers.size) return;
    const down = [...this.#live].filter(([, reachable]) => reachable === false).map(([server]) => server);
    let text = `A ring of ${plural(this.#servers.size, "server")} with ${plural(this.#points.length, "ring point")}.`;
    if (down.length) text += ` ${down.length > 5 ? `${down.length} servers do` : `${down.join(", ")} ${down.length === 1 ? "does" : "do"}`} not answer.`;
    if (this.#key?.position) {
      const list = this.#key.replicas.map((replica) => `${replica.server}${replica.status ? ` ${replica.status}` : ""}`);
      text += ` The key ${this.#key.label} is at ${this.#key.position.slice(0, 8)}; its replicas are ${list.join(", ")}.`;
    }
    if (this.#svg.getAttribute("aria-label") !== text) this.#svg.setAttribute("aria-label", text);
  }
}

const SIGNS = { ok: "✓", warn: "!", bad: "✕", idle: "–" };

const tone = (replica) => (replica.status ? verdict(replica).tone : "asked");

/** A position as a fraction of the ring: the first 52 bits are as fine as a number gets. */
export const fraction = (position) => parseInt(position.slice(0, 13), 16) / 2 ** 52;

const hexadecimal = (at) => Math.floor(at * 2 ** 32).toString(16).padStart(8, "0");

const turnFrom = (from, to) => (to - from + 1) % 1;

function polar(at, radius) {
  const angle = at * 2 * Math.PI;
  return [(Math.sin(angle) * radius).toFixed(2), (-Math.cos(angle) * radius).toFixed(2)];
}

/** The index of the first point at or after a place; past the last comes the first. */
export function firstAtOrAfter(points, at) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].at < at) low = middle + 1;
    else high = middle;
  }
  return low % points.length;
}

function shorten(text, longest) {
  const characters = [...text.replace(/\s+/g, " ")];
  return characters.length <= longest ? characters.join("") : `${characters.slice(0, longest - 1).join("")}…`;
}

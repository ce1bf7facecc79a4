// Draws the history of the last two minutes. Owns the four charts; keeps no samples of its own.

import { html, setText, svg } from "./dom.js";
import { digits, duration } from "./format.js";
import { SECONDS } from "./metrics.js";

const WIDTH = 240;
const HEIGHT = 64;
/** How often the descriptions change: a screen reader must be able to finish one. */
const DESCRIBE_MS = 10_000;

const perSecond = (value) => `${digits(value)}/s`;

const CHARTS = [
  {
    title: "Requests",
    lines: [
      { field: "GET", name: "get", colour: "one" },
      { field: "PUT", name: "put", colour: "two" },
      { field: "DELETE", name: "delete", colour: "three" },
    ],
    show: perSecond,
    brief: digits, // the figure beside it has the unit
    total: true,
    least: 4,
  },
  {
    title: "Latency",
    lines: [
      { field: "p50", name: "p50", colour: "one" },
      { field: "p99", name: "p99", colour: "two" },
    ],
    show: duration,
    least: 1000,
  },
  { title: "Quorum failures", lines: [{ field: "failures", name: "failed", colour: "bad" }], show: perSecond, least: 2 },
  { title: "Read repairs", lines: [{ field: "repairs", name: "repaired", colour: "three" }], show: perSecond, least: 2 },
];

export class Charts {
  #charts;
  #described = -Infinity;

  constructor(container) {
    this.#charts = CHARTS.map((chart) => build(chart, container));
  }

  draw(samples) {
    const now = performance.now();
    const describe = now - this.#described >= DESCRIBE_MS;
    if (describe) this.#described = now;
    for (const chart of this.#charts) update(chart, samples, describe);
  }
}

function build(chart, container) {
  const figure = html("strong", { class: "figure" }, "–");
  const top = html("span", { class: "top" });
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  picture.append(svg("path", { class: "grid-line", d: `M0 .5H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT - 0.5}H${WIDTH}` }));
  const single = chart.lines.length === 1;
  const area = svg("path", { class: `area ${chart.lines[0].colour}` });
  picture.append(area);
  const lines = chart.lines.map((line) => {
    const path = svg("path", { class: `line ${line.colour}` });
    picture.append(path);
    const value = html("span", { class: "value" });
    const label = html("span", { class: "key" }, html("i", { class: line.colour, "aria-hidden": "true" }), line.name, " ", value);
    return { ...line, path, value, label };
  });
  container.append(
    html(
      "div",
      { class: "chart" },
      html("div", { class: "about" }, html("h3", {}, chart.title), html("p", { class: "keys" }, ...(single ? [] : lines.map((line) => line.label)))),
      html("p", {}, figure),
      html("div", { class: "plot" }, top, picture),
    ),
  );
  return { ...chart, figure, top, picture, area, lines };
}

function update(chart, samples, describe) {
  const values = chart.lines.map((line) => samples.map((sample) => sample[line.field] ?? null));
  const greatest = Math.max(0, ...values.flat().map((value) => value ?? 0));
  const top = niceAbove(Math.max(greatest, chart.least));
  const newest = samples.at(-1) ?? {};
  const sum = chart.lines.reduce((total, line) => total + (newest[line.field] ?? 0), newest.other ?? 0);
  const headline = chart.total ? (newest.GET === undefined ? null : sum) : newest[chart.lines[0].field] ?? null;
  setText(chart.figure, headline === null ? "–" : chart.show(headline));
  setText(chart.top, chart.show(top));
  chart.lines.forEach((line, at) => {
    const path = trace(values[at], top);
    line.path.setAttribute("d", path);
    setText(line.value, (newest[line.field] ?? null) === null ? "–" : (chart.brief ?? chart.show)(newest[line.field]));
    if (at === 0) chart.area.setAttribute("d", filled(values[0], top));
  });
  if (describe || !chart.picture.hasAttribute("aria-label")) {
    const parts = chart.lines.map((line, at) => {
      const known = values[at].filter((value) => value !== null);
      if (!known.length) return `${line.name}: nothing yet`;
      return `${line.name}: now ${chart.show(known.at(-1))}, at most ${chart.show(Math.max(...known))}`;
    });
    chart.picture.setAttribute("aria-label", `${chart.title} in the last two minutes. ${parts.join("; ")}.`);
  }
}

const x = (at, length) => (((SECONDS - length + at) / (SECONDS - 1)) * WIDTH).toFixed(1);
const y = (value, top) => (HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1);

/** Runs of known values: where nothing is known there is no line. */
function runs(values) {
  const found = [];
  values.forEach((value, at) => {
    if (value === null) return;
    if (at === 0 || values[at - 1] === null) found.push([]);
    found.at(-1).push(at);
  });
  return found;
}

function trace(values, top) {
  return runs(values)
    .map((run) => {
      const points = run.map((at) => `${x(at, values.length)} ${y(values[at], top)}`);
      // A single second is a dot, which a line of no length with round ends shows.
      return `M${points.join("L")}${run.length === 1 ? "h.01" : ""}`;
    })
    .join("");
}

function filled(values, top) {
  return runs(values)
    .filter((run) => run.length > 1)
    .map((run) => {
      const points = run.map((at) => `${x(at, values.length)} ${y(values[at], top)}`);
      return `M${x(run[0], values.length)} ${HEIGHT}L${points.join("L")}L${x(run.at(-1), values.length)} ${HEIGHT}Z`;
    })
    .join("");
}

/** The next of 1, 2, 5, 10, 20, ...: a scale that stays the same for a while. */
export function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

// Makes elements. Owns no state; text always goes in as text, so nothing that a key, a value or a
// server says can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** An HTML element with attributes (null ones are left out) and children (strings are text). */
export function html(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same in SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children);
  return element;
}

/** Sets text only where it differs: selections stay, and nothing is laid out for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** Says what went wrong, or, with null, that nothing did. */
export function showProblem(element, text) {
  element.hidden = !text;
  element.textContent = text ?? "";
}

/** Calls `run` once it has been quiet for so long, unless `cancel()` comes first. */
export function debounced(milliseconds, run) {
  let timer;
  const later = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...args), milliseconds);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

/** A word with its sign: what is said by colour is said by both of these as well. */
export function badge(tone, text) {
  const sign = { ok: "✓", warn: "!", bad: "✕", idle: "–" }[tone];
  return html("span", { class: `badge ${tone}` }, html("span", { "aria-hidden": "true" }, sign), text);
}

// Requests to the gateway. Owns the access token and how a key becomes a path; knows nothing of
// what is drawn. A problem document is an answer like any other; only a gateway that cannot be
// reached throws.

import { asText, toPercent } from "./bytes.js";

const TOKEN = "dkvs-token";
const listeners = new Set();

export const token = () => sessionStorage.getItem(TOKEN);

export function setToken(value) {
  if (value) {
    sessionStorage.setItem(TOKEN, value);
  } else {
    sessionStorage.removeItem(TOKEN);
  }
}

/**
 * Calls `listener` with the problem whenever a request was refused for want of a token. A refusal of
 * another token than the one that is kept now is old news: it came after another was given.
 */
export const onUnauthorized = (listener) => listeners.add(listener);

/** `fetch` with the token. */
export async function send(path, options = {}) {
  const headers = new Headers(options.headers);
  const sent = token();
  if (sent) headers.set("Authorization", `Bearer ${sent}`);
  const response = await fetch(path, { cache: "no-store", credentials: "omit", ...options, headers });
  if (response.status === 401) {
    const problem = await response.clone().json().catch(() => ({}));
    if (token() === sent) for (const listener of listeners) listener(problem);
  }
  return response;
}

/** Sends, and gives `{ ok, status, body }` with the JSON of the answer. */
export async function ask(path, options) {
  const response = await send(path, options);
  const body = await response.json().catch(() => ({ title: `The gateway answered ${response.status} without a document` }));
  return { ok: response.ok, status: response.status, body };
}

/**
 * The path of a key. The slash is escaped, which is the same key: what a URL takes for `.` and `..`
 * can then be nothing but the whole key, and of those two no browser asks.
 */
export function keyPath(base, key, parameters = {}) {
  const name = asText(key);
  if (name === "." || name === "..") {
    throw new Error(`A browser cannot ask for the key “${name}”: it takes it for a folder. The curl command below can.`);
  }
  return `${base}/${toPercent(key)}${query(parameters)}`;
}

/** `?a=b&c=d` of what is neither null nor empty. */
export function query(parameters) {
  const pairs = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = pairs.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  return text ? `?${text}` : "";
}

/** A problem in a sentence or two: what was wrong, and what to do where that is not plain. */
export function sentence(problem, status) {
  const what = problem.detail ? `${problem.title}: ${problem.detail}` : problem.title ?? `The gateway answered ${status}`;
  // Of a write that may have been applied there is more to say, and its own way on.
  const advice = problem.outcome !== "unknown" && {
    "urn:dkvs:problem:unauthorized": "Enter an access token above.",
    "urn:dkvs:problem:forbidden": "Use a token with that scope, or ask the operator for it.",
    "urn:dkvs:problem:overloaded": "Try again in a few seconds.",
    "urn:dkvs:problem:quorum-unreachable": "Try again when the servers are back, or with a smaller quorum.",
    "urn:dkvs:problem:timeout": "Try again; look at the servers below for those that are silent.",
    "urn:dkvs:problem:replicas-disagree": "Read again if a write is under way; else write the value that it should be.",
    "urn:dkvs:problem:storage-full": "Make room on the servers, or add some.",
    "urn:dkvs:problem:superseded": "Read the key, and write anew if need be.",
  }[problem.type];
  return advice ? `${what.replace(/\.?$/, ".")} ${advice}` : what;
}

export const UNREACHABLE = "The gateway cannot be reached. Is it running? The request may or may not have arrived.";

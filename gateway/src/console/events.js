// The gateway's stream of snapshots. Owns the connection, its parser and when to try again; what
// a snapshot means is for others. `EventSource` would do, but sends no Authorization header.

import { send, sentence } from "./api.js";

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 5000;
/** A snapshot comes each second; this long without a byte, the connection is dead. */
const SILENCE_MS = 5000;

/**
 * Reads snapshots for ever. `onState` hears `live`, `reconnecting`, `unauthorized` or `refused`,
 * with a sentence. `retry()` of what is returned tries at once.
 */
export function follow({ onSnapshot, onState }) {
  let pause = FIRST_PAUSE_MS;
  let wake = () => {};
  let current = new AbortController();

  async function connect() {
    current = new AbortController();
    const { signal } = current;
    let timer;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => current.abort(), SILENCE_MS);
    };
    try {
      alive();
      const response = await send("/events", { signal, headers: { Accept: "text/event-stream" } });
      if (!response.ok) {
        const problem = await response.json().catch(() => ({}));
        const why = sentence(problem, response.status);
        const state = response.status === 401 ? "unauthorized" : response.status === 403 ? "refused" : "reconnecting";
        onState(state, why);
        return;
      }
      const parse = parser((name, data) => {
        if (name !== "snapshot") return;
        pause = FIRST_PAUSE_MS;
        onState("live");
        onSnapshot(JSON.parse(data));
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        alive();
        parse(value);
      }
      onState("reconnecting", "The gateway ended the stream.");
    } catch (error) {
      onState("reconnecting", "The gateway cannot be reached.");
      if (!signal.aborted && !(error instanceof TypeError)) console.error(error);
    } finally {
      clearTimeout(timer);
      // Whatever ended the reading, the connection must not stay open behind it.
      current.abort();
    }
  }

  (async () => {
    for (;;) {
      await connect();
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  })();

  return {
    retry() {
      pause = FIRST_PAUSE_MS;
      current.abort();
      wake();
    },
  };
}

/** The text/event-stream format, fed in pieces of any size; calls `emit(event, data)`. */
export function parser(emit) {
  let rest = "";
  let name = "";
  let data = [];
  return (piece) => {
    rest += piece;
    // A carriage return at the end may be half of a line break.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) emit(name || "message", data.join("\n"));
        name = "";
        data = [];
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "event") name = value;
      if (field === "data") data.push(value);
    }
  };
}

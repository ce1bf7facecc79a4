// Puts the console together: finds the elements, and connects the parts. Each part is a module that
// knows its own elements and is told the rest from here.

import * as access from "./access.js";
import { send, sentence } from "./api.js";
import { Browser } from "./browser.js";
import { Charts } from "./charts.js";
import { byId, debounced, setText } from "./dom.js";
import { follow } from "./events.js";
import { plural } from "./format.js";
import { Helper } from "./helper.js";
import { Inspector } from "./inspector.js";
import { History } from "./metrics.js";
import { majority } from "./quorum.js";
import { Ring } from "./ring.js";
import { Servers } from "./servers.js";
import * as theme from "./theme.js";

const CONNECTION = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  unauthorized: "Needs a token",
  refused: "No live data",
};

theme.start(byId("theme"));

const ring = new Ring(byId("ring"), byId("legend"));
const charts = new Charts(byId("charts"));
const history = new History();
const servers = new Servers(
  {
    head: byId("servers").tHead,
    body: byId("servers").tBodies[0],
    filter: byId("server-filter"),
    summary: byId("servers-summary"),
    all: byId("servers-all"),
    note: byId("embedded-note"),
    problem: byId("servers-problem"),
  },
  ring,
);
const inspector = new Inspector({ form: byId("request"), note: byId("key-note"), result: byId("result"), announce: byId("announce") }, ring);
const helper = new Helper({ promises: byId("promises"), overlap: byId("overlap"), method: byId("curl-method"), copy: byId("copy"), curl: byId("curl") });
const browser = new Browser({
  form: byId("browse"),
  prefix: byId("prefix"),
  start: byId("start"),
  folders: byId("folders"),
  reverse: byId("reverse"),
  body: byId("keys").tBodies[0],
  status: byId("keys-status"),
  problem: byId("browser-problem"),
  next: byId("next"),
  previous: byId("previous"),
});

ring.onHighlight = (server) => servers.highlight(server);
inspector.onChange = () => helper.update(inspector.read());
inspector.onSend = (method) => helper.method(method);
inspector.onWrite = debounced(300, () => browser.refresh());
browser.onChoose = async (key) => {
  byId("inspector").scrollIntoView({ block: "nearest" });
  byId("inspector").focus({ preventScroll: true });
  await inspector.inspect(key);
};
helper.update(inspector.read());

/** The start of the gateway that the ring on the page is of, as soon as a snapshot has told it. */
let ringOf = null;
let ringLoaded = false;

const RING_HINT = byId("ring-hint").textContent;

async function loadRing() {
  ringLoaded = true;
  try {
    const response = await send("/ring");
    const text = await response.text();
    performance.mark("ring-data");
    const body = JSON.parse(text);
    if (!response.ok) {
      setText(byId("ring-hint"), sentence(body, response.status));
      ringLoaded = false;
      return;
    }
    setText(byId("ring-hint"), RING_HINT);
    ring.load(body);
    // The frame after the one that was asked for has the ring on the screen.
    requestAnimationFrame(() => setTimeout(() => {
      performance.mark("ring-painted");
      performance.measure("ring-draw", "ring-data", "ring-painted");
    }));
    if (byId("key").value) inspector.locate();
  } catch {
    ringLoaded = false; // the next snapshot tries again
  }
}

const events = follow({
  onSnapshot(snapshot) {
    // A gateway that was started anew may have other servers.
    const another = ringOf !== null && ringOf !== snapshot.started_ms;
    ringOf = snapshot.started_ms;
    if (another || !ringLoaded) loadRing();
    if (another) browser.refresh();
    history.add(snapshot);
    charts.draw(history.samples);
    ring.update(snapshot.servers);
    servers.update(snapshot);
    const { replication } = snapshot;
    inspector.defaults(replication, majority(replication));
    helper.cluster(replication, snapshot.servers.length);
    setText(byId("facts"), `${plural(snapshot.servers.length, "server")}, ${replication} of which keep each key · version ${snapshot.version}`);
  },
  onState(state, why) {
    const pill = byId("connection");
    setText(pill, CONNECTION[state]);
    pill.dataset.state = state;
    pill.title = why ?? "";
    document.body.classList.toggle("stale", state !== "live");
    if (state === "refused") setText(byId("servers-summary"), why);
  },
});

access.start(
  { section: byId("access"), why: byId("access-why"), form: byId("access-form"), input: byId("token"), forget: byId("forget") },
  () => {
    events.retry();
    loadRing();
    browser.refresh();
    helper.update(inspector.read());
  },
);

loadRing();
browser.refresh();

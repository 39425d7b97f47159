// The page: a stream of figures, three views, and what is asked for while a view is to be seen.

import { quietly } from "./api.js";
import { appearance } from "./appearance.js";
import { Cells } from "./cells.js";
import { Events } from "./events.js";
import { byId, element, say } from "./dom.js";
import { clock } from "./format.js";
import { Flow } from "./flow.js";
import { storedTicks } from "./history.js";
import { Link } from "./link.js";
import { drawStrip, Live } from "./live.js";
import { keep, keyOf, received } from "./metrics.js";
import { Models } from "./models.js";
import { Ring } from "./ring.js";
import { Stream } from "./stream.js";
import { followTheme } from "./theme.js";
import { Ues } from "./ues.js";
import { Warnings } from "./warnings.js";

const TICKS = 3600; // an hour, and of what was before what the gNB has stored
const WINDOWS = [2, 5, 10, 30, 60, 600]; // seconds
const SPANS = { "2 min": 120, "10 min": 600, "1 h": 3600, all: Infinity };
const SPAN = "10 min";
const REFRESH_MS = 2000;
const VIEWS = ["live", "ues", "models", "link"];

const ring = new Ring(TICKS, null);
const events = new Events(document.querySelectorAll("[data-events]"));
const live = new Live(ring, () => events.marks());
const cells = new Cells(() => live.instead(cells.shown));
const ues = new Ues();
const models = new Models();
const link = new Link(ring, () => events.marks());
const flow = new Flow();
const warnings = new Warnings();
const stream = new Stream(take, showState);
let view = "";
let behind = true; // what the gNB has stored is still to be asked for

function take(answer) {
  const { overall, schemes, window_s: window } = answer;
  const cameIn = schemes.reduce((sum, row) => sum + received(row, window), 0);
  ring.push({
    time: answer.at,
    rows: Object.fromEntries(schemes.map((row) => [keyOf(row), keep(row)])),
    overall: {
      received: cameIn,
      decoded: overall.reports_per_s,
      p50: overall.latency_ms.p50,
      p99: overall.latency_ms.p99,
      offered: overall.offered_reports_per_s,
      age: overall.age_ms?.p50,
    },
  });
  for (const row of schemes) // in the gNB's order, so that colours are the same in every view
    appearance(row.scheme, row.version ?? 1, row.version === null ? null : keyOf(row));
  if (behind) catchUp(answer);
  say(byId("cell"), `cell ${answer.cell}`);
  if (!byId("window").value) byId("window").value = window;
  live.take(answer);
  models.take(answer);
  flow.take(answer);
  link.take(answer);
  ues.offer(schemes.map(({ scheme }) => scheme));
  drawStrip(byId("strip"), answer);
  warnings.take(answer);
  ({ live, link })[view]?.draw();
}

/** Fill the charts with what the gNB has stored of the time when the page did not hear it. */
async function catchUp({ schemes, window_s: window }) {
  behind = false;
  const found = await quietly(storedTicks(window, schemes.filter(({ version }) => version !== null)));
  behind = found === undefined;
  if (behind) return;
  ring.fill(found.ticks);
  for (const shown of [live, link]) shown.pool(found.pooled);
}

function showState(state, since) {
  byId("state").dataset.state = state;
  const texts = {
    connecting: "connecting",
    live: "live",
    paused: `paused since ${clock(since)}`,
    away: `gNB away since ${clock(since)}, trying again`,
  };
  say(byId("state-text"), texts[state]);
  byId("content").classList.toggle("stale", state === "away");
  if (state === "away" && ring.ticks.length) ring.push({ time: since, rows: {}, overall: null });
  if (state === "live") refresh();
  else behind = true;
}

/** Ask for what the view shows beside the stream; while the gNB is away, or the page hidden, nothing. */
async function refresh() {
  if (stream.state !== "live" || document.hidden) return;
  const of = { live: [flow, cells], ues: [ues], models: [models], link: [link] }[view];
  await Promise.all([events, warnings, ...of].map((shown) => quietly(shown.refresh())));
}

/** Show the view that the address names: #live, #ues, #ues/7, #models, #link, #link/7. */
function show() {
  const [name, number] = location.hash.slice(1).split("/");
  const ue = /^\d+$/.test(number ?? "") ? Number(number) : null;
  const wanted = VIEWS.includes(name) ? name : VIEWS[0];
  const moved = view && view !== wanted;
  view = wanted;
  for (const other of VIEWS) byId(`view-${other}`).hidden = other !== view;
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "ues") ues.choose(ue);
  if (view === "link") link.choose(ue);
  if (view === "live") live.draw();
  if (moved) byId("content").focus({ preventScroll: true });
  refresh();
}

const windows = byId("window");
windows.append(...WINDOWS.map((seconds) => element("option", { value: seconds, text: `${seconds} s` })));
windows.value = "";
windows.addEventListener("change", () => {
  stream.open(windows.value);
  cells.again();
});
const spans = byId("span");
spans.append(...Object.keys(SPANS).map((text) => element("option", { text })));
spans.addEventListener("change", () => {
  live.span = SPANS[spans.value];
  live.draw();
});
spans.value = SPAN;
live.span = SPANS[SPAN];
byId("pause").addEventListener("click", () => {
  const pausing = stream.state !== "paused";
  byId("pause").setAttribute("aria-pressed", String(pausing));
  if (pausing) stream.pause();
  else stream.open();
});
followTheme(() => {
  ({ live, link })[view]?.draw();
  refresh();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which view it is
  byId("content").focus();
});
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, REFRESH_MS);
show();
stream.open();

// The page: a stream of figures, three views, and what is asked for while a view is to be seen.

import { quietly } from "./api.js";
import { Events } from "./events.js";
import { byId, element, say } from "./dom.js";
import { brief, clock } from "./format.js";
import { drawStrip, Live } from "./live.js";
import { keep, keyOf, received } from "./metrics.js";
import { Models } from "./models.js";
import { Ring } from "./ring.js";
import { Stream } from "./stream.js";
import { followTheme } from "./theme.js";
import { Ues } from "./ues.js";

const TICKS = 600; // ten minutes
const WINDOWS = [2, 5, 10, 30, 60, 600]; // seconds
const REFRESH_MS = 2000;
const VIEWS = ["live", "ues", "models"];

const ring = new Ring(TICKS);
const events = new Events(document.querySelectorAll("[data-events]"));
const live = new Live(ring, () => events.marks());
const ues = new Ues();
const models = new Models();
const stream = new Stream(take, showState);
let view = "";

function take(answer) {
  const { overall, schemes, window_s: window } = answer;
  const cameIn = schemes.reduce((sum, row) => sum + received(row, window), 0);
  ring.push({
    time: Date.now() / 1000,
    rows: Object.fromEntries(schemes.map((row) => [keyOf(row), keep(row)])),
    overall: {
      received: cameIn,
      decoded: overall.reports_per_s,
      p50: overall.latency_ms.p50,
      p99: overall.latency_ms.p99,
    },
  });
  if (!byId("window").value) byId("window").value = window;
  live.take(answer);
  models.take(answer);
  ues.offer(schemes.map(({ scheme }) => scheme));
  drawStrip(byId("strip"), answer, cameIn);
  if (view === "live") live.draw();
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
}

/** Ask for what the view shows beside the stream; while the gNB is away, or the page hidden, nothing. */
async function refresh() {
  if (stream.state !== "live" || document.hidden) return;
  const of = { ues, models }[view];
  await Promise.all([quietly(events.refresh()), quietly(of?.refresh())]);
}

/** Show the view that the address names: #live, #ues, #ues/7, #models. */
function show() {
  const [name, ue] = location.hash.slice(1).split("/");
  const wanted = VIEWS.includes(name) ? name : VIEWS[0];
  const moved = view && view !== wanted;
  view = wanted;
  for (const other of VIEWS) byId(`view-${other}`).hidden = other !== view;
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "ues") ues.choose(/^\d+$/.test(ue ?? "") ? Number(ue) : null);
  if (view === "live") live.draw();
  if (moved) byId("content").focus({ preventScroll: true });
  refresh();
}

const windows = byId("window");
windows.append(...WINDOWS.map((seconds) => element("option", { value: seconds, text: `${brief(seconds)} s` })));
windows.value = "";
windows.addEventListener("change", () => stream.open(windows.value));
byId("pause").addEventListener("click", () => {
  const pausing = stream.state !== "paused";
  byId("pause").setAttribute("aria-pressed", String(pausing));
  if (pausing) stream.pause();
  else stream.open();
});
followTheme(() => {
  if (view === "live") live.draw();
  else refresh();
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

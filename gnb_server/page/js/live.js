// The view `Live`: NMSE over time, the plane, the table of schemes and versions, rate and latency.

import { appearance, colour, drawMark } from "./appearance.js";
import { decades, fromZero, roomy, TimeChart } from "./charts.js";
import { byId, element, fill, keyed, say } from "./dom.js";
import { brief, clock, count, fixed, NONE, plusMinus, scaled } from "./format.js";
import { pooledLine } from "./history.js";
import { keyOf, METRICS, nameOf } from "./metrics.js";
import { Plane } from "./plane.js";

const decibels = (value) => fixed(value, 2);

export class Live {
  /** `ring`: of ticks; `marks()`: [{time, text}] for the charts. */
  constructor(ring, marks) {
    this.ring = ring;
    this.marks = marks;
    this.hiddenKeys = new Set();
    this.metric = METRICS.nmse;
    this.rows = [];
    this.pooled = [];
    this.stored = null;
    this.span = Infinity;
    this.history = new TimeChart(byId("history-chart"), { format: decibels, range: roomy(0.5), clock });
    this.plane = new Plane(byId("plane-chart"));
    this.rate = new TimeChart(byId("rate-chart"), { format: brief, range: fromZero, clock });
    this.latency = new TimeChart(byId("latency-chart"), { format: brief, range: decades, log: true, clock });
    const choice = byId("metric");
    choice.append(...Object.entries(METRICS).map(([value, { label }]) => element("option", { value, text: label })));
    choice.addEventListener("change", () => this.#choose(choice.value));
    this.#choose(choice.value);
  }

  #choose(name) {
    this.metric = METRICS[name];
    this.history.format = this.metric.unit ? decibels : (value) => fixed(value, 3);
    this.history.range = roomy(this.metric.unit ? 0.5 : 0.02);
    this.history.built = "";
    const { short, unit } = this.metric;
    const bars = "bars: ± 2 standard errors";
    for (const [id, text, about] of [
      ["history-title", `${short} over time `, unit],
      ["plane-title", `${short} and feedback bits `, unit ? `${unit}, ${bars}` : bars],
    ])
      byId(id).replaceChildren(text, element("span", { class: "unit", text: about }));
    this.draw();
  }

  /** Draw these series too, as `storedTicks` returns them. */
  pool(series) {
    this.pooled = series;
  }

  /** Show {rows, ring, pooled} in chart, plane and table, instead of what the stream brings; null: that again. */
  instead(stored) {
    this.stored = stored;
    this.draw();
  }

  /** Take the figures of a tick. */
  take(answer) {
    this.rows = answer.schemes.filter((row) => row.version !== null);
  }

  /** Show what was taken last; to be called while the view is to be seen, and when it comes to be. */
  draw() {
    const metricName = Object.keys(METRICS).find((name) => METRICS[name] === this.metric);
    const { rows: figures, ring, pooled } = this.stored ?? this;
    const rows = figures.map((row) => {
      const key = keyOf(row);
      return { ...row, key, name: nameOf(row, figures), look: appearance(row.scheme, row.version, key) };
    });
    rows.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    const drawn = rows.filter(({ key }) => !this.hiddenKeys.has(key));
    const lines = drawn
      .filter(
        (row) =>
          this.metric.value(row) !== null || ring.ticks.some(({ rows: r }) => r[row.key]?.[metricName] != null),
      )
      .map(({ key, name, look }) => ({ key, name, look, read: (tick) => tick.rows[key]?.[metricName] }));
    lines.push(...pooled.map((series) => pooledLine(series, metricName)));
    this.history.draw(ring, lines, this.stored ? [] : this.marks(), this.span);
    this.plane.draw(
      drawn.map((row) => ({
        name: row.name,
        look: row.look,
        bits: row.feedback_bits,
        low: row.feedback_bits_p5 ?? null,
        high: row.feedback_bits_p95 ?? null,
        value: this.metric.value(row),
        error: this.metric.error(row),
      })),
      this.metric,
    );
    this.#drawLoad();
    this.#drawTable(rows.filter(({ reports, ues_attached: ues }) => reports || ues)); // what is over has its line left
    const without = rows.filter((row) => row.reports && this.metric.value(row) === null).map(({ name }) => name);
    const notes = without.length ? [`${without.join(", ")}: precoders have no scale and so no NMSE; see SGCS`] : [];
    if (this.stored && this.metric === METRICS.last) notes.push("NMSE at t = T is not stored over time");
    say(byId("metric-note"), notes.join("; "));
  }

  #drawLoad() {
    const line = (key, name, look, read) => ({ key, name, look, read: ({ overall }) => overall && read(overall) });
    const plain = (name, dash = []) => ({ colour: colour(name), dash });
    const known = (name) => this.ring.ticks.some(({ overall }) => overall?.[name]);
    const reports = [
      line("received", "received", plain("series-6", [3, 3]), ({ received }) => received),
      line("decoded", "decoded", plain("series-0"), ({ decoded }) => decoded),
    ];
    if (known("offered"))
      reports.unshift(line("offered", "offered", plain("series-4", [7, 4]), ({ offered }) => offered));
    this.rate.draw(this.ring, reports, [], this.span);
    const times = [
      line("p50", "latency p50", plain("series-0"), ({ p50 }) => p50 || null),
      line("p99", "latency p99", plain("series-1", [7, 4]), ({ p99 }) => p99 || null),
    ];
    if (known("age")) times.push(line("age", "age p50", plain("series-3", [2, 3]), ({ age }) => age || null));
    this.latency.draw(this.ring, times, [], this.span);
  }

  #drawTable(rows) {
    byId("figures-note").hidden = rows.length > 0 || this.stored !== null;
    byId("figures").toggleAttribute("data-stored", this.stored !== null);
    say(byId("decoded-unit"), this.stored ? "reports" : "1/s");
    byId("figures").toggleAttribute("data-without-age", !rows.some(({ age_ms: age }) => age?.p50 != null));
    keyed(
      byId("figures").tBodies[0],
      rows,
      ({ key }) => key,
      (row) => this.#makeRow(row),
      (tr, row) => {
        const [name, scenario, nmse, last, sgcs, bits, wire, ues, rate, dropped, latency, age, aged] = tr.cells;
        say(name.querySelector("span"), row.name);
        drawMark(name.querySelector("canvas"), row.look);
        fill(scenario, row.scenario);
        fill(nmse, fixed(row.nmse_db, 2), plusMinus(row.nmse_se_db, 2));
        fill(last, fixed(METRICS.last.value(row), 2), plusMinus(METRICS.last.error(row), 2));
        fill(sgcs, fixed(row.sgcs, 3));
        const spread = row.feedback_bits_p5 === undefined || row.feedback_bits_p5 === row.feedback_bits_p95;
        fill(
          bits,
          count(row.feedback_bits),
          spread ? "" : ` ${count(row.feedback_bits_p5)} to ${count(row.feedback_bits_p95)}`,
        );
        fill(wire, brief(row.wire_bytes));
        if (this.stored) {
          fill(ues, count(row.ues)); // which of them are attached, and rates, are not stored
          fill(rate, count(row.reports));
        } else {
          fill(ues, count(row.ues_attached), row.ues === row.ues_attached ? "" : ` of ${count(row.ues)}`);
          const { offered_reports_per_s: offered } = row;
          fill(rate, brief(row.reports_per_s), offered ? ` of ${brief(offered)}` : "");
        }
        rate.classList.toggle("bad", row.rate_held === false);
        fill(dropped, count(row.dropped));
        fill(latency, percentiles(row.latency_ms));
        fill(age, percentiles(row.age_ms));
        fill(aged, fixed(row.aged_nmse_db, 2));
      },
    );
  }

  #makeRow({ key, name }) {
    const box = element("input", {
      type: "checkbox",
      checked: !this.hiddenKeys.has(key),
      "aria-label": `draw ${name}`,
    });
    box.addEventListener("change", () => {
      if (box.checked) this.hiddenKeys.delete(key);
      else this.hiddenKeys.add(key);
      this.draw();
    });
    const label = element(
      "label",
      {},
      box,
      element("canvas", { class: "mark", "aria-hidden": "true" }),
      element("span"),
    );
    const numbers = Array.from({ length: 11 }, () => element("td", { class: "number" }));
    return element(
      "tr",
      { onmouseenter: () => this.history.focus(key), onmouseleave: () => this.history.focus(null) },
      element("th", { scope: "row" }, label),
      element("td"),
      ...numbers,
    );
  }
}

/** The strip of sums over all UEs. */
export function drawStrip(strip, answer) {
  const { overall } = answer;
  const bits = answer.schemes.reduce((sum, row) => sum + row.feedback_bits * row.reports_per_s, 0);
  const bytes = answer.schemes.reduce((sum, row) => sum + (row.wire_bytes ?? 0) * row.reports_per_s, 0);
  const offered = overall.offered_reports_per_s;
  const pairs = [
    ["UEs attached", count(overall.ues_attached), `of ${count(overall.ues)}`],
    ["Reports decoded", brief(overall.reports_per_s), offered ? `of ${brief(offered)} 1/s` : "1/s"],
    ["Dropped", count(overall.dropped), answer.window_s ? `in ${brief(answer.window_s)} s` : ""],
    ["Feedback", ...scaled(bits, "bit/s")],
    ["On the wire", ...scaled(bytes, "B/s")],
    ["Latency p50 / p99", ...durations(overall.latency_ms)],
  ];
  if (overall.queue_ms?.p50 != null) pairs.push(["Queue p50 / p99", ...durations(overall.queue_ms)]);
  if (overall.age_ms?.p50 != null) pairs.push(["Age p50 / p99", ...durations(overall.age_ms)]);
  drawPairs(strip, pairs);
}

/** “2.6 / 16”: median and 99th percentile. */
export function percentiles(times) {
  return times?.p50 == null ? NONE : `${brief(times.p50)} / ${brief(times.p99)}`;
}

const LONG_MS = 10_000;

/** The same with its unit, long ones in seconds. */
export function durations(times) {
  if (!(times?.p99 >= LONG_MS)) return [percentiles(times), "ms"];
  return [percentiles({ p50: times.p50 / 1000, p99: times.p99 / 1000 }), "s"];
}

/** Term, value and unit, each in its place of a description list. */
export function drawPairs(list, pairs) {
  keyed(
    list,
    pairs,
    ([term]) => term,
    ([term]) => element("div", {}, element("dt", { text: term }), element("dd")),
    (pair, row) => {
      const [, value, unit] = row;
      const text = `${value} ${unit}`;
      if (pair.lastChild.textContent !== text)
        pair.lastChild.replaceChildren(`${value} `, element("span", { class: "unit", text: unit }));
    },
  );
}

// The view `Link`: fleets, and what may be done to the reports of one: bits flipped, reports lost, bits that they may take.

import { airFields, airWords } from "./air.js";
import { get, quietly } from "./api.js";
import { appearance } from "./appearance.js";
import { roomy, TimeChart } from "./charts.js";
import { askToken } from "./dialogs.js";
import { byId, element, fill, keyed, say } from "./dom.js";
import { brief, clock, count, fixed, NONE } from "./format.js";
import { pooledLine } from "./history.js";
import { Knobs } from "./knobs.js";
import { drawPairs } from "./live.js";
import { keyOf, METRICS, nameOf, quality } from "./metrics.js";
import { notice } from "./notices.js";

const SHOWN = 200; // fleets
const SPAN_S = 120; // of the chart
const LINKS = {
  Undisturbed: {},
  "Bit errors 0.1 %": { ber: "1e-3" },
  "Bit errors 1 %": { ber: "1e-2" },
  "1 % lost": { loss: "0.01" },
  "10 % lost": { loss: "0.1" },
  "30 % lost in bursts": { loss: "0.3", burst: "5" },
};

export class Link {
  /** `ring`: of ticks; `marks()`: [{time, text}] for the chart. */
  constructor(ring, marks) {
    Object.assign(this, { ring, marks, rows: [], pooled: [], ue: null });
    this.chart = new TimeChart(byId("fleet-chart"), {
      format: (value) => fixed(value, 2),
      range: (...bounds) => roomy(this.metric === "sgcs" ? 0.02 : 0.5)(...bounds),
      clock,
    });
    const path = (knob) => () => `v1/fleets/${this.ue}/${knob}`;
    this.air = new Knobs(byId("air-form"), {
      group: byId("air-presets"),
      presets: LINKS,
      path: path("air"),
      body: (values) => ({ air: airText(values) }),
      done: (answer) => this.#done(`${answer.scheme}: the link is ${airWords(answer.air)}, ${from(answer)}.`),
      askToken,
    });
    this.rate = new Knobs(byId("rate-form"), {
      group: byId("rate-presets"),
      presets: {},
      path: path("rate"),
      body: (values) => Object.fromEntries(Object.entries(values).map(([name, text]) => [name, number(text)])),
      done: (answer) => this.#done(`${answer.scheme}: the rate is ${rateText(answer.rate)} from the next frames on.`),
      askToken,
    });
  }

  /** Take the figures of a tick. */
  take(answer) {
    this.rows = answer.schemes.filter((row) => row.version !== null);
  }

  /** Draw these series too, which `fillGaps` has returned. */
  pool(series) {
    this.pooled = series;
  }

  /** Show the fleet of a UE, or (null) none. */
  choose(ue) {
    if (ue === this.ue) return;
    this.ue = ue;
    this.air.reset();
    this.rate.reset();
    byId("fleet-content").hidden = true;
    byId("fleet").toggleAttribute("data-empty", ue === null);
    if (ue !== null) byId("fleet").scrollIntoView({ block: "nearest" });
    say(byId("fleet-title"), "One fleet");
    say(byId("fleet-note"), ue === null ? "Choose a fleet in the table to disturb its link, or to change its rate." : "");
  }

  async refresh() {
    const { fleets, total } = await get(`v1/fleets?limit=${SHOWN}`);
    this.#showFleets(fleets, total);
    const asked = this.ue;
    if (asked === null) return;
    const fleet = fleets.find((one) => holds(one, asked));
    byId("fleet-content").hidden = !fleet;
    if (!fleet) {
      say(byId("fleet-note"), `UE ${asked} is of no fleet that the gNB holds.`);
      return;
    }
    const [air, rate] = await Promise.all(["air", "rate"].map((knob) => quietly(get(`v1/fleets/${asked}/${knob}`))));
    if (asked !== this.ue) return; // another was chosen meanwhile
    say(byId("fleet-title"), `${fleet.scheme}, ${range(fleet)}`);
    say(byId("fleet-note"), `${fleet.scenario}, seed ${fleet.seed}, encoder ${fleet.encoder_id}`);
    this.fleet = fleet;
    if (air) this.#showAir(air);
    if (rate) this.#showRate(rate);
    this.draw();
  }

  /** Show the figures that were taken last; to be called while the view is to be seen. */
  draw() {
    if (byId("fleet-content").hidden || !this.fleet) return;
    const rows = this.rows.filter((row) => alike(this.fleet, row));
    const now = rows.find((row) => (row.air ?? "") === (this.fleet.air ?? "") && row.reports) ?? {};
    const metric = now.nmse_db === null ? "sgcs" : "nmse";
    this.metric = metric;
    const { short, unit } = METRICS[metric];
    say(byId("fleet-chart-title"), `${short} of the UEs in these conditions${unit && `, ${unit}`}`);
    const [value, error] = quality(now, NONE);
    drawPairs(byId("fleet-strip"), [
      [`${short} now`, value + (metric === "nmse" ? (error ?? "") : ""), unit],
      ["Feedback", count(now.feedback_bits), "bits a report"],
      ["Decoded", brief(now.reports_per_s), "1/s"],
      ["Corrupted", count(now.air_corrupted), ""],
      ["Detected", count(now.air_detected), ""],
      ["Lost", count(now.air_lost), now.reports ? `of ${count(now.reports)}` : ""],
    ]);
    const lines = rows.map((row) => {
      const key = keyOf(row);
      const look = appearance(row.scheme, row.version, key);
      return { key, name: nameOf(row, rows), look, read: (tick) => tick.rows[key]?.[metric] };
    });
    const pooled = this.pooled.filter(({ scheme }) => scheme === this.fleet.scheme);
    lines.push(...pooled.map((series) => pooledLine(series, metric)));
    const marks = this.marks().filter(({ model }) => model === this.fleet.scheme);
    this.chart.draw(this.ring, lines, marks, SPAN_S);
  }

  #done(text) {
    notice(text);
    quietly(this.refresh());
  }

  #showAir({ air, ...since }) {
    say(byId("air-now"), `Now ${airWords(air)}, ${from(since)}.`);
    this.air.show(airFields(air));
  }

  #showRate({ rate, asked, least_bits: least, most_bits: most, steps }) {
    const fixedRate = least === most && !steps;
    const bits = asked.map((run) => run.bits);
    const comesTo = bits.length ? `, which comes to at most ${span(bits)} bits` : "";
    say(
      byId("bits-now"),
      fixedRate
        ? `Its reports have ${count(most)} bits; the scheme has no other rate.`
        : `Now ${rateText(rate)}${comesTo}. It can have ${count(least)} to ${count(most)} bits${steps ? `, steps 0 to ${count(steps - 1)}` : ""}.`,
    );
    for (const part of byId("rate-form").querySelectorAll(".presets, .fields, .actions")) part.hidden = fixedRate;
    this.rate.offer({
      "Its own": {},
      "Half of the bits": { bits: String(Math.round((least + most) / 2)) },
      "Target −10 dB": { target_nmse_db: "-10" },
      "Target −15 dB": { target_nmse_db: "-15" },
    });
    this.rate.show(Object.fromEntries(Object.entries(rate).map(([name, value]) => [name, String(value ?? "")])));
  }

  #showFleets(fleets, total) {
    byId("fleets-note").hidden = fleets.length > 0 && total <= SHOWN;
    say(byId("fleets-note"), total ? `The first ${SHOWN} of ${count(total)}.` : "No UE has attached yet.");
    keyed(
      byId("fleets-table").tBodies[0],
      fleets,
      ({ first_ue: first }) => first,
      ({ first_ue: first, ...fleet }) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, element("a", { href: `#link/${first}`, text: ues({ first_ue: first, ...fleet }) })),
          ...["", "", "number", "number", ""].map((name) => element("td", { class: name || null })),
        ),
      (tr, fleet) => {
        const [, scheme, air, nmse, bits, scenario] = tr.cells;
        const here = this.rows.filter((row) => alike(fleet, row) && (row.air ?? "") === (fleet.air ?? "") && row.reports);
        tr.classList.toggle("chosen", this.ue !== null && holds(fleet, this.ue));
        fill(scheme, fleet.scheme, fleet.status === "attached" ? "" : ` ${fleet.status}`);
        fill(air, airWords(fleet.air));
        air.className = fleet.air ? "warn wrap" : "quiet";
        fill(nmse, ...(here.length === 1 ? quality(here[0], NONE) : [here.length ? "several" : NONE]));
        fill(bits, here.length ? count(here[0].feedback_bits) : NONE);
        fill(scenario, fleet.scenario, fleet.delay_slots ? ` delay ${fleet.delay_slots}` : "");
      },
    );
  }
}

/** Whether a row has the figures of a fleet, in any link. */
const alike = (fleet, row) =>
  ["scheme", "scenario", "seed", "delay_slots"].every((part) => row[part] === fleet[part]);
const holds = ({ first_ue: first, ue_count: ues }, ue) => first <= ue && ue < first + ues;
const ues = ({ first_ue: first, ue_count: count }) => (count === 1 ? `${first}` : `${first} to ${first + count - 1}`);
const range = (fleet) => (fleet.ue_count === 1 ? `UE ${ues(fleet)}` : `UEs ${ues(fleet)}`);
const from = ({ from_frame: frame }) => (frame ? `from frame ${count(frame)} on` : "from the beginning");
const airText = (values) =>
  Object.entries(values)
    .map(([name, value]) => `${name}=${value}`)
    .join();

/** A number as people write it; what is none stays text, which the gNB refuses by name. */
function number(text) {
  const value = Number(text.replace("−", "-"));
  return Number.isNaN(value) ? text : value;
}

/** “its own”, “at most 392 bits”. */
function rateText({ bits, step, target_nmse_db: target }) {
  const parts = [];
  if (target !== null) parts.push(`a target of ${fixed(target, 1)} dB`);
  if (step !== null) parts.push(`step ${step}`);
  if (bits !== null) parts.push(`at most ${count(bits)} bits`);
  return parts.join(", ") || "its own";
}

function span(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return least === most ? count(most) : `${count(least)} to ${count(most)}`;
}

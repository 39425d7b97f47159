// One fleet: the figures of its UEs, and knobs of their reports: bits flipped, reports lost or late, their bits.

import { airFields, airWords } from "./air.js";
import { get, quietly } from "./api.js";
import { appearance } from "./appearance.js";
import { roomy, TimeChart } from "./charts.js";
import { askToken } from "./dialogs.js";
import { byId, say } from "./dom.js";
import { brief, clock, count, fixed, NONE } from "./format.js";
import { pooledLine } from "./history.js";
import { Knobs } from "./knobs.js";
import { drawPairs, durations } from "./live.js";
import { keyOf, METRICS, nameOf, quality } from "./metrics.js";
import { notice } from "./notices.js";

const SPAN_S = 120; // of the chart
const LINKS = {
  Undisturbed: {},
  "Bit errors 0.1 %": { ber: "1e-3" },
  "Bit errors 1 %": { ber: "1e-2" },
  "1 % lost": { loss: "0.01" },
  "10 % lost": { loss: "0.1" },
  "30 % lost in bursts": { loss: "0.3", burst: "5" },
  "4 slots late": { delay: "4" },
};
const CHOOSE = "Choose a fleet in the table to disturb its link, or to change its rate.";

/** Whether a row of the stream is of a fleet's conditions, over any link, or over the one that it has now. */
export const alike = (fleet, row) =>
  ["scheme", "scenario", "seed"].every((part) => row[part] === fleet[part]);
export const alikeNow = (fleet, row) =>
  alike(fleet, row) && (row.air ?? "") === (fleet.air ?? "") && row.version !== null && row.reports > 0;

export const holds = ({ first_ue: first, ue_count: ues }, ue) => first <= ue && ue < first + ues;

/** “8 to 15”. */
export const range = ({ first_ue: first, ue_count: ues }) =>
  ues === 1 ? `${first}` : `${first} to ${first + ues - 1}`;

export class Fleet {
  /** `ring`: of ticks; `marks()`: [{time, text, model}] for the chart; `changed()` after something was set. */
  constructor(ring, marks, changed) {
    Object.assign(this, { ring, marks, changed, ue: null, fleet: null, pooled: [], metric: "nmse" });
    this.chart = new TimeChart(byId("fleet-chart"), {
      format: (value) => fixed(value, METRICS[this.metric].digits),
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
      done: (answer) => this.#done(`${answer.scheme}: the rate is ${rateText(answer.rate)}, from the next frames on.`),
      askToken,
    });
  }

  /** Show the fleet of a UE from now on; null for none. */
  choose(ue) {
    if (ue === this.ue) return;
    Object.assign(this, { ue, fleet: null });
    this.air.reset();
    this.rate.reset();
    byId("fleet-content").hidden = true;
    byId("fleet").toggleAttribute("data-empty", ue === null);
    if (ue !== null) byId("fleet").scrollIntoView({ block: "nearest" });
    say(byId("fleet-title"), "One fleet");
    say(byId("fleet-note"), ue === null ? CHOOSE : "");
  }

  /** Ask for what may be done to it; it is among `fleets` of /v1/fleets. */
  async refresh(fleets) {
    const asked = this.ue;
    if (asked === null) return;
    const fleet = fleets.find((one) => holds(one, asked));
    byId("fleet-content").hidden = !fleet;
    if (!fleet) {
      say(byId("fleet-note"), `UE ${asked} is of none of the fleets in the table.`);
      return;
    }
    const [air, rate] = await Promise.all(["air", "rate"].map((knob) => quietly(get(`v1/fleets/${asked}/${knob}`))));
    if (asked !== this.ue) return; // another was chosen meanwhile
    this.fleet = fleet;
    say(byId("fleet-title"), `${fleet.scheme}, ${fleet.ue_count === 1 ? "UE" : "UEs"} ${range(fleet)}`);
    say(byId("fleet-note"), `${fleet.scenario}, seed ${fleet.seed}, encoder ${fleet.encoder_id}`);
    if (air) this.#showAir(air);
    if (rate) this.#showRate(rate);
  }

  /** Show the figures of the stream's rows; to be called while the view is to be seen. */
  draw(all) {
    if (!this.fleet) return;
    const rows = all.filter((row) => alike(this.fleet, row) && row.version !== null);
    const now = rows.find((row) => alikeNow(this.fleet, row)) ?? {};
    this.metric = now.nmse_db === null ? "sgcs" : "nmse";
    const { short, unit } = METRICS[this.metric];
    say(byId("fleet-chart-title"), `${short} of the UEs in these conditions${unit && `, ${unit}`}`);
    const [value, error] = quality(now, NONE);
    const { offered_reports_per_s: offered } = this.fleet;
    drawPairs(byId("fleet-strip"), [
      [`${short} now`, unit ? value + (error ?? "") : value, unit],
      ["Feedback", count(now.feedback_bits), "bits a report"],
      ["Decoded", brief(this.fleet.reports_per_s), offered ? `of ${brief(offered)} 1/s` : "1/s"],
      ["Age p50 / p99", ...durations(this.fleet.age_ms)],
      ["Corrupted", count(now.air_corrupted), ""],
      ["Detected", count(now.air_detected), ""],
      ["Lost", count(now.air_lost), now.reports ? `of ${count(now.reports)}` : ""],
    ]);
    const lines = rows.map((row) => {
      const key = keyOf(row);
      const look = appearance(row.scheme, row.version, key);
      return { key, name: nameOf(row, rows), look, read: (tick) => tick.rows[key]?.[this.metric] };
    });
    const pooled = this.pooled.filter(({ scheme }) => scheme === this.fleet.scheme);
    lines.push(...pooled.map((series) => pooledLine(series, this.metric)));
    const marks = this.marks().filter(({ model }) => model === this.fleet.scheme);
    this.chart.draw(this.ring, lines, marks, SPAN_S);
  }

  #done(text) {
    notice(text);
    this.changed();
  }

  #showAir({ air, ...since }) {
    say(byId("air-now"), `Now ${airWords(air)}, ${from(since)}.`);
    this.air.show(airFields(air));
  }

  #showRate({ rate, asked, least_bits: least, most_bits: most, steps }) {
    const only = least === most && !steps;
    for (const part of byId("rate-form").querySelectorAll(".presets, .fields, .actions")) part.hidden = only;
    if (only) {
      say(byId("bits-now"), `Its reports have ${count(most)} bits; the scheme has no other rate.`);
      return;
    }
    const comesTo = asked.length ? `, which comes to at most ${span(asked.map((run) => run.bits))} bits` : "";
    const ofSteps = steps ? `, steps 0 to ${count(steps - 1)}` : "";
    say(
      byId("bits-now"),
      `Now ${rateText(rate)}${comesTo}. It can have ${count(least)} to ${count(most)} bits${ofSteps}.`,
    );
    this.rate.offer({
      "Its own": {},
      "Half of the bits": { bits: String(Math.round((least + most) / 2)) },
      "Target −10 dB": { target_nmse_db: "-10" },
      "Target −15 dB": { target_nmse_db: "-15" },
    });
    this.rate.show(Object.fromEntries(Object.entries(rate).map(([name, value]) => [name, String(value ?? "")])));
  }
}

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

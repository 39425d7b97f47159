// One UE: its figures, its newest reports, and its true and estimated channel.

import { airWords } from "./air.js";
import { get, Refused } from "./api.js";
import { appearance, colour, drawShape } from "./appearance.js";
import { axis, followSize, plainPlot, roomy, stepped, titled } from "./charts.js";
import { ChannelView } from "./channel.js";
import { byId, say } from "./dom.js";
import { clock, count, fixed, NONE, plusMinus, since } from "./format.js";
import { drawPairs, durations } from "./live.js";

const REPORTS = 256;
const ERASED = new Set(["detected", "lost"]); // fates of reports of which nothing was decoded

export class Ue {
  constructor() {
    this.ue = null;
    this.channel = new ChannelView(byId("ue-channel"));
    followSize(byId("ue-chart"), (width, height) => this.plot?.setSize({ width, height }));
  }

  /** Show this UE from now on; null for none. */
  choose(ue) {
    if (ue === this.ue) return;
    this.ue = ue;
    byId("ue-content").hidden = true;
    this.channel.clear();
    byId("ue").toggleAttribute("data-empty", ue === null);
    if (ue !== null) byId("ue").scrollIntoView({ block: "nearest" });
    say(byId("ue-title"), ue === null ? "One UE" : `UE ${ue}`);
    say(byId("ue-note"), ue === null ? "Choose a UE in the table." : "");
  }

  async refresh() {
    const asked = this.ue;
    if (asked === null) return;
    let answers;
    try {
      answers = await Promise.all([
        get(`v1/ues/${asked}`),
        get(`v1/ues/${asked}/reports?limit=${REPORTS}`),
        get(`v1/ues/${asked}/channel`),
      ]);
    } catch (problem) {
      if (!(problem instanceof Refused) || !problem.status) throw problem;
      byId("ue-content").hidden = true;
      say(byId("ue-note"), problem.message);
      return;
    }
    if (asked !== this.ue) return; // another was chosen meanwhile
    byId("ue-content").hidden = false;
    const [figures, { reports }, channel] = answers;
    this.#showFigures(figures);
    this.#drawHistory(figures, reports);
    this.#showChannel(channel);
  }

  #showFigures(figures) {
    const { scheme, scenario, air, seed, encoder_id: encoder } = figures;
    say(byId("ue-note"), `${scheme}, ${scenario}, ${airWords(air)}, seed ${seed}, encoder ${encoder}`);
    drawPairs(byId("ue-strip"), [
      ["Status", figures.status, ""],
      ["Version", figures.decoder_version || NONE, ""],
      ["NMSE", `${fixed(figures.nmse_db, 2)}${plusMinus(figures.nmse_se_db, 2)}`, "dB"],
      ["SGCS", fixed(figures.sgcs, 3), ""],
      ["Reports", count(figures.reports), figures.dropped ? `${count(figures.dropped)} dropped` : ""],
      ["Feedback", count(figures.feedback_bits), "bits a report"],
      ["Latency p50 / p99", ...durations(figures.latency_ms)],
    ]);
  }

  #drawHistory({ scheme, scenario }, reports) {
    const scaled = reports.some(({ nmse_db: value }) => value !== null);
    const value = scaled ? ({ nmse_db: db }) => db : ({ sgcs }) => sgcs;
    const erased = reports.some(({ fate }) => ERASED.has(fate)) ? "; red: lost or damaged on the air" : "";
    say(byId("ue-history-title"), (scaled ? "NMSE of its newest reports, dB" : "SGCS of its newest reports") + erased);
    const data = [reports.map(({ sequence }) => sequence), reports.map(value)];
    const wanted = JSON.stringify([scheme, scenario, scaled, colour("text")]);
    this.reports = reports;
    this.look = (version) => appearance(scheme, version);
    const host = byId("ue-chart");
    if (this.plot && wanted === this.built) return this.plot.setData(data);
    this.plot?.destroy();
    this.built = wanted;
    this.plot = plainPlot(host, data, {
      range: roomy(scaled ? 1 : 0.02),
      axes: [axis((sequence) => count(sequence), 22, { ...titled("report"), space: 80 }), axis(stepped, 52)],
      lines: [{ stroke: colour("control"), width: 1 }],
      draw: (plot) => this.#drawReports(plot, value),
    });
    return undefined;
  }

  /** A mark for each report, by the version that decoded it. */
  #drawReports(plot, value) {
    const { ctx: context } = plot;
    for (const report of this.reports) {
      const look = this.look(report.decoder_version);
      context.fillStyle = ERASED.has(report.fate) ? colour("bad") : look.colour;
      drawShape(
        context,
        look.shape,
        plot.valToPos(report.sequence, "x", true),
        plot.valToPos(value(report), "y", true),
        5 * uPlot.pxRatio,
      );
      context.fill();
    }
  }

  #showChannel({ status, report }) {
    if (report) {
      const age = since(Math.max(0, Date.now() / 1000 - report.received_at));
      say(
        byId("ue-channel-note"),
        `report ${report.sequence} by version ${report.decoder_version}, ${clock(report.received_at)} (${age} ago)`,
      );
      this.channel.draw(report);
    } else if (status === "attached") say(byId("ue-channel-note"), "waiting for its next report");
    else say(byId("ue-channel-note"), `the UE is ${status}: no report has come since it is looked at`);
  }
}

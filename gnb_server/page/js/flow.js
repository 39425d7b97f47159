// One report, from the UE's true channel over its bits to the gNB's estimate.

import { get, quietly } from "./api.js";
import { drawChannel } from "./channel.js";
import { byId, element, say } from "./dom.js";
import { count, fixed } from "./format.js";

const FLEETS = 200;
const REPORTS = 8; // among which the one that is shown is looked for

export class Flow {
  constructor() {
    this.rows = [];
    this.chosen = false;
    byId("flow-scheme").addEventListener("change", () => {
      this.chosen = true;
      quietly(this.refresh());
    });
  }

  /** Take the figures of a tick. */
  take(answer) {
    this.rows = answer.schemes;
  }

  async refresh() {
    const { fleets } = await get(`v1/fleets?limit=${FLEETS}`);
    const attached = fleets.filter(({ status }) => status === "attached");
    byId("flow").toggleAttribute("data-empty", !attached.length);
    this.#offer([...new Set(attached.map(({ scheme }) => scheme))]);
    const fleet = attached.find(({ scheme }) => scheme === byId("flow-scheme").value);
    if (!fleet) return;
    const ue = fleet.first_ue;
    const [{ report }, { reports }] = await Promise.all([
      get(`v1/ues/${ue}/channel`),
      get(`v1/ues/${ue}/reports?limit=${REPORTS}`),
    ]);
    if (report)
      this.#show(
        fleet.scheme,
        ue,
        report,
        reports.find(({ sequence }) => sequence === report.sequence),
      );
  }

  /** Until somebody chooses, the scheme with the best NMSE is chosen. */
  #offer(schemes) {
    const choice = byId("flow-scheme");
    const quality = (name) => Math.min(0, ...this.rows.filter((row) => row.scheme === name).map((row) => row.nmse_db));
    const there = [...choice.options].map(({ value }) => value);
    if (there.join() === schemes.join() && (this.chosen || quality(choice.value))) return;
    const best = schemes.toSorted((a, b) => quality(a) - quality(b))[0];
    const value = this.chosen && schemes.includes(choice.value) ? choice.value : best;
    choice.replaceChildren(...schemes.map((name) => element("option", { text: name })));
    choice.value = value;
  }

  #show(scheme, ue, report, figures) {
    drawChannel(byId("flow-truth"), report.truth);
    drawChannel(byId("flow-estimate"), report.estimate);
    say(byId("flow-ue"), `UE ${ue}: true channel`);
    say(byId("flow-encoder"), `${scheme} encoder`);
    say(byId("flow-bits"), figures ? `${count(figures.feedback_bits)} bits` : "bits");
    say(byId("flow-decoder"), `decoder, version ${report.decoder_version}`);
    const db = figures?.nmse_db ?? null;
    const sgcs = figures?.sgcs ?? null;
    say(byId("flow-quality"), db !== null ? `NMSE ${fixed(db, 1)} dB` : sgcs !== null ? `SGCS ${fixed(sgcs, 3)}` : "");
    const lost =
      db === null ? "" : db < 0 ? `${share(10 ** (db / 10))} of the channel's power is lost` : "the error is as strong";
    const fate = figures?.fate && figures.fate !== "received" ? `${figures.fate} on the air; ` : "";
    say(byId("flow-note"), fate + lost);
  }
}

/** A share: “0.14 %”, “23 %”. */
const share = (of) => `${fixed(100 * of, of < 0.01 ? 2 : of < 0.1 ? 1 : 0)} %`;

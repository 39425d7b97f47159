// The view `UEs`: a page of the table that the gNB has, and one UE.

import { airWords } from "./air.js";
import { get, quietly } from "./api.js";
import { byId, element, fill, keyed, say } from "./dom.js";
import { count, NONE } from "./format.js";
import { quality } from "./metrics.js";
import { Ue } from "./ue.js";

const PAGE = 50;

export class Ues {
  constructor() {
    this.offset = 0;
    this.total = 0;
    this.one = new Ue();
    byId("ues-filter").addEventListener("submit", (event) => {
      event.preventDefault();
      const number = byId("ues-number").value.trim();
      if (number) location.hash = `#ues/${number}`;
    });
    for (const id of ["ues-scheme", "ues-status"]) byId(id).addEventListener("change", () => this.#turn(0));
    byId("ues-previous").addEventListener("click", () => this.#turn(this.offset - PAGE));
    byId("ues-next").addEventListener("click", () => this.#turn(this.offset + PAGE));
  }

  /** Schemes that the filter offers. */
  offer(schemes) {
    const choice = byId("ues-scheme");
    const there = new Set([...choice.options].map(({ value }) => value));
    choice.append(...schemes.filter((name) => !there.has(name)).map((name) => element("option", { text: name })));
  }

  /** Show a UE, or (null) none. */
  choose(ue) {
    this.one.choose(ue);
    for (const row of byId("ues-table").tBodies[0].rows) row.classList.toggle("chosen", row.dataset.key === String(ue));
  }

  async refresh() {
    const filters = { scheme: byId("ues-scheme").value, status: byId("ues-status").value };
    const asked = Object.entries(filters).filter(([, value]) => value);
    const query = new URLSearchParams([...asked, ["offset", this.offset], ["limit", PAGE]]);
    const { ues, total } = await get(`v1/ues?${query}`);
    this.total = total;
    if (this.offset >= total && this.offset) return this.#turn(Math.floor(Math.max(0, total - 1) / PAGE) * PAGE);
    this.#show(ues);
    return this.one.refresh();
  }

  #turn(offset) {
    this.offset = Math.max(0, offset);
    return quietly(this.refresh());
  }

  #show(ues) {
    const { offset, total } = this;
    say(byId("ues-range"), total ? `${count(offset + 1)} to ${count(offset + ues.length)} of ${count(total)}` : "none");
    byId("ues-previous").disabled = offset === 0;
    byId("ues-next").disabled = offset + ues.length >= total;
    keyed(
      byId("ues-table").tBodies[0],
      ues,
      ({ ue }) => ue,
      makeRow,
      (tr, row) => {
        const [, status, scheme, version, nmse, reports, dropped, scenario] = tr.cells;
        tr.classList.toggle("chosen", row.ue === this.one.ue);
        fill(status, row.status);
        status.className = row.status === "gone" ? "bad" : row.status === "attached" ? "" : "quiet";
        fill(scheme, row.scheme);
        const next =
          row.assigned_version && row.assigned_version !== row.decoder_version ? ` → ${row.assigned_version}` : "";
        fill(version, row.decoder_version ? String(row.decoder_version) : NONE, next);
        version.title = row.switch;
        version.classList.toggle("bad", Boolean(row.switch && row.switch !== "asked"));
        fill(nmse, ...quality(row, NONE));
        fill(reports, count(row.reports));
        fill(dropped, count(row.dropped));
        fill(scenario, row.scenario, ` seed ${row.seed}${row.air ? `, ${airWords(row.air)}` : ""}`);
      },
    );
  }
}

function makeRow({ ue }) {
  const link = element("a", { href: `#ues/${ue}`, text: String(ue) });
  const others = ["", "", "number", "number", "number", "number", ""].map((of) => element("td", { class: of || null }));
  return element("tr", {}, element("th", { scope: "row", class: "number" }, link), ...others);
}

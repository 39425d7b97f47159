// The view `Link`: the fleets that the gNB holds, and one of them.

import { airWords } from "./air.js";
import { get, quietly } from "./api.js";
import { byId, element, fill, keyed, say } from "./dom.js";
import { Fleet, alikeNow, holds, range } from "./fleet.js";
import { count, NONE } from "./format.js";
import { quality } from "./metrics.js";

const SHOWN = 200; // fleets

export class Link {
  /** `ring`: of ticks; `marks()`: [{time, text, model}] for the chart. */
  constructor(ring, marks) {
    this.rows = [];
    this.one = new Fleet(ring, marks, () => quietly(this.refresh()));
  }

  /** Take the figures of a tick. */
  take(answer) {
    this.rows = answer.schemes;
  }

  /** Draw these series too, as `storedTicks` returns them. */
  pool(series) {
    this.one.pooled = series;
  }

  /** Show the fleet of a UE, or (null) none. */
  choose(ue) {
    this.one.choose(ue);
  }

  async refresh() {
    const { fleets, total } = await get(`v1/fleets?limit=${SHOWN}`);
    this.#show(fleets, total);
    await this.one.refresh(fleets);
    this.draw();
  }

  /** Show the figures that were taken last; to be called while the view is to be seen. */
  draw() {
    this.one.draw(this.rows);
  }

  #show(fleets, total) {
    byId("fleets-note").hidden = fleets.length > 0 && total <= SHOWN;
    say(byId("fleets-note"), total ? `The first ${SHOWN} of ${count(total)}.` : "No UE has attached yet.");
    keyed(
      byId("fleets-table").tBodies[0],
      fleets,
      ({ first_ue: first }) => first,
      makeRow,
      (tr, fleet) => {
        const [, scheme, air, nmse, bits, scenario] = tr.cells;
        const now = this.rows.filter((row) => alikeNow(fleet, row));
        tr.classList.toggle("chosen", this.one.ue !== null && holds(fleet, this.one.ue));
        fill(scheme, fleet.scheme, fleet.status === "attached" ? "" : ` ${fleet.status}`);
        fill(air, airWords(fleet.air));
        air.className = fleet.air ? "warn wrap" : "quiet";
        fill(nmse, ...(now.length > 1 ? ["several"] : quality(now[0] ?? {}, NONE)));
        fill(bits, now.length ? count(now[0].feedback_bits) : NONE);
        fill(scenario, fleet.scenario);
      },
    );
  }
}

function makeRow(fleet) {
  const link = element("a", { href: `#link/${fleet.first_ue}`, text: range(fleet) });
  const others = ["", "", "number", "number", ""].map((name) => element("td", { class: name || null }));
  return element("tr", {}, element("th", { scope: "row" }, link), ...others);
}

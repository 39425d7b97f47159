// Cells of other gNBs that keep their results in the same store: figures as they are stored, instead of the stream's.

import { get, quietly } from "./api.js";
import { byId, element, say } from "./dom.js";
import { storedTicks } from "./history.js";
import { Ring } from "./ring.js";

const EACH = "";
const MOST = 20; // cells that are asked for together
const PAUSE_MS = 10_000;
const IDLE = 9; // of the time that the gNB takes to answer, so long at least it is not asked again

export class Cells {
  /** `onChange()`: `shown` is another. */
  constructor(onChange) {
    this.onChange = onChange;
    this.shown = null; // {rows, ring, pooled}; null: the gNB's own, by the stream
    this.own = EACH;
    this.names = []; // those that changed last first
    this.due = 0;
    byId("cells").addEventListener("change", () => this.#choose());
  }

  /** Ask again at once, over another window. */
  again() {
    this.due = 0;
    return quietly(this.refresh());
  }

  /** Ask for what is chosen, unless that was just now. */
  async refresh() {
    const begun = performance.now();
    if (begun < this.due) return;
    this.due = Infinity; // one at a time
    try {
      const { cell, cells } = await get("v1/cells");
      this.#offer(
        cell,
        cells.map((row) => row.cell),
      );
      if (this.shown) await this.#ask(byId("cells").value);
    } finally {
      const now = performance.now();
      this.due = now + Math.max(PAUSE_MS, IDLE * (now - begun));
    }
  }

  #offer(own, names) {
    byId("cells-label").hidden = names.length < 2;
    if (own === this.own && names.toSorted().join() === this.names.toSorted().join()) {
      this.names = names;
      return;
    }
    const chosen = this.shown ? byId("cells").value : own;
    Object.assign(this, { own, names });
    const option = (value, text) => element("option", { value, text });
    const others = names.filter((name) => name !== own).map((name) => option(name, name));
    byId("cells").replaceChildren(option(own, `${own}, live`), ...others, option(EACH, "each"));
    byId("cells").value = chosen;
  }

  #choose() {
    const live = byId("cells").value === this.own;
    this.shown = live ? null : { rows: [], ring: new Ring(Infinity), pooled: [] };
    say(byId("cells-note"), live ? "" : "Asking the store.");
    this.onChange();
    this.again();
  }

  /** One after the other: a store with much in it is not asked for all at once. */
  async #ask(chosen) {
    const names = chosen === EACH ? this.names.slice(0, MOST).sort() : [chosen];
    const found = { rows: [], ring: new Ring(Infinity), pooled: [] };
    for (const cell of names) {
      const { schemes } = await get(`v1/nmse?${new URLSearchParams({ by: "version", cell })}`);
      const rows = schemes.filter(({ version }) => version !== null).map((row) => ({ ...row, cell }));
      const { ticks, pooled } = await storedTicks(byId("window").value, rows, cell);
      found.rows.push(...rows);
      found.pooled.push(...pooled);
      found.ring.ticks.push(...ticks);
    }
    if (!this.shown || byId("cells").value !== chosen) return; // somebody has chosen meanwhile
    found.ring.ticks.sort((a, b) => a.time - b.time);
    this.shown = found;
    say(byId("cells-note"), this.#note(chosen));
    this.onChange();
  }

  #note(chosen) {
    const left = this.names.length - MOST;
    const which = chosen === EACH ? "each cell" : `cell ${chosen}`;
    const others = chosen === EACH && left > 0 ? ` ${left} more cells, which changed before these, are not shown.` : "";
    return (
      `Chart, plane and table are of ${which} as it is stored: the chart over the window, the others over all its` +
      ` reports. All else on this page is of cell ${this.own}.${others}`
    );
  }
}

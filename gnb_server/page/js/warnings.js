// What people should look at: rates that are not held, and alarms of the monitoring.

import { get } from "./api.js";
import { byId, element, keyed, say } from "./dom.js";
import { brief } from "./format.js";

const SHOWN = 5; // alarms

export class Warnings {
  constructor() {
    this.behind = [];
    this.alarms = [];
  }

  /** Take the figures of a tick. */
  take({ schemes }) {
    this.behind = schemes.filter((row) => row.rate_held === false);
    this.#show();
  }

  async refresh() {
    const { alarms } = await get("v1/alarms");
    this.alarms = alarms.filter(({ cleared_at: cleared }) => cleared === null);
    this.#show();
  }

  #show() {
    const shown = this.alarms.slice(0, SHOWN).map(ofAlarm);
    const more = this.alarms.length - shown.length;
    if (more) shown.push(`${more} more alarms: GET /v1/alarms`);
    if (this.behind.length) shown.unshift(`Rate not held: ${this.behind.map(ofRate).join(", ")} reports a second.`);
    byId("warnings").hidden = !shown.length;
    keyed(
      byId("warnings"),
      shown.map((text, number) => ({ text, number })),
      ({ number }) => number,
      () => element("li"),
      (item, { text }) => say(item, text),
    );
  }
}

function ofRate({ scheme, version, offered_reports_per_s: offered, reports_per_s: served }) {
  return `${version ? `${scheme} ${version}` : scheme} (${brief(served)} of ${brief(offered)})`;
}

const ofAlarm = ({ model, version, text }) => `Alarm: ${model} ${version}, ${text}.`;

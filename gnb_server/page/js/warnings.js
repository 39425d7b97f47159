// What people should look at: rates that are not held, and alarms of the monitoring.

import { get } from "./api.js";
import { byId, element, keyed, say } from "./dom.js";
import { brief } from "./format.js";

const SHOWN = 5;

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
    const texts = [...this.behind.map(ofRate), ...this.alarms.map(ofAlarm)];
    const more = texts.length - SHOWN;
    const shown = more > 0 ? [...texts.slice(0, SHOWN), `and ${more} more: GET /v1/alarms`] : texts;
    byId("warnings").hidden = !texts.length;
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
  const name = version ? `${scheme} ${version}` : scheme;
  return `The rate of ${name} is not held: ${brief(offered)} reports a second are asked for, ${brief(served)} served.`;
}

function ofAlarm({ model, version, first_ue: first, ue_count: ues, meaning, unit, value, usual }) {
  const whose = `${model} ${version}, UEs ${first} to ${first + ues - 1}`;
  return `Alarm of ${whose}: ${meaning} is ${brief(value)} ${unit}, usually ${brief(usual)}.`;
}

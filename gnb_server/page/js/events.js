// What happened to models: the newest events, and those that charts mark.

import { airWords } from "./air.js";
import { get } from "./api.js";
import { element, keyed } from "./dom.js";
import { clock } from "./format.js";

const KEPT = 200;
const FIRST = 100;
const MARKED = new Set(["loaded", "unloaded", "canary", "shadow", "promoted", "aborted", "air", "rate"]);
const WORDS = {
  refused: "bad",
  aborted: "bad",
  "not switched": "bad",
  rate_not_held: "bad",
  undecodable: "bad",
  rate_held: "good",
  promoted: "good",
};

export class Events {
  constructor(lists) {
    this.lists = lists;
    this.events = [];
  }

  /** Ask for what is new. Events of a gNB with another store begin again. */
  async refresh() {
    const last = this.events.at(-1)?.number ?? 0;
    let { events } = await get(`v1/events?after=${Math.max(0, last - 1)}&limit=${FIRST}`);
    if (last && events[0]?.number !== last) {
      ({ events } = await get(`v1/events?limit=${FIRST}`));
      this.events = events;
    } else {
      const newest = this.events.at(-1)?.number ?? 0; // another refresh may have been quicker
      this.events.push(...events.filter(({ number }) => number > newest));
    }
    this.events = this.events.slice(-KEPT);
    this.#show();
  }

  /** [{time, text, model}] for charts. */
  marks() {
    return this.events
      .filter(({ kind }) => MARKED.has(kind))
      .map((event) => ({ time: event.at, text: markText(event), model: event.model }));
  }

  #show() {
    const newest = this.events.toReversed();
    for (const list of this.lists) {
      keyed(
        list,
        newest,
        ({ number }) => number,
        makeEvent,
        () => {},
      );
    }
  }
}

/** “hyperrnn 3 loaded”; of a knob what it is set to: “hyperrnn: 10 % lost”. */
function markText({ kind, model, version, text }) {
  if (kind !== "air" && kind !== "rate") return `${model} ${version} ${kind}`;
  const [, setTo = kind] = /: (.*?)(?: from frame \d+)?$/.exec(text) ?? [];
  return `${model}: ${kind === "air" && setTo !== "undisturbed" ? airWords(setTo) : setTo}`;
}

function makeEvent({ at, kind, model, version, by, text }) {
  const what = element("b", { class: WORDS[kind] ?? null, text: kind.replaceAll("_", " ") });
  const who = by ? ` by ${by}` : "";
  return element(
    "li",
    {},
    element("time", { text: clock(at) }),
    what,
    ` ${model} ${version}${who}${text ? `: ${text}` : ""}`,
  );
}

// Roll-outs: a new version beside the old one, with the guard's limits, and what people may decide.

import { get, post } from "./api.js";
import { confirmed, askToken, open } from "./dialogs.js";
import { byId, element, keyed, say } from "./dom.js";
import { clock, count, fixed, plusMinus } from "./format.js";
import { attempt } from "./notices.js";

const SHOWN = 20;
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, MIDDLE] = [220, 20];

export class Rollouts {
  /** `changed()` after an action. */
  constructor(changed) {
    this.changed = changed;
    const dialog = byId("rollout-dialog");
    dialog.addEventListener("input", () => showModes(dialog));
    showModes(dialog);
  }

  async refresh() {
    const { rollouts } = await get("v1/rollouts");
    const running = rollouts.filter(({ state }) => state === "running");
    const over = rollouts.filter(({ state }) => state !== "running");
    byId("rollouts-note").hidden = rollouts.length > 0;
    keyed(
      byId("rollouts"),
      [...running, ...over].slice(0, SHOWN),
      ({ number }) => number,
      (row) => this.#make(row),
      show,
    );
  }

  /** Ask how a version is to be rolled out, and begin. */
  async begin(model, version) {
    const dialog = byId("rollout-dialog");
    byId("rollout-title").textContent = `Roll out ${model} ${version}`;
    if ((await open(dialog)) !== "start") return;
    const number = (id) => Number(byId(id).value);
    const guard = { worse_db: number("worse"), better_db: number("better"), frames: number("frames") };
    const mode = dialog.querySelector("[name=mode]:checked").value;
    const body = { model, version, mode, guard: byId("guard").checked ? guard : null };
    if (mode === "canary") body.share = number("share") / 100;
    await attempt(async () => {
      const begun = await post("v1/rollouts", body);
      return `Roll-out ${begun.number} of ${model} ${version} has begun beside version ${begun.old_version}.`;
    }, askToken);
    this.changed();
  }

  #make({ number, model, version, old_version: old }) {
    const decide = async (verb, title, text) => {
      if (!(await confirmed(title, text, title.split(" ")[0]))) return;
      await attempt(async () => {
        await post(`v1/rollouts/${number}/${verb}`);
        return `Roll-out ${number}: ${verb === "promote" ? "promoted" : "aborted"}.`;
      }, askToken);
      this.changed();
    };
    const buttons = [
      element("button", {
        type: "button",
        text: "Promote",
        onclick: () =>
          decide("promote", `Promote ${model} ${version}?`, "All UEs of the model use it from their next frame on."),
      }),
      element("button", {
        type: "button",
        text: "Abort",
        onclick: () => decide("abort", `Abort ${model} ${version}?`, `All UEs of the model use version ${old}.`),
      }),
    ];
    const plot = document.createElementNS(SVG, "svg");
    plot.setAttribute("viewBox", `0 0 ${WIDTH} 40`);
    plot.setAttribute("role", "img");
    return element(
      "div",
      { class: "rollout", role: "group", "aria-label": `roll-out ${number}` },
      element("div", { class: "what" }, element("p", { class: "title" }), element("p", { class: "quiet how" })),
      plot,
      element("div", {}, element("p", { class: "difference" }), element("p", { class: "quiet frames" })),
      element("p", { class: "quiet ues" }),
      element("p", { class: "reason" }),
      element("div", { class: "actions" }, ...buttons),
    );
  }
}

function show(
  row,
  { model, version, old_version: old, mode, share, state, guard, reason, started_at: at, figures, ues, by },
) {
  const part = (name) => row.querySelector(`.${name}`);
  const badge = element("span", {
    class: `badge ${{ running: "warn", promoted: "good", aborted: "bad" }[state]}`,
    text: state,
  });
  if (row.dataset.state !== state)
    part("title").replaceChildren(element("b", { text: `${model} ${version} ` }), `beside ${old} `, badge);
  row.dataset.state = state;
  say(
    part("how"),
    `${mode}${mode === "canary" ? ` ${Math.round(100 * share)} %` : ""} since ${clock(at)}${by ? ` by ${by}` : ""}`,
  );
  const { difference_db: difference, standard_error_db: error } = figures;
  say(part("difference"), difference === null ? "no frames of both yet" : inWords(figures));
  const frames = `${count(figures.frames_new)} new and ${count(figures.frames_old)} old frames`;
  say(part("frames"), guard && state === "running" ? `${frames}, guard from ${count(guard.frames)}` : frames);
  part("ues").hidden = state !== "running";
  say(
    part("ues"),
    `UEs: ${count(ues.new)} new, ${count(ues.old)} old${ues.refused ? `, ${count(ues.refused)} refuse` : ""}`,
  );
  say(part("reason"), reason && `why: ${reason}`);
  part("actions").hidden = state !== "running";
  drawDifference(row.querySelector("svg"), difference, error, guard);
}

function inWords({ difference_db: difference, standard_error_db: error, nmse_db_new: now, nmse_db_old: before }) {
  const sign = difference > 0 ? "+" : "";
  return `${sign}${fixed(difference, 2)}${plusMinus(error, 2)} dB: ${fixed(now, 2)} instead of ${fixed(before, 2)}`;
}

/** The difference with its margin, between the limits of the guard. */
function drawDifference(plot, difference, error, guard) {
  const margin = (guard?.standard_errors ?? 3) * (error ?? 0);
  const reach = Math.max(0.5, Math.abs(difference ?? 0) + margin, guard?.worse_db ?? 0, guard?.better_db ?? 0) * 1.1;
  const x = (decibels) => WIDTH / 2 + (decibels / reach) * (WIDTH / 2 - 4);
  const line = (x1, y1, x2, y2, of, more = {}) => shape("line", { x1, y1, x2, y2, stroke: `var(--${of})`, ...more });
  const parts = [line(0, MIDDLE, WIDTH, MIDDLE, "border"), line(x(0), 12, x(0), 28, "control")];
  if (guard) {
    const limits = [[guard.worse_db, "bad", "start"]];
    if (guard.better_db !== null) limits.push([-guard.better_db, "good", "end"]);
    for (const [limit, of] of limits) parts.push(line(x(limit), 8, x(limit), 32, of, { "stroke-dasharray": "3 2" }));
  }
  if (difference !== null) {
    parts.push(line(x(difference - margin), MIDDLE, x(difference + margin), MIDDLE, "accent", { "stroke-width": 2 }));
    parts.push(shape("circle", { cx: x(difference), cy: MIDDLE, r: 4, fill: "var(--accent)" }));
  }
  parts.push(label("better", 0, "start"), label("worse", WIDTH, "end"));
  plot.setAttribute("aria-label", difference === null ? "no difference yet" : `difference ${fixed(difference, 2)} dB`);
  plot.replaceChildren(...parts);
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

function label(text, x, anchor) {
  const made = shape("text", { x, y: 39, "text-anchor": anchor });
  made.textContent = text;
  return made;
}

/** Only a canary has a share, only a guard limits. */
function showModes(dialog) {
  byId("share-label").hidden = dialog.querySelector("[name=mode]:checked").value !== "canary";
  for (const id of ["worse", "better", "frames"]) byId(id).disabled = !byId("guard").checked;
}

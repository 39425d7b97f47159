// The view `Models`: the repository, with what people may do about each version.

import { get, post, quietly } from "./api.js";
import { askToken, confirmed } from "./dialogs.js";
import { byId, element, fill, keyed, say } from "./dom.js";
import { count, NONE } from "./format.js";
import { quality } from "./metrics.js";
import { attempt } from "./notices.js";
import { Rollouts } from "./rollouts.js";

const AT_ONCE = 4; // cards that are asked for together

export class Models {
  constructor() {
    this.rollouts = new Rollouts(() => quietly(this.refresh()));
    this.rows = [];
    this.cards = new Map(); // "name/version" -> card, null while it is asked for
    this.models = new Map(); // name -> {target, ues} of those that are loaded
    this.live = [];
    byId("models-filter").addEventListener("input", () => this.#show());
    byId("models-ready").addEventListener("change", () => this.#show());
  }

  /** Take the figures of a tick. */
  take(answer) {
    this.live = answer.schemes;
  }

  async refresh() {
    const [rows] = await Promise.all([post("v2/repository/index"), this.rollouts.refresh()]);
    this.rows = rows;
    const loaded = [...new Set(rows.filter(({ state }) => state === "READY").map(({ name }) => name))];
    const found = await Promise.all(
      loaded.map(async (name) => [name, (await quietly(get(`v2/models/${name}`)))?.parameters]),
    );
    this.models = new Map(found);
    this.#show();
    await this.#askCards();
  }

  /** Cards do not change while the page is open, but for one that could not be read. */
  async #askCards() {
    const wanted = this.rows.filter(({ name, version }) => isVersion(version) && !this.cards.has(`${name}/${version}`));
    for (const { name, version } of wanted) this.cards.set(`${name}/${version}`, null);
    for (let first = 0; first < wanted.length; first += AT_ONCE) {
      await Promise.all(
        wanted.slice(first, first + AT_ONCE).map(async ({ name, version }) => {
          const found = await quietly(get(`v2/models/${name}/versions/${version}`));
          if (found) this.cards.set(`${name}/${version}`, found.parameters.card);
          else this.cards.delete(`${name}/${version}`);
        }),
      );
      this.#show();
    }
  }

  #show() {
    const part = byId("models-filter").value.trim().toLowerCase();
    const only = byId("models-ready").checked;
    const rows = this.rows
      .filter(({ name, state }) => name.toLowerCase().includes(part) && (!only || state === "READY"))
      .sort((a, b) => this.models.has(b.name) - this.models.has(a.name)); // those in use first, as they are otherwise
    keyed(
      byId("models-table").tBodies[0],
      rows,
      ({ name, version }) => `${name}/${version}`,
      (row) => this.#make(row),
      (tr, row) => this.#fill(tr, row),
    );
  }

  #make({ name, version }) {
    const button = (text, about, onclick) =>
      element("button", { type: "button", text, "aria-label": `${text} ${name} ${version}`, title: about, onclick });
    const cells = ["", "UEs", "Bits", "Card", "Now", "", "Encoder"].map((label, at) =>
      element("td", { class: at >= 1 && at <= 4 ? "number" : null, "data-label": label || null }),
    );
    const buttons = [
      button("Load", "all UEs of the model use it from their next frame on", () => this.#load(name, Number(version))),
      button("Roll out", "as a canary or a shadow beside the version in use", () =>
        this.rollouts.begin(name, Number(version)),
      ),
      button("Unload", "serves nobody until it is loaded again", () => this.#unload(name, Number(version))),
    ];
    return element(
      "tr",
      {},
      element("th", { scope: "row", text: `${name} ${version}` }),
      ...cells,
      element("td", {}, element("div", { class: "actions" }, ...buttons)),
    );
  }

  #fill(tr, { name, version, state, reason }) {
    const [, shownState, ues, bits, evaluated, live, scenario, encoder, actions] = tr.cells;
    const model = this.models.get(name);
    const ready = state === "READY";
    const target = ready && model?.target === Number(version);
    const here = this.live.filter((row) => row.scheme === name && String(row.version) === version && row.reports);
    const text = ready ? (target ? "loaded, for all UEs" : "loaded") : reason || "not loaded";
    fill(shownState, text);
    shownState.className = ready ? "good wrap" : "quiet wrap";
    fill(ues, ready ? count(model?.ues.by_version[version] ?? 0) : "");
    const card = this.cards.get(`${name}/${version}`);
    const figures = card?.evaluation ?? {};
    const mean = figures.feedback_bits ?? card?.feedback_bits;
    const longest = card?.feedback_bits;
    fill(bits, card ? count(mean) : "", mean === longest ? "" : ` up to ${count(longest)}`);
    fill(evaluated, ...quality(figures));
    fill(live, ...(here.length ? quality(here.length === 1 ? here[0] : {}, here.length > 1 ? "several" : NONE) : [""]));
    fill(scenario, card?.scenario ?? "");
    fill(encoder, card?.encoder_id?.slice(0, 8) ?? "");
    encoder.title = card ? `encoder ${card.encoder_id}, payload ${card.payload}` : "";
    const [load, rollOut, unload] = actions.querySelectorAll("button");
    load.disabled = target || !isVersion(version);
    rollOut.disabled = !model || load.disabled;
    unload.disabled = !ready;
  }

  async #load(name, version) {
    const go = await confirmed(
      `Load ${name} ${version}?`,
      `All UEs of ${name} use it from their next frame on. If it has another encoder, they fetch that first.`,
      "Load",
    );
    if (go) await this.#do(`v2/repository/models/${name}/load`, version, `${name} ${version} is loaded.`);
  }

  async #unload(name, version) {
    const go = await confirmed(
      `Unload ${name} ${version}?`,
      "It serves nobody until it is loaded again. The gNB refuses while UEs need it.",
      "Unload",
    );
    if (go) await this.#do(`v2/repository/models/${name}/unload`, version, `${name} ${version} is unloaded.`);
  }

  async #do(path, version, done) {
    await attempt(async () => {
      await post(path, { parameters: { version } });
      return done;
    }, askToken);
    await quietly(this.refresh());
  }
}

/** Whether a row of the index is of a version, rather than of something that cannot be one. */
const isVersion = (text) => /^[1-9]\d{0,8}$/.test(text);

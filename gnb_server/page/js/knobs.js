// A form that changes something of a fleet: presets that do so at once, and fields with what the gNB refuses of them.

import { post, Refused } from "./api.js";
import { element, say } from "./dom.js";
import { notice } from "./notices.js";

export class Knobs {
  /**
   * @param form with named fields; the gNB's messages begin with a field's name.
   * @param presets {text: values by field's name}; what a preset does not name is empty.
   * @param path of the fleet that is shown. body(values) of its POST; done(answer) after it.
   */
  constructor(form, { group, presets, path, body, done, askToken }) {
    Object.assign(this, { form, path, body, done, askToken });
    this.fields = [...form.elements].filter(({ name }) => name);
    this.general = element("p", { class: "bad", role: "alert", hidden: true });
    form.querySelector(".fields").after(this.general);
    for (const field of this.fields) this.#addProblem(field);
    this.group = group;
    this.offer(presets);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#set();
    });
  }

  /** Put these presets in the place of the earlier ones. */
  offer(presets) {
    if (JSON.stringify(presets) === this.offered) return;
    this.offered = JSON.stringify(presets);
    this.group.replaceChildren(
      ...Object.entries(presets).map(([text, values]) =>
        element("button", { type: "button", text, "data-sets": sets(values), onclick: () => this.#press(values) }),
      ),
    );
  }

  /** Show what is set now, {field's name: text}, unless somebody is about to change it. */
  show(values) {
    for (const button of this.group.children)
      button.setAttribute("aria-pressed", String(button.dataset.sets === sets(values)));
    if (this.form.contains(document.activeElement) || this.refused) return;
    this.#write(values);
  }

  /** Another fleet is shown: what was written for the one before is of no use. */
  reset() {
    this.#write({});
    this.#clear();
  }

  #press(values) {
    this.#write(values);
    this.#set();
  }

  #write(values) {
    for (const field of this.fields) field.value = values[field.name] ?? "";
  }

  async #set() {
    this.#clear();
    const values = Object.fromEntries(this.fields.map(({ name, value }) => [name, value.trim()]).filter(([, v]) => v));
    try {
      this.done(await post(this.path(), this.body(values)));
    } catch (problem) {
      if (!(problem instanceof Refused)) throw problem;
      this.#complain(problem);
    }
  }

  #complain({ message, status }) {
    if (status === 401) {
      notice(message, { error: true });
      this.askToken();
      return;
    }
    const named = this.fields.find(({ name }) => new RegExp(`^(air )?${name}:`).test(message));
    const place = named ? named.problem : this.general;
    place.hidden = false;
    say(place, message);
    this.refused = true;
    named?.setAttribute("aria-invalid", "true");
    named?.focus();
  }

  #clear() {
    this.refused = false;
    this.general.hidden = true;
    for (const field of this.fields) {
      field.removeAttribute("aria-invalid");
      field.problem.hidden = true;
    }
  }

  #addProblem(field) {
    const id = `${this.form.id}-${field.name}-problem`;
    field.problem = element("span", { id, class: "bad problem", role: "alert", hidden: true });
    field.setAttribute("aria-describedby", id);
    const label = field.closest("label");
    const place = element("div");
    label.replaceWith(place);
    place.append(label, field.problem);
  }
}

/** Values as one text, in which those that are as numbers the same are the same. */
function sets(values) {
  const set = Object.entries(values).filter(([, text]) => text !== "");
  return JSON.stringify(set.map(([name, text]) => [name, Number.isNaN(Number(text)) ? text : Number(text)]).sort());
}

// What happened to an action, in words.

import { byId, element } from "./dom.js";
import { Refused } from "./api.js";

const SHOWN_MS = 8000;

/** Show a sentence; errors stay until they are dismissed. */
export function notice(text, { error = false } = {}) {
  const close = element("button", {
    type: "button",
    "aria-label": "Dismiss",
    text: "×",
    onclick: () => shown.remove(),
  });
  const shown = element("div", { class: error ? "notice error" : "notice" }, element("span", { text }), close);
  byId("notices").append(shown);
  if (!error) setTimeout(() => shown.remove(), SHOWN_MS);
}

/** Do something that the gNB may refuse; says so if it does. Where it wants a token, asks for it by `askToken`. */
export async function attempt(doing, askToken) {
  try {
    notice(await doing());
  } catch (problem) {
    if (!(problem instanceof Refused)) throw problem;
    notice(problem.message, { error: true });
    if (problem.status === 401) askToken();
  }
}

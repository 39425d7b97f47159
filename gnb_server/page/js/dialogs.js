// Dialogs: the token, and whether something is meant.

import { token } from "./api.js";
import { byId } from "./dom.js";

for (const button of document.querySelectorAll("dialog [data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close(""));
}

/** Open a dialog; resolves to the value of the button that ended it, "" for none. */
export function open(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

/** Ask whether something is meant. */
export async function confirmed(title, text, go) {
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-go").textContent = go;
  return (await open(byId("confirm-dialog"))) === "go";
}

/** Ask for the token and keep it. */
export async function askToken() {
  byId("token").value = token.get();
  if ((await open(byId("token-dialog"))) === "keep") token.keep(byId("token").value.trim());
  byId("token").value = "";
  showToken();
}

function showToken() {
  byId("access").textContent = token.get() ? "Token: kept" : "Token";
}

byId("access").addEventListener("click", askToken);
byId("token-forget").addEventListener("click", () => {
  token.forget();
  byId("token-dialog").close("");
});
showToken();

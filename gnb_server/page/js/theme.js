// Light, dark, or as the system is.

import { byId } from "./dom.js";

const KEY = "csiemu-theme";
const THEMES = ["auto", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Follow the button and the system; `changed()` whenever colours may be others. */
export function followTheme(changed) {
  const button = byId("theme");
  let theme = localStorage.getItem(KEY);
  if (!THEMES.includes(theme)) theme = "auto";
  const show = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" }[theme];
    button.setAttribute("aria-label", `Theme: ${theme}`);
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem(KEY, theme);
    show();
    changed();
  });
  dark.addEventListener("change", changed);
  show();
}

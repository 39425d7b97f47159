// Making and finding elements.

export const byId = (id) => document.getElementById(id);

/** An element with children. Attributes: `on...` are listeners, `text` is its text; null and false are left out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "text") made.textContent = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Set an element's text only if it is another one: what is selected or read aloud stays as it is. */
export function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/**
 * Children of `parent` by key, in the order of `rows`: made once, then brought up to date, so that focus stays.
 * `make(row)` returns the element, `update(element, row)` changes it.
 */
export function keyed(parent, rows, keyOf, make, update) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  rows.forEach((row, index) => {
    const key = String(keyOf(row));
    let child = there.get(key);
    there.delete(key);
    if (!child) {
      child = make(row);
      child.dataset.key = key;
    }
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
    update(child, row);
  });
  for (const left of there.values()) left.remove();
}

/** A cell of a table: its text, and a quiet part behind it. */
export function fill(cell, text, quiet = "") {
  const wanted = text + quiet;
  if (cell.textContent === wanted) return;
  cell.replaceChildren(text, ...(quiet ? [element("span", { class: "pm", text: quiet })] : []));
}

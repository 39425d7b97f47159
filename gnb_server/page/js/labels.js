// Names beside what they name, without overlap.

/** Places near `wanted` that are at least `gap` apart and, if there is room, within [low, high]. */
export function spread(wanted, gap, low, high) {
  const order = wanted.map((_, index) => index).sort((a, b) => wanted[a] - wanted[b]);
  const placed = [...wanted];
  order.forEach((index, rank) => {
    placed[index] = Math.max(wanted[index], rank ? placed[order[rank - 1]] + gap : low);
  });
  order.reverse().forEach((index, rank) => {
    placed[index] = Math.min(placed[index], rank ? placed[order[rank - 1]] - gap : high);
  });
  return placed;
}

/** Width of the widest of some texts in CSS pixels. */
export function widest(texts, font) {
  const context = (widest.canvas ??= document.createElement("canvas")).getContext("2d");
  context.font = font;
  return Math.max(0, ...texts.map((text) => context.measureText(text).width));
}

/** The page's font as a canvas wants it; `ratio` device pixels each. */
export const fontOf = (size, ratio = 1) => `${size * ratio}px ${getComputedStyle(document.body).fontFamily}`;

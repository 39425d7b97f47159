// A colour for each scheme, dashes and a shape for each of its versions.

const COLOURS = 8;
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [14, 4], [4, 2]];
export const SHAPES = ["circle", "square", "triangle", "diamond"];

const schemes = new Map(); // scheme -> version -> keys of its rows; all in the order in which they were seen
const probe = document.createElement("span");
probe.hidden = true;
document.documentElement.append(probe);

/** A colour of the style sheet as it is in the present theme. */
export function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** {colour, dash, shape} of a version of a scheme; `key` tells rows apart that have both in common. */
export function appearance(scheme, version, key = null) {
  if (!schemes.has(scheme)) schemes.set(scheme, new Map());
  const versions = schemes.get(scheme);
  if (!versions.has(version)) versions.set(version, []);
  const keys = versions.get(version);
  if (key !== null && !keys.includes(key)) keys.push(key);
  const place = [...schemes.keys()].indexOf(scheme);
  const number = Math.max(0, version - 1) + Math.max(0, keys.indexOf(key)) + Math.floor(place / COLOURS);
  return {
    colour: colour(`series-${place % COLOURS}`),
    dash: DASHES[number % DASHES.length],
    shape: SHAPES[number % SHAPES.length],
  };
}

/** Draw a mark of `size` pixels around (x, y). */
export function drawShape(context, shape, x, y, size) {
  const r = size / 2;
  context.beginPath();
  if (shape === "circle") context.arc(x, y, r, 0, 2 * Math.PI);
  else if (shape === "square") context.rect(x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r);
  else if (shape === "triangle") {
    context.moveTo(x, y - 1.1 * r);
    context.lineTo(x + 1.05 * r, y + 0.8 * r);
    context.lineTo(x - 1.05 * r, y + 0.8 * r);
    context.closePath();
  } else {
    context.moveTo(x, y - 1.2 * r);
    context.lineTo(x + 1.2 * r, y);
    context.lineTo(x, y + 1.2 * r);
    context.lineTo(x - 1.2 * r, y);
    context.closePath();
  }
}

/** Line and mark (if it has one) of a row, for a table: draws on a canvas of 26 x 12 CSS pixels. */
export function drawMark(canvas, look) {
  const ratio = window.devicePixelRatio || 1;
  const state = JSON.stringify([look, ratio]);
  if (canvas.dataset.drawn === state) return;
  canvas.dataset.drawn = state;
  canvas.width = 26 * ratio;
  canvas.height = 12 * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.strokeStyle = context.fillStyle = look.colour;
  context.lineWidth = 2;
  context.setLineDash(look.dash.map((part) => part * 0.75));
  context.beginPath();
  context.moveTo(0, 6);
  context.lineTo(26, 6);
  context.stroke();
  if (!look.shape) return;
  drawShape(context, look.shape, 13, 6, 8);
  context.fill();
}

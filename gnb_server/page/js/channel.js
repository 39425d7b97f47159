// A true and an estimated channel side by side: two images on one scale, or two lines over the angle.

import { colour } from "./appearance.js";
import { axis, followSize, plainPlot, stepped, titled } from "./charts.js";
import { element } from "./dom.js";
import { fixed } from "./format.js";

const FLOOR_DB = -40; // what is darkest
const decibels = (magnitude) => Math.max(FLOOR_DB, 20 * Math.log10(Math.max(magnitude, 1e-9)));

/** Cividis (Nuñez, Anderton and Renslow, 2018), which people see alike who see colours otherwise: every 8th of it. */
const CIVIDIS = [
  [0, 34, 78],
  [18, 53, 112],
  [59, 73, 108],
  [87, 93, 109],
  [112, 113, 115],
  [138, 134, 120],
  [165, 156, 116],
  [195, 179, 105],
  [225, 204, 85],
  [254, 232, 56],
];

export class ChannelView {
  constructor(host) {
    this.host = host;
    this.clear();
  }

  clear() {
    this.plot?.destroy();
    this.plot = null;
    this.kind = "";
    this.host.replaceChildren();
  }

  /** Draw a report of /v1/ues/{ue}/channel: `truth` and `estimate` [rows][columns] in units of the truth's largest. */
  draw(report) {
    const kind = report.truth.length > 1 ? "images" : "lines";
    if (kind !== this.kind || this.text !== colour("text")) {
      this.clear();
      Object.assign(this, { kind, text: colour("text") });
      if (kind === "images") this.#makeImages(report);
      else this.#makeLines(report);
    }
    if (kind === "images") this.#drawImages(report);
    else
      this.plot.setData([
        report.truth[0].map((_, at) => at),
        report.truth[0].map(decibels),
        report.estimate[0].map(decibels),
      ]);
  }

  #makeImages({ rows, columns }) {
    const error = (estimate, truth) => Math.abs(estimate - truth);
    this.parts = [
      ["True", ({ truth }) => truth],
      ["Estimated", ({ estimate }) => estimate],
      [
        "Difference of magnitudes",
        ({ truth, estimate }) => truth.map((row, y) => row.map((value, x) => error(estimate[y][x], value))),
      ],
    ].map(([name, read]) => ({
      read,
      canvas: element("canvas", { role: "img", "aria-label": `${name}: magnitude by ${rows} and ${columns}` }),
      name,
    }));
    const figures = this.parts.map(({ canvas, name }) =>
      element("figure", {}, element("figcaption", { text: name }), canvas),
    );
    const scale = element("canvas", { class: "scale", width: 256, height: 1, "aria-hidden": "true" });
    paint(scale, [Array.from({ length: 256 }, (_, at) => 10 ** ((FLOOR_DB * (1 - at / 255)) / 20))]);
    const ends = element(
      "p",
      { class: "quiet ends" },
      element("span", { text: `${fixed(FLOOR_DB, 0)} dB` }),
      element("span", { text: `down: ${rows}, across: ${columns}` }),
      element("span", { text: "0 dB of the true peak" }),
    );
    this.host.append(element("div", { class: "channel" }, ...figures), scale, ends);
  }

  #drawImages(report) {
    for (const { canvas, read } of this.parts) paint(canvas, read(report));
  }

  #makeLines({ columns }) {
    const chart = element("div", {
      class: "chart",
      role: "img",
      "aria-label": "Array response by angle, true and estimated",
    });
    const legend = element("p", { class: "legend" });
    for (const [name, of] of [
      ["true", "series-6"],
      ["estimated", "series-1"],
    ]) {
      const label = element("b", { text: name });
      label.style.color = colour(of);
      legend.append(label, " ");
    }
    this.host.append(legend, chart);
    this.plot = plainPlot(chart, [[], [], []], {
      range: () => [FLOOR_DB, 6],
      axes: [axis(null, 22, titled(`${columns} (DFT over antennas, broadside in the middle)`)), axis(stepped, 52)],
      lines: [
        { stroke: colour("series-6"), width: 3 },
        { stroke: colour("series-1"), width: 1.75 },
      ],
    });
    followSize(chart, (width, height) => this.plot?.setSize({ width, height }));
  }
}

/** Draw magnitudes [rows][columns] on a canvas alone: an image, or bars where there is one row. */
export function drawChannel(canvas, magnitudes) {
  if (magnitudes.length > 1) return paint(canvas, magnitudes);
  const [row] = magnitudes;
  const ratio = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: canvas.clientWidth * ratio, height: canvas.clientHeight * ratio });
  const context = canvas.getContext("2d");
  const wide = canvas.width / row.length;
  context.fillStyle = colour("series-0");
  row.forEach((magnitude, at) => {
    const high = Math.min(1, 1 - decibels(magnitude) / FLOOR_DB) * canvas.height;
    context.fillRect(at * wide, canvas.height - high, Math.max(1, wide - ratio), high);
  });
  return undefined;
}

/** Magnitudes as pixels. */
function paint(canvas, magnitudes) {
  const [height, width] = [magnitudes.length, magnitudes[0].length];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  magnitudes.flat().forEach((magnitude, at) => {
    const place = Math.min(1, 1 - decibels(magnitude) / FLOOR_DB) * (CIVIDIS.length - 1);
    const below = Math.min(CIVIDIS.length - 2, Math.floor(place));
    const shares = CIVIDIS[below].map((from, of) => from + (place - below) * (CIVIDIS[below + 1][of] - from));
    image.data.set([...shares, 255], 4 * at);
  });
  context.putImageData(image, 0, 0);
}
